"""Names of things: a prefix that says what it is, and 96 random bits.

A name is no secret, but of a weaker source those that are seen would tell which ones others were given, and how many.
"""

import secrets

KEY, PARTICIPANT, RESOURCE, FEEDER = "key", "par", "res", "fdr"
MARKET, BID, SUBMISSION, RUN = "mkt", "bid", "sub", "run"
WEBHOOK, DELIVERY = "whk", "dlv"


def new_id(prefix: str) -> str:
    """Return a new name for a thing of the kind `prefix`."""
    return f"{prefix}_{secrets.token_hex(12)}"
