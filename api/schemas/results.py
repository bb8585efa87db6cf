"""Published results, as they go out."""

from typing import Any, Generic, Literal, TypeVar

from pydantic import Field

from api.schemas.common import Answer

Row = TypeVar("Row")
Kind = Literal["capacity_up", "capacity_down", "var_up", "var_down"]


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


class _OfInterval(Answer):
    """What holds in an interval."""

    interval_start: str
    interval: int
    """Number of the interval, from 0."""


class LimitOut(_OfInterval):
    """A limit that binds in an interval."""

    component: Literal["congestion", "voltage", "unbalance", "energy"]
    """Part of the prices that it makes: ``energy`` is a limit of import."""
    element: str = Field(examples=["line 23-24"])
    phase: str
    end: str
    called: str
    """What is called in the state in which it binds, without names of others' resources; ``-``: nothing."""
    limit: float = Field(examples=[400.0])
    unit: str = Field(examples=["A"])
    shadow_price_usd_per_h: float
    """What one more `unit` of room would save [currency/h]."""


class BrokenLimitOut(_OfInterval):
    """A limit that is broken, or a requirement that is not met, in an interval."""

    cause: Literal["congestion", "voltage", "unbalance", "import", "service"]
    element: str = Field(examples=["line 23-24"])
    phase: str
    end: str
    called: str
    """What is called in the state in which it is broken, without names of others' resources; ``-``: nothing."""
    limit: float = Field(examples=[400.0])
    value: float = Field(examples=[412.5])
    excess: float = Field(examples=[12.5])
    """How far `value` is beyond `limit`, in `unit`."""
    unit: str = Field(examples=["A"])
    penalty_usd_per_h: float
    """What one more `unit` of excess costs [currency/h]."""
    cost_usd: float
    """What the excess costs in the interval [currency]."""


class AwardOut(_OfInterval):
    """What a resource injects in an interval, and the prices where it stands."""

    resource: str
    kind: str
    bus: str
    phase: str
    net_injection_kw: float
    """Positive into the grid [kW]."""
    q_kvar: float
    """Reactive power, positive into the grid [kvar]."""
    lmp_usd_per_mwh: float
    lmp_q_usd_per_mvarh: float


class SegmentAwardOut(_OfInterval):
    """What was accepted of a segment of a curve of energy, or of a self-schedule, which is segment 0."""

    resource: str
    side: Literal["supply", "demand"]
    segment: int
    quantity_kw: float
    price_usd_per_mwh: float
    price_end_usd_per_mwh: float
    award_kw: float


class ReactiveSegmentAwardOut(_OfInterval):
    """What was accepted of a segment of a curve of reactive power."""

    resource: str
    side: Literal["inject", "absorb"]
    segment: int
    quantity_kvar: float
    price_usd_per_mvarh: float
    price_end_usd_per_mvarh: float
    award_kvar: float


class BlockAwardOut(Answer):
    """What was accepted of a block."""

    block: str
    """Name of its bid."""
    resource: str
    side: Literal["supply", "demand"]
    exclusive_group: str
    first_interval: int
    last_interval: int
    """Its last interval, included."""
    accepted_share: float
    as_bid_usd: float
    revenue_usd: float
    make_whole_usd: float
    """What it loses at the prices, and is paid [currency]."""
    forgone_usd: float
    """What it would have gained at the prices, had it been accepted [currency]."""


class StoreAwardOut(_OfInterval):
    """What a store does in an interval."""

    resource: str
    charge_kw: float
    discharge_kw: float
    energy_kwh: float
    """Energy at the end of the interval [kWh]."""
    shortfall_kwh: float
    value_usd_per_mwh: float
    """What one more MWh in it would be worth then."""


class ServiceAwardOut(_OfInterval):
    """What was reserved of an offer of a service, and the parts of its price, which add up to it."""

    resource: str
    service: Kind
    unit: str = Field(examples=["kW"])
    offered: float
    reserved: float
    offer_usd_per_mw_h: float
    price_usd_per_mw_h: float
    requirement: float
    congestion: float
    voltage: float
    unbalance: float
    scarcity: float


class StatementRowOut(Answer):
    """What a participant is paid for a product of a resource; negative: pays."""

    participant: str
    resource: str
    product: str = Field(examples=["energy_imbalance"])
    quantity: float
    """Positive into the grid, or held ready, in `unit`."""
    unit: str = Field(examples=["kWh"])
    amount: str = Field(examples=["-11.50000000"])
    """Decimal [currency]."""


class StatementChangeOut(Answer):
    """By what a row of a statement has changed: added to the one before it gives this one."""

    participant: str
    resource: str
    product: str = Field(examples=["energy_imbalance"])
    unit: str = Field(examples=["kWh"])
    quantity: float
    amount: str = Field(examples=["0.25000000"])
    """Decimal [currency]."""


class MaskedBidOut(Answer):
    """A bid as it stood at the gate, without names."""

    participant: str = Field(examples=["participant_3fa1478b35b5e3b4"])
    resource: str = Field(examples=["resource_0d12b2843a1db622"])
    product: str
    interval_start: str
    interval_end: str
    terms: dict[str, Any]


class VersionOut(Answer):
    """A version of a market's prices that was published."""

    market_id: str
    price_version: int
    published_at: str
    reason: str


class PublishedPage(Answer, Generic[Row]):
    """Rows of a version of a market's results, and where the next page begins."""

    market_id: str
    price_version: int
    is_current: bool
    status: Literal["preliminary", "final", "corrected"]
    reason: str
    published_at: str
    run_id: str
    items: list[Row]
    next_cursor: str | None


AwardRow = AwardOut | SegmentAwardOut | ReactiveSegmentAwardOut | BlockAwardOut | StoreAwardOut | ServiceAwardOut


class AwardPage(PublishedPage[AwardRow]):
    """Awards of a version, all rows of the kind that `of` names, and where the next page begins."""
