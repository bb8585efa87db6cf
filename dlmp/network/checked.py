"""What another program's power flow says of a network, and which limits it finds broken.

The programs are asked by `dlmp.network.pandapower_check` and `dlmp.network.opendss.check`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from dlmp.network.model import BALANCED_PHASE, PHASES, ComplexArray, FloatArray, Network, UnbalancedNetwork

Told = Mapping[tuple[str, int], float]
"""How far a limit is told to be broken, by the name of its element, with its phase, and by interval or state [pu]."""


@dataclass(frozen=True, eq=False)
class CheckedFlow:
    """The power flow of t intervals by another program.

    Parameters
    ----------
    program
        Its name.
    network
        Of n nodes and m conductors.
    v_pu
        (t, n) Complex voltages [pu]; those without load where the program found none.
    import_kva
        (t,) Complex power that the sources feed in, less what is injected at their own nodes [kVA].
    current_from_pu, current_to_pu
        (t, m) Complex current into each conductor at its two ends [pu].
    converged
        True when the program solved every interval.
    state_name
        (t,) What each is called; default: ``interval 0``, and so on.
    """

    program: str
    network: Network = field(repr=False)
    v_pu: ComplexArray
    import_kva: ComplexArray
    current_from_pu: ComplexArray
    current_to_pu: ComplexArray
    converged: bool
    state_name: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.state_name:
            object.__setattr__(self, "state_name", tuple(f"interval {number}" for number in range(len(self.v_pu))))

    def branch_loss_pu(self) -> FloatArray:
        """(t,) Losses of all branches [pu]."""
        at_from = self.v_pu[:, self.network.from_node] * np.conj(self.current_from_pu)
        at_to = self.v_pu[:, self.network.to_node] * np.conj(self.current_to_pu)
        return np.asarray((at_from + at_to).real.sum(axis=1))

    def port_voltage(self) -> FloatArray:
        """(t, p) Voltage magnitude of every port: to ground, or between two phases over 1.73 [pu]."""
        return np.abs((self.network.incidence @ self.v_pu.T).T) * self.network.port_scale

    def worst_voltage(self, told: Told | None = None) -> tuple[float, str]:
        """Largest excursion from a voltage band beyond what is `told` [pu], and where; between phases."""
        network = self.network
        ports = np.flatnonzero(network.is_priced)
        ports = ports[~np.isin(ports, network.source)]
        node = network.port_node[ports]
        size = self.port_voltage()[:, ports]
        broken = np.maximum(network.v_min_pu[node] - size, size - network.v_max_pu[node])
        names = [_at(f"bus {network.port_bus[port]}", str(network.port_phase[port])) for port in ports]
        return self._worst(broken - _of(told, names, len(broken)), names)

    def worst_unbalance(self, told: Told | None = None) -> tuple[float, str]:
        """Largest excess of negative over positive sequence above the limit and what is `told` [pu], and where."""
        network = self.network
        if not isinstance(network, UnbalancedNetwork) or not np.isfinite(network.v_unbalance_max):
            return 0.0, ""
        turn = np.exp(2j * np.pi / 3)
        excess, names = [], []
        for number, bus in enumerate(network.buses):
            nodes = network.nodes_at(number)
            if set(PHASES) <= set(network.phase[nodes]) and not network.is_source[nodes].any():
                a, b, c = (self.v_pu[:, nodes[network.phase[nodes] == phase][0]] for phase in PHASES)
                ratio = np.abs(a + turn**2 * b + turn * c) / np.abs(a + turn * b + turn**2 * c)
                excess.append(ratio - network.v_unbalance_max)
                names.append(f"bus {bus}")
        broken = np.array(excess).reshape(len(names), len(self.v_pu)).T
        return self._worst(broken - _of(told, names, len(broken)), names)

    def worst_loading(self, told: Told | None = None) -> tuple[float, str]:
        """Largest loading of a rated conductor less what is `told` above its rating [%], and which."""
        network = self.network
        at_from, at_to = np.abs(self.current_from_pu), np.abs(self.current_to_pu)
        power = ~network.rating_is_current
        at_from[:, power] *= np.abs(self.v_pu[:, network.from_node[power]])
        at_to[:, power] *= np.abs(self.v_pu[:, network.to_node[power]])
        loading = 100 * np.maximum(at_from / network.rating_from_pu, at_to / network.rating_to_pu)
        phases = network.phase[network.from_node]
        names = [_at(str(name), str(at)) for name, at in zip(network.branch, phases, strict=True)]
        return self._worst(loading - 100 * _of(told, names, len(loading)), names)

    def _worst(self, value: FloatArray, names: list[str]) -> tuple[float, str]:
        """Largest `value` (t, k) and where; 0 and nowhere unless it is above zero."""
        if not value.size or value.max() <= 0:
            return 0.0, ""
        state, place = np.unravel_index(np.argmax(value), value.shape)
        return float(value[state, place]), f"{names[place]}, {self.state_name[state]}"


def _at(element: str, phase: str) -> str:
    return element if phase == BALANCED_PHASE else f"{element}.{phase}"


def _of(told: Told | None, names: list[str], intervals: int) -> FloatArray:
    """(t, k) What is told of each name."""
    amount = np.zeros((intervals, len(names)))
    for (name, interval), value in (told or {}).items():
        amount[interval, [index for index, known in enumerate(names) if known == name]] = value
    return amount
