"""Audit and health, as they go out."""

from api.schemas.common import Answer


class AuditCheck(Answer):
    """Outcome of a verification."""

    is_whole: bool
    entries: int
    head: str
    """Hash of the last entry: keep it elsewhere, and a chain that is rewritten from its beginning is found too."""
    faults: list[str]


class Health(Answer):
    """A sign of life."""

    status: str
