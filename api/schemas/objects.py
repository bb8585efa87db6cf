"""Keys, participants, feeders, resources, markets and runs, as they go in and out."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from api.schemas.common import Answer, Body, Day, Id, Name, Power, Price, Time, TimeZone
from dlmp.bids import ACCOUNTS
from dlmp.market import MAX_INTERVALS

MOST_TEXT = 2_000_000
Series = Annotated[list[Price], Field(min_length=1, max_length=MAX_INTERVALS)]


class KeyIn(Body):
    """A key to be issued."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "trading desk", "role": "aggregator", "participant_id": "par_0f1e2d3c4b5a69788796a5b4"}
            ]
        }
    )

    name: Name
    """What it is for."""
    role: Literal["aggregator", "operator", "auditor"]
    participant_id: Id | None = None
    """Whose it is; an aggregator's key needs it, others have none."""
    scopes: list[str] | None = None
    """A part of what the role may do; left out: all of it."""
    expires_at: Time | None = None

    @model_validator(mode="after")
    def _is_someones(self) -> Self:
        if (self.role == "aggregator") != (self.participant_id is not None):
            raise PydanticCustomError(
                "participant_mismatch", "an aggregator's key needs a participant, others have none"
            )
        return self


class KeyOut(Answer):
    """A key, without its secret."""

    id: str
    name: str
    role: str
    scopes: list[str]
    participant_id: str | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None


class NewKeyOut(KeyOut):
    """A key that was just issued."""

    key: str
    """The whole key; it is shown only now."""


class ParticipantIn(Body):
    """Someone who trades."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Sunny Roofs"}]})

    name: Name


class ParticipantOut(Answer):
    """Someone who trades."""

    id: str
    name: str
    created_at: str


class FeederIn(Body):
    """A feeder: one that ships with dlmp, or files of a case folder."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "substation-7", "shipped": "feeder33"}]})

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    """What it is called; other content under the same name is a further version."""
    shipped: Name | None = None
    """Name of a case that ships."""
    files: Annotated[
        dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, StringConstraints(max_length=MOST_TEXT)]]
        | None,
        Field(max_length=20),
    ] = None
    """Texts of ``case.toml``, whose section ``[network]`` counts, and of the tables that it names, by file name."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.shipped is None) == (self.files is None):
            raise PydanticCustomError("one_of", "needs either shipped or files")
        return self


class BusOut(Answer):
    """A bus, and the phases at which a resource may stand; blank is all of them."""

    bus: str
    phases: list[str]


class FeederOut(Answer):
    """A version of a feeder."""

    id: str
    name: str
    version: int
    sha256: str
    description: str
    bus_count: int
    created_at: str
    buses: list[BusOut] = Field(default_factory=list)
    """Only where one feeder is read."""


class ResourceIn(Body):
    """A DER at a node, with its registered limits."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "participant_id": "par_0f1e2d3c4b5a69788796a5b4",
                    "feeder": "substation-7",
                    "name": "solar 13",
                    "bus": "13",
                    "kind": "solar",
                    "p_max_kw": 900.0,
                    "q_min_kvar": -300.0,
                    "q_max_kvar": 300.0,
                    "s_max_kva": 1000.0,
                }
            ]
        }
    )

    participant_id: Id
    feeder: Name
    """Name of a feeder."""
    name: Name
    """Unique on the feeder."""
    bus: Name
    phase: Annotated[str, StringConstraints(pattern=r"^(|1|2|3|12|13|23|123)$")] = ""
    """One phase of the bus or a pair; blank: all phases."""
    kind: Literal["solar", "wind", "generator", "load", "demand_response", "storage", "ev", "other"]
    p_min_kw: Annotated[Power, Field(le=0)] = 0.0
    """Smallest injection [kW]; negative for consumption."""
    p_max_kw: Annotated[Power, Field(ge=0)] = 0.0
    """Largest injection [kW]."""
    q_min_kvar: Annotated[Power, Field(le=0)] = 0.0
    q_max_kvar: Annotated[Power, Field(ge=0)] = 0.0
    """Range of the reactive injection [kvar], free of charge."""
    s_max_kva: Annotated[Power, Field(gt=0)] | None = None
    """Rating [kVA]; at least the ranges of p reach."""
    power_factor_min: Annotated[float, Field(ge=0, le=1)] | None = None
    """Least ratio of real to apparent power; for a resource that only injects, or only consumes."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.name in ACCOUNTS:
            raise PydanticCustomError("reserved_name", "this name belongs to an account of the settlement")
        if self.s_max_kva is not None and max(self.p_max_kw, -self.p_min_kw) > self.s_max_kva:
            raise PydanticCustomError("beyond_rating", "p_min_kw and p_max_kw must be within s_max_kva")
        if self.power_factor_min and self.p_min_kw < 0 < self.p_max_kw:
            raise PydanticCustomError("both_ways", "power_factor_min is for a resource that never consumes, or injects")
        return self

    def limits(self) -> dict[str, float | None]:
        """Registered limits, as they are kept."""
        names = ("p_min_kw", "p_max_kw", "q_min_kvar", "q_max_kvar", "s_max_kva", "power_factor_min")
        return {name: getattr(self, name) for name in names}


class ResourceOut(Answer):
    """A registered resource."""

    id: str
    participant_id: str
    feeder: str
    name: str
    bus: str
    phase: str
    kind: str
    p_min_kw: float
    p_max_kw: float
    q_min_kvar: float
    q_max_kvar: float
    s_max_kva: float | None
    power_factor_min: float | None
    created_at: str
    retired_at: str | None


class ImportLimits(Body):
    """Range of the import at the substation; what is left out is unlimited."""

    p_min_kw: Power | None = None
    p_max_kw: Power | None = None
    q_min_kvar: Power | None = None
    q_max_kvar: Power | None = None

    @model_validator(mode="after")
    def _is_range(self) -> Self:
        for low, high in ((self.p_min_kw, self.p_max_kw), (self.q_min_kvar, self.q_max_kvar)):
            if low is not None and high is not None and low > high:
                raise PydanticCustomError("empty_range", "the lower end must not be above the upper end")
        return self


class Requirement(Body):
    """A service that is required at the substation in all intervals."""

    name: Name
    service: Literal["capacity_up", "capacity_down", "var_up", "var_down"]
    place: Literal["substation", "branch", "zone"] = "substation"
    element: Annotated[str, StringConstraints(max_length=100)] = ""
    """Branch or zone; blank at the substation."""
    quantity_kw: Annotated[Power, Field(ge=0)]
    shortage_usd_per_mw_h: Annotated[Price, Field(gt=0)]
    """What each MW or MVAr short of it costs in an hour."""


class MarketIn(Body):
    """A market: a feeder, a trade date, a gate, and what the substation charges."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "day ahead",
                    "feeder_id": "fdr_0f1e2d3c4b5a69788796a5b4",
                    "trade_date": "2026-07-01",
                    "market_timezone": "America/Los_Angeles",
                    "interval_minutes": 60,
                    "gate_opens_at": "2026-06-29T15:00:00Z",
                    "gate_closes_at": "2026-06-30T17:00:00Z",
                    "import_price_usd_per_mwh": [42.5],
                }
            ]
        }
    )

    name: Name
    feeder_id: Id
    trade_date: Day
    """Day on the market's own clock."""
    market_timezone: TimeZone
    interval_minutes: Literal[1, 5, 10, 15, 30, 60] = 60
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] = "USD"
    gate_opens_at: Time
    """From then on bids are taken, this instant included."""
    gate_closes_at: Time
    """Until then, this instant excluded."""
    price_floor_usd_per_mwh: Price = -1_000.0
    price_cap_usd_per_mwh: Price = 5_000.0
    import_price_usd_per_mwh: Series
    """Substation price of each interval, or one for all."""
    import_q_price_usd_per_mvarh: Series = Field(default_factory=lambda: [0.0])
    load_scale: Annotated[list[Annotated[float, Field(ge=0, le=100)]], Field(max_length=MAX_INTERVALS)] = Field(
        default_factory=list
    )
    """Factor on the feeder's loads in each interval, or one for all; left out: the feeder's own profiles."""
    import_limits: ImportLimits = ImportLimits()
    requirements: Annotated[list[Requirement], Field(max_length=100)] = Field(default_factory=list)
    takes_blocks: bool = False
    """Take block bids; prices of energy then do not rise along a segment."""
    bids_public_after_days: Annotated[int, Field(ge=0, le=36_500)] | None = 90
    """Days after the trade date from which on all bids are public under pseudonyms; null: never."""

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.gate_closes_at <= self.gate_opens_at:
            raise PydanticCustomError("empty_gate", "gate_closes_at must be after gate_opens_at")
        if self.price_floor_usd_per_mwh > self.price_cap_usd_per_mwh:
            raise PydanticCustomError("empty_range", "the price floor must not be above the cap")
        return self


class MarketOut(Answer):
    """A market and its state now."""

    id: str
    name: str
    state: Literal["scheduled", "open", "closed", "cleared", "published", "settled"]
    feeder_id: str
    feeder: str
    trade_date: str
    market_timezone: str
    currency: str
    interval_minutes: int
    intervals: int
    starts_at: str
    ends_at: str
    gate_opens_at: str
    gate_closes_at: str
    price_floor_usd_per_mwh: float
    price_cap_usd_per_mwh: float
    inputs: dict[str, Any]
    takes_blocks: bool
    bids_public_at: str | None
    """From when on the bids of a published market are public under pseudonyms; null: never."""
    price_version: int | None
    created_at: str


class RunIn(Body):
    """A clearing run; everything may be left out."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{}, {"correction_reason": "wrong substation price", "import_price_usd_per_mwh": [44.0]}]
        }
    )

    limits: Literal["soft", "hard"] = "soft"
    """``hard``: refuse a day in which not all limits can be kept."""
    formulation: Literal["ac_tangent", "lindistflow"] = "ac_tangent"
    max_passes: Annotated[int, Field(ge=1, le=200)] = 30
    time_limit_s: Annotated[float, Field(gt=0, le=86_400)] | None = None
    """Longest time that the run may take [s]; left out: the service's."""
    correction_reason: Name | None = None
    """Why a published market is cleared again."""
    import_price_usd_per_mwh: Series | None = None
    """For a correction: the substation prices as they should have been."""


class SettleIn(Body):
    """A settlement; everything may be left out."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"real_time_market_id": "mkt_0f1e2d3c4b5a69788796a5b4"},
                {"correction_reason": "the meter of solar 13 was read again"},
            ]
        }
    )

    real_time_market_id: Id | None = None
    """Published market at whose prices deviations are settled: of the same feeder, day, intervals and resources.

    Left out: that of the settlement before, and at first the market's own prices, which its own name gives too.
    """
    correction_reason: Name | None = None
    """Why a settled market is settled again."""


class RunOut(Answer):
    """A run."""

    id: str
    market_id: str
    number: int
    kind: Literal["clearing", "settlement"]
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    reason: str
    correction_reason: str
    settings: dict[str, Any]
    settling: dict[str, Any] | None
    """What its statements are settled against: readings by version, and the real-time market; null: nothing."""
    corrected_inputs: dict[str, list[float]]
    """Series in place of those of the market's `inputs`, by this correction and those before it."""
    snapshot_sha256: str
    requested_by: str
    created_at: str
    started_at: str | None
    ended_at: str | None
    attempts: int
    progress: dict[str, Any]
    summary: dict[str, Any] | None
