"""How much of a feeder's consumption its own resources serve: the balance of real power, interval by interval.

    load + losses + export = local generation + import

Only net powers are known at a place: of a port with load and fixed generation what is left counts, and so it does of a
resource, and of the substation.  ``share = 1 - import / (load + losses)`` is the part of what the feeder consumes, its
losses included, that is not drawn from upstream; a feeder that exports serves all of it.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from dlmp.market import MarketCase
from dlmp.network.model import FloatArray
from dlmp.prices import interval_keys
from dlmp.results import Awards, Flows

POWERS = ("load_kw", "local_generation_kw", "loss_kw", "import_kw", "export_kw")


@dataclass(frozen=True, eq=False)
class LocalSupply:
    """The balance of a feeder, each array (t,) [kW] and none negative.

    Parameters
    ----------
    case
        The market case.
    load_kw
        What is consumed: fixed load, at its voltage where it follows that, shunts at buses, accepted demand, charging.
    local_generation_kw
        What is generated: fixed generation, accepted supply, discharging.
    loss_kw
        Losses of the branches.
    import_kw, export_kw
        What is drawn from, and what is fed into, the upstream grid; one of them is zero.
    """

    case: MarketCase = field(repr=False)
    load_kw: FloatArray
    local_generation_kw: FloatArray
    loss_kw: FloatArray
    import_kw: FloatArray
    export_kw: FloatArray

    @property
    def share_served_locally(self) -> FloatArray:
        """(t,) Part of load and losses that is not imported, 0 to 1; 1 where nothing is consumed."""
        return _share(self.import_kw, self.load_kw + self.loss_kw)

    def table(self) -> pd.DataFrame:
        """One row per interval."""
        frame = interval_keys(self.case.horizon, 1)
        for name in (*POWERS, "share_served_locally"):
            frame[name] = getattr(self, name)
        return frame

    def totals(self) -> dict[str, float]:
        """Energies of the horizon [kWh], and the share of all that is consumed."""
        hours = self.case.horizon.interval_hours
        energy = {name.removesuffix("_kw"): float(getattr(self, name).sum()) * hours for name in POWERS}
        share = _share(np.array(energy["import"]), np.array(energy["load"] + energy["loss"]))
        return {f"{name}_kwh": value for name, value in energy.items()} | {"share_served_locally": float(share)}


def _share(imported: FloatArray, consumed: FloatArray) -> FloatArray:
    drawn = np.divide(imported, consumed, out=np.zeros_like(consumed), where=consumed > 0)
    return np.clip(1.0 - drawn, 0.0, 1.0)


def local_supply(case: MarketCase, awards: Awards, flows: Flows, import_kw: FloatArray) -> LocalSupply:
    """Balance a clearing of `case` with its real import (t,) [kW]."""
    generation = np.maximum(awards.net_injection_kw, 0.0).sum(axis=1) + np.maximum(-case.load_p_kw, 0.0).sum(axis=1)
    loss = (flows.from_kva - flows.to_kva).real.sum(axis=1)
    return LocalSupply(
        case,
        load_kw=import_kw + generation - loss,
        local_generation_kw=generation,
        loss_kw=loss,
        import_kw=np.maximum(import_kw, 0.0),
        export_kw=np.maximum(-import_kw, 0.0),
    )
