"""Published results, as they go out."""

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


class PricePage(Answer):
    """Prices of a version, and where the next page begins."""

    market_id: str
    price_version: int
    is_current: bool
    status: str
    reason: str
    published_at: str
    run_id: str
    items: list[PriceOut]
    next_cursor: str | None
