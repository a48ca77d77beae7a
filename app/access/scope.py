"""How much a token may do. Light, because the command line offers it as a choice."""

from enum import StrEnum


class Scope(StrEnum):
    """Each scope includes the ones before it."""

    read = "read"
    launch = "launch"
    admin = "admin"

    def includes(self, other: "Scope") -> bool:
        scopes = list(Scope)
        return scopes.index(self) >= scopes.index(other)
