"""Names of things: a prefix that says what it is, and 96 random bits.

A name is no secret, so that its bits need not come from the system, which takes longer than all else of a request.
"""

import random

KEY, PARTICIPANT, RESOURCE, FEEDER = "key", "par", "res", "fdr"
MARKET, BID, SUBMISSION, RUN = "mkt", "bid", "sub", "run"
WEBHOOK, DELIVERY = "whk", "dlv"

_NAMES = random.Random()  # seeded by the system, in each process


def new_id(prefix: str) -> str:
    """Return a new name for a thing of the kind `prefix`."""
    return f"{prefix}_{_NAMES.getrandbits(96):024x}"
