"""Client of the market service: from Python calls to its HTTP API and back, without losing or doubling a bid.

>>> from dlmp.client import Client
>>> with Client("http://127.0.0.1:8000", key) as client:  # doctest: +SKIP
...     market = client.markets()[0]
...     receipt = client.submit(Bid(market.id, resource.id, "supply", [(500, 10.0)]))
"""

from dlmp.client.client import Client
from dlmp.client.errors import (
    Busy,
    Fault,
    NoAnswer,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    OutOfDate,
    Refused,
    ServerFailed,
    ServiceError,
    StateConflict,
    WrongContent,
)
from dlmp.client.outbox import Outbox
from dlmp.client.records import (
    Bid,
    BidVersion,
    Feeder,
    Key,
    Market,
    Outcome,
    Participant,
    Receipt,
    Resent,
    Resource,
    Run,
)

__all__ = [
    "Bid",
    "BidVersion",
    "Busy",
    "Client",
    "Fault",
    "Feeder",
    "Key",
    "Market",
    "NoAnswer",
    "NotAllowed",
    "NotAuthenticated",
    "NotFound",
    "OutOfDate",
    "Outbox",
    "Outcome",
    "Participant",
    "Receipt",
    "Refused",
    "Resent",
    "Resource",
    "Run",
    "ServerFailed",
    "ServiceError",
    "StateConflict",
    "WrongContent",
]
