"""Audit and health, as they go out."""

from typing import Any

from pydantic import Field

from api.schemas.common import Answer


class EntryOut(Answer):
    """A change, and the hash that binds it to the one before it."""

    sequence: int
    at: str
    actor: str
    """Key that made it; ``clock`` for a gate by its time, ``system`` for a worker, ``console`` at its machine."""
    action: str = Field(examples=["market.publish"])
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    rows: dict[str, str]
    """SHA-256 of each row that it wrote, by its table and name."""
    previous_hash: str
    hash: str


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
