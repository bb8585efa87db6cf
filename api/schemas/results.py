"""Published results, as they go out."""

from typing import Literal

from pydantic import Field

from api.schemas.common import Answer


class PriceOut(Answer):
    """Prices of a node in an interval, and their parts, which add up to them."""

    interval_start: str
    interval: int
    bus: str
    phase: str
    price_usd_per_mwh: float = Field(examples=[62.15])
    energy: float
    loss: float
    congestion: float
    voltage: float
    unbalance: float
    scarcity: float
    q_price_usd_per_mvarh: float
    energy_q: float
    loss_q: float
    congestion_q: float
    voltage_q: float
    unbalance_q: float
    scarcity_q: float


class PriceShareOut(Answer):
    """A share of the price of a node in an interval: `share_usd_per_mwh` of `price_usd_per_mwh`, and what makes it."""

    interval_start: str
    interval: int
    bus: str
    phase: str
    component: Literal["energy", "loss", "congestion", "voltage", "unbalance", "scarcity", "rest"]
    """Part of the price to which it belongs; ``rest`` is all shares below 0.01 together."""
    element: str = Field(examples=["line 23-24"])
    """What makes it."""
    element_phase: str
    element_end: str
    called: str
    """What is called in the state in which the limit binds, without names of others' resources; ``-``: nothing."""
    limit: float | None = Field(examples=[400.0])
    """The limit at which the element is, in `unit`; null where there is none."""
    unit: str = Field(examples=["A"])
    share_usd_per_mwh: float = Field(examples=[18.4])
    q_share_usd_per_mvarh: float
    price_usd_per_mwh: float = Field(examples=[62.15])
    q_price_usd_per_mvarh: float


class _PublishedPage(Answer):
    """What is said with every page of a version, and where the next page begins."""

    market_id: str
    price_version: int
    is_current: bool
    status: str
    reason: str
    published_at: str
    run_id: str
    next_cursor: str | None


class PricePage(_PublishedPage):
    """Prices of a version, and where the next page begins."""

    items: list[PriceOut]


class PriceSharePage(_PublishedPage):
    """What makes the prices of a version, and where the next page begins."""

    items: list[PriceShareOut]
