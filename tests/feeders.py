"""Small networks written down in per unit, for numbers that can be worked by hand.

The base is `BASE_KVA` = 100 kVA: 1 pu of power is 100 kW.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dlmp.network.model import BALANCED_PHASE, BalancedNetwork


@dataclass(frozen=True)
class Branch:
    """A branch between two buses, named ``from-to``; impedance, shunt (both ends together) and rating in pu."""

    start: str
    end: str
    r: float
    x: float
    rating: float = np.inf
    is_current: bool = False
    tap: complex = 1.0
    shunt: complex = 0.0


def feeder(
    branches: Sequence[Branch],
    load: Mapping[str, tuple[float, float]] | None = None,
    *,
    band: tuple[float, float] = (0.5, 1.5),
    bands: Mapping[str, tuple[float, float]] | None = None,
    source: Mapping[str, complex] | None = None,
    shunt: Mapping[str, complex] | None = None,
    base_kv: float = 1.0,
) -> BalancedNetwork:
    """A network of the buses that `branches` name, in their order.

    Parameters
    ----------
    branches
        The branches.
    load
        Consumption of a bus (p [kW], q [kvar]).
    band, bands
        Voltage band [pu] of every bus, and of single buses.
    source
        Voltage [pu] of each source; default: 1.0 at the first bus.
    shunt
        Shunt admittance of a bus [pu].
    base_kv
        Line-to-line base voltage [kV] of every bus.
    """
    load, bands, shunt = load or {}, bands or {}, shunt or {}
    bus = list(dict.fromkeys(end for branch in branches for end in (branch.start, branch.end)))
    source = source or {bus[0]: 1.0}
    place = {name: index for index, name in enumerate(bus)}
    limits = np.array([bands.get(name, band) for name in bus])
    rating = np.array([branch.rating for branch in branches])
    half_shunt = np.array([branch.shunt / 2 for branch in branches], dtype=complex)
    return BalancedNetwork(
        name="feeder",
        bus=np.array(bus),
        phase=np.full(len(bus), BALANCED_PHASE),
        base_kv=np.full(len(bus), base_kv),
        v_min_pu=limits[:, 0],
        v_max_pu=limits[:, 1],
        source=np.array([place[name] for name in source], dtype=np.int64),
        source_v_pu=np.array(list(source.values()), dtype=complex),
        branch=np.array([f"{branch.start}-{branch.end}" for branch in branches]),
        branch_kind=np.full(len(branches), "line"),
        from_node=np.array([place[branch.start] for branch in branches], dtype=np.int64),
        to_node=np.array([place[branch.end] for branch in branches], dtype=np.int64),
        series_pu=np.array([complex(branch.r, branch.x) for branch in branches]),
        tap=np.array([branch.tap for branch in branches], dtype=complex),
        shunt_from_pu=half_shunt,
        shunt_to_pu=half_shunt,
        rating_from_pu=rating,
        rating_to_pu=rating,
        rating_is_current=np.array([branch.is_current for branch in branches], dtype=bool),
        node_shunt_pu=np.array([shunt.get(name, 0.0) for name in bus], dtype=complex),
        element=np.array([f"load {name}" for name in load], dtype=str),
        element_kind=np.full(len(load), "load"),
        element_load=np.array([place[name] for name in load], dtype=np.int64),
        element_p_kw=np.array([p for p, _ in load.values()], dtype=float),
        element_q_kvar=np.array([q for _, q in load.values()], dtype=float),
        alias_bus=np.array([], dtype=str),
        alias_node=np.array([], dtype=np.int64),
    )
