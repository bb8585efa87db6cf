"""Problem details (RFC 9457), as they go out."""

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.common import Answer


class FaultOut(Answer):
    """One thing wrong with what was sent."""

    pointer: str
    """Where: a JSON pointer (RFC 6901) into the body; blank is the whole of it."""
    code: str
    """Which of the documented codes it is."""
    detail: str
    """What would be right."""


class Problem(BaseModel):
    """What every error answers with."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str
    title: str
    status: int
    """Status code of the answer."""
    detail: str
    """What would be right, for people."""
    code: str
    """What it is, for programs: it stays the same."""
    request_id: str
    """Finds the request in the log of the service."""
    errors: list[FaultOut] = Field(default_factory=list)
    """All that is wrong with what was sent."""
