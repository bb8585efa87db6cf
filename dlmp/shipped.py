"""Market cases that ship with dlmp, by name."""

from pathlib import Path

from dlmp.errors import InputError, Problem

PACKAGE = Path(__file__).parent
PLACES = (PACKAGE / "networks", PACKAGE.parent / "networks")
"""Where they are: in the installed package, else in the checkout beside it."""


def shipped_cases() -> list[str]:
    """Names of the cases that ship."""
    return sorted({path.parent.name for path in _root().glob("*/case.toml")})


def shipped_case(name: str) -> Path:
    """Folder of the case that ships as `name`; raises `InputError` for an unknown one."""
    if name not in shipped_cases():
        known = ", ".join(shipped_cases()) or "none"
        raise InputError([Problem("shipped case", "name", name, f"is none; those that ship: {known}")])
    return _root() / name


def _root() -> Path:
    return next((place for place in PLACES if place.is_dir()), PLACES[0])
