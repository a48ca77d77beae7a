"""Are the packages those that this version was made for? Reads their metadata and imports none of them."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from app.housekeeping.doctor.finding import Finding
from app.i18n import _
from panollava import __version__

OURS = "panollava"
NAMED = ("torch", "pytorch-lightning", "transformers")
"""Whose versions are always told: they decide what is computed."""


def check() -> Iterator[Finding]:
    try:
        wanted = [Requirement(line) for line in requires(OURS) or ()]
    except PackageNotFoundError:
        yield Finding("versions", "warn", _("panollava is not installed, so nothing says what it needs"), _("pip install -e ."))
        return
    python = platform.python_version()
    if not SpecifierSet(metadata(OURS)["Requires-Python"]).contains(python):
        text = _("Python {version}, and {wanted} is needed").format(version=python, wanted=metadata(OURS)["Requires-Python"])
        yield Finding("versions", "fail", text, _("make an environment with that Python"))
    needed = [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    wrong = [each for each in needed if not _is_met(each)]
    for each in wrong:
        text = _("{name} {version}, and {wanted} is needed").format(name=each.name, version=_version(each.name), wanted=each.specifier or _("any"))
        yield Finding("versions", "fail", text, _("pip install --constraint constraints.txt -e ."))
    if not wrong:
        told = ", ".join(f"{name} {_version(name)}" for name in NAMED)
        yield Finding("versions", "ok", f"panollava {__version__}, Python {python}, {told}")


def _is_met(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return _("is not there")
