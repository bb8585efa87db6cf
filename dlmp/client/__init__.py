"""Client of the market service: from Python calls to its HTTP API and back, without losing or doubling a bid.

>>> from dlmp.client import Client
>>> with Client("http://127.0.0.1:8000", key) as client:  # doctest: +SKIP
...     market = client.markets()[0]
...     receipt = client.submit(Bid(market.id, resource.id, "supply", [(500, 10.0)]))
"""

from dlmp.client.bids import Bid, Block, DeadlineLoad, EnergyBand, Store
from dlmp.client.client import Client
from dlmp.client.errors import (
    BusyError,
    ConflictError,
    ContentError,
    Fault,
    NoAnswerError,
    NotAllowedError,
    NotAuthenticatedError,
    NotFoundError,
    OutOfDateError,
    RefusedError,
    ServerError,
    ServiceError,
)
from dlmp.client.outbox import Outbox
from dlmp.client.records import (
    BidVersion,
    Delivery,
    Feeder,
    Key,
    Market,
    MaskedBid,
    Outcome,
    Participant,
    ReadSeries,
    Receipt,
    Resent,
    Resource,
    Run,
    Webhook,
)

__all__ = [
    "Bid",
    "BidVersion",
    "Block",
    "BusyError",
    "Client",
    "ConflictError",
    "ContentError",
    "DeadlineLoad",
    "Delivery",
    "EnergyBand",
    "Fault",
    "Feeder",
    "Key",
    "Market",
    "MaskedBid",
    "NoAnswerError",
    "NotAllowedError",
    "NotAuthenticatedError",
    "NotFoundError",
    "OutOfDateError",
    "Outbox",
    "Outcome",
    "Participant",
    "ReadSeries",
    "Receipt",
    "RefusedError",
    "Resent",
    "Resource",
    "Run",
    "ServerError",
    "ServiceError",
    "Store",
    "Webhook",
]
