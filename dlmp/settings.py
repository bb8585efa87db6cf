"""Settings of a clearing, checked on construction."""

from dataclasses import dataclass

from dlmp.errors import Problems

LOSS_MODELS = ("linear", "none")
SOFT, HARD = "soft", "hard"
LIMITS = (SOFT, HARD)


@dataclass(frozen=True)
class Settings:
    """How a case is cleared.

    Parameters
    ----------
    formulation
        Network model: ``ac_tangent`` or ``lindistflow``.
    losses
        Losses of `lindistflow`: ``linear`` (around the dispatch without bids) or ``none``.
    limits
        ``soft``: a limit is broken where that costs less, by the penalties of the case, than to keep it; ``hard``: a
        case in which not all limits can be kept is refused.
    max_passes
        Most LPs before the clearing ends as ``not_converged``.
    circle_sides
        Sides of the polygon inscribed in each apparent-power circle.
    tolerance_pu
        Largest step, limit violation and import mismatch of a converged result [pu of 100 kVA
        for powers, pu for voltages].
    tolerance_usd_per_mwh
        Largest error of the optimality conditions of a converged result [currency/MWh].
    time_limit_s
        Limit of each LP [s].
    """

    formulation: str = "ac_tangent"
    losses: str = "linear"
    limits: str = SOFT
    max_passes: int = 30
    circle_sides: int = 32
    tolerance_pu: float = 1e-8
    tolerance_usd_per_mwh: float = 1e-6
    time_limit_s: float = 600.0

    def __post_init__(self) -> None:
        problems = Problems()
        for name, known in (("losses", LOSS_MODELS), ("limits", LIMITS)):
            if getattr(self, name) not in known:
                problems.add("settings", name, getattr(self, name), f"must be one of {', '.join(known)}")
        for name, least in (("max_passes", 1), ("circle_sides", 4)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                problems.add("settings", name, value, "must be a whole number")
            elif value < least:
                problems.add("settings", name, value, f"must be at least {least}")
        for name in ("tolerance_pu", "tolerance_usd_per_mwh", "time_limit_s"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                problems.add("settings", name, value, "must be a number")
            elif not value > 0:
                problems.add("settings", name, value, "must be above zero")
        problems.raise_if_any()
