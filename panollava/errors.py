"""What a user did that cannot work, said so that they can mend it. Exit status 2 on the command line, 422 in the API."""

from collections.abc import Mapping, Sequence


class BadInput(Exception):
    """The message names what is wrong, where, and what to do. Never raised for a defect of ours.

    `fields` is the same once more for forms: (dotted name, what is wrong with it), where fields are at fault.
    """

    def __init__(self, message: str, fields: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.fields = tuple(fields)


class MissingFile(BadInput):
    """A table, a picture, a checkpoint: the message names the path."""


class HubAway(BadInput):
    """A model is not on this machine, and the hub does not answer, or may not be asked."""


class OutOfMemory(Exception):
    """A device or the machine had no room left. The message says for what, and which settings need less. Exit status 1.

    `suggestion` is the first of those once more for forms: settings by their names on the command line, with their values.
    """

    def __init__(self, message: str, step: int = 0, suggestion: Mapping[str, bool | int | str] | None = None, *, is_host: bool = False) -> None:
        super().__init__(message)
        self.step, self.suggestion = step, dict(suggestion or {})
        self.is_host = is_host
        """Whether it was the machine that had none."""
