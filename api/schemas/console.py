"""What the console sends."""

from pydantic import Field

from api.schemas.common import Body


class SessionIn(Body):
    """An API key to sign in with."""

    key: str = Field(min_length=1, max_length=4_000)


class BidFileIn(Body):
    """A table of bids, as CSV."""

    text: str = Field(min_length=1, max_length=4_000_000)
    profile: str | None = Field(None, min_length=1, max_length=4_000_000)
    """The table ``store_profile.csv`` beside ``stores.csv``."""
