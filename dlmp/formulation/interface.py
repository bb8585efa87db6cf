"""What a formulation tells the clearing: limits, and how they and the import follow the injections.

A formulation maps the injections at the ports of a network to an operating point.  The clearing only asks
the point for the substation import, the values of the limited quantities, and gradients of both: whether
they come from an AC power flow or from a linear model is the formulation's own affair.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.network.model import BALANCED_PHASE, ComplexArray, FloatArray, IntArray, TextArray, frozen

VOLTAGE, CONGESTION, UNBALANCE = "voltage", "congestion", "unbalance"


@dataclass(frozen=True, eq=False)
class Limits:
    """The k limited quantities of a network.

    Parameters
    ----------
    element
        (k,) What is limited: ``bus 18`` or ``line 5-6``.
    phase
        (k,) Phase of the bus or conductor, ``12`` for a line-to-line voltage.
    end
        (k,) ``from`` or ``to`` where the ends of a branch have limits of their own, ``both`` where they
        share one, and ``-`` for a bus.
    cause
        (k,) `VOLTAGE`, `CONGESTION` or `UNBALANCE`: the price component that the limit makes.
    lower, upper
        (k,) Bounds [the formulation's own per unit]; infinite where there is none.
    unit, per_pu
        (k,) Unit for people, and how many of them one pu is.
    power
        (k,) The value is its quantity in pu to this power (2 for squared voltages).
    convex
        (k,) True where a tangent never overestimates the quantity.
    branch
        (k,) Conductor of a flow; -1 for other limits.
    """

    element: TextArray
    phase: TextArray
    end: TextArray
    cause: TextArray
    lower: FloatArray
    upper: FloatArray
    unit: TextArray
    per_pu: FloatArray
    power: FloatArray
    convex: npt.NDArray[np.bool_]
    branch: IntArray

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            object.__setattr__(self, name, frozen(value, value.dtype))

    def __len__(self) -> int:
        return len(self.element)

    @classmethod
    def joined(cls, parts: Sequence["Limits"]) -> "Limits":
        """One after the other."""
        return cls(**{item.name: np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(cls)})

    def name(self, limit: int) -> str:
        """Element, with its phase where it is one of several, and its end where the ends differ."""
        phase, end = str(self.phase[limit]), str(self.end[limit])
        name = str(self.element[limit]) + ("" if phase == BALANCED_PHASE else f".{phase}")
        return f"{name} ({end} end)" if end in ("from", "to") else name

    def physical(self, limit: IntArray, value: FloatArray) -> FloatArray:
        """Value of `limit` in its unit for people."""
        return np.maximum(value, 0.0) ** (1 / self.power[limit]) * self.per_pu[limit]


@dataclass(frozen=True, eq=False)
class Weights:
    """Multipliers of an operating point: cost of one more pu of import, and of each binding limit.

    Parameters
    ----------
    import_p, import_q
        (t,) Marginal cost of real and of reactive import; zero in a state that is only called.
    limits
        (t, k) Cost per pu of each limit's bound (positive at a lower bound, negative at an upper).
    """

    import_p: FloatArray
    import_q: FloatArray
    limits: sparse.csr_array

    def curving(self, intervals: int) -> npt.NDArray[np.bool_]:
        """(states,) True for the `intervals` as scheduled, and for the called states whose limits weigh."""
        weighs = np.diff(self.limits.indptr) > 0
        weighs[:intervals] = True
        return np.asarray(weighs, dtype=bool)

    @classmethod
    def zero(cls, intervals: int, limits: int) -> "Weights":
        """No cost at all."""
        return cls(np.zeros(intervals), np.zeros(intervals), sparse.csr_array((intervals, limits)))

    def less(self, part: "Weights") -> "Weights":
        """Those without the `part`."""
        limits = sparse.csr_array(self.limits - part.limits)
        limits.eliminate_zeros()
        return Weights(self.import_p - part.import_p, self.import_q - part.import_q, limits)


class OperatingPoint(Protocol):
    """A network state for every interval, with derivatives by the injections at the ports.

    Gradients have shape (rows, 2, ports): by real and by reactive injection [pu/pu].
    """

    @property
    def injection_pu(self) -> ComplexArray:
        """(t, p) Complex injections [pu]."""
        ...

    @property
    def import_pu(self) -> ComplexArray:
        """(t,) Complex substation import [pu]."""
        ...

    @property
    def limit_value(self) -> FloatArray:
        """(t, k) Limited quantities [the formulation's own per unit]."""
        ...

    @property
    def converged(self) -> npt.NDArray[np.bool_]:
        """(t,) True where the state solves the network's equations."""
        ...

    def voltage(self) -> FloatArray:
        """(t, k) Voltage magnitudes at the network's `voltage_ports` [pu]."""
        ...

    def branch_power(self) -> tuple[ComplexArray, ComplexArray]:
        """(t, m) Complex power [pu] into each branch at its from and at its to end."""
        ...

    def law_power(self) -> ComplexArray:
        """(t, w) Consumption of the loads that follow their voltage, one column each [pu]."""
        ...

    def import_gradients(self, ports: IntArray, intervals: IntArray | None = None) -> tuple[FloatArray, FloatArray]:
        """Gradient of real and of reactive import, (t, 2, ports) each, or of `intervals` alone."""
        ...

    def predicted_limits(self, injection_pu: ComplexArray) -> FloatArray:
        """(t, k) Limited quantities to first order at other injections, (t, p) [pu]."""
        ...

    def predicted_limit_gradients(
        self, injection_pu: ComplexArray, interval: IntArray, limit: IntArray, ports: IntArray
    ) -> FloatArray:
        """Gradient of `predicted_limits` at those injections, (i, 2, ports)."""
        ...

    def limit_gradients(self, interval: IntArray, limit: IntArray, ports: IntArray) -> FloatArray:
        """Gradient of the limited quantities ``limit[i]`` at ``interval[i]``, (i, 2, ports)."""
        ...

    def weighted_limit_gradient(self, weights: sparse.csr_array, ports: IntArray) -> FloatArray:
        """Gradient of the weighted sum of each interval's limits, (t, 2, ports)."""
        ...

    def lagrangian(self, weights: Weights) -> "Lagrangian":
        """Give access to derivatives of ``import_p P0 + import_q Q0 - sum limits g``."""
        ...

    @property
    def state_equations(self) -> "NetworkStates | None":
        """The states' equations; None where a formulation has none."""
        ...


class NetworkStates(Protocol):
    """The equations of states, for programmes that have their unknowns as columns.

    Injections at ports count as (2 * ports,), real before reactive.
    """

    @property
    def size(self) -> int:
        """Real unknowns of a state."""
        ...

    @property
    def loss_curvature(self) -> sparse.csr_array:
        """(size, size) Second derivatives of the network's losses, positive semidefinite."""
        ...

    def equations(self, state: int, ports: IntArray) -> tuple[sparse.coo_array, sparse.coo_array]:
        """``J dx = B ds`` of one state: `J` (size, size), and `B` (size, 2 * ports)."""
        ...

    def import_rows(self, ports: IntArray) -> tuple[sparse.csr_array, sparse.csr_array]:
        """Real and reactive import by unknowns, (2, size), and by injections at `ports`, (2, 2 * ports)."""
        ...

    def limit_rows(self, state: IntArray, limit: IntArray) -> sparse.csr_array:
        """Limited quantities ``limit[i]`` in ``state[i]`` by unknowns, (i, size)."""
        ...

    def steepest(self, limit: IntArray) -> FloatArray:
        """(i,) By how much one pu of injection moves each `limit` at most, about."""
        ...

    def lagrangian(self, weights: Weights) -> "StatesLagrangian":
        """Give access to derivatives of ``import_p P0 + import_q Q0 - sum limits g``."""
        ...


class Lagrangian(Protocol):
    """Derivatives of a weighted sum of import and limits."""

    def gradient(self, ports: IntArray) -> FloatArray:
        """By real and reactive injection at `ports`, (t, 2, ports) [currency/MWh]."""
        ...

    def hessians(self, intervals: IntArray, share: sparse.csr_array, reactive: npt.NDArray[np.bool_]) -> FloatArray:
        """By real or `reactive` injections with `share` (i, p) at each port, (k, i, i) [currency/MWh/pu]."""
        ...


class StatesLagrangian(Lagrangian, Protocol):
    """One that knows the states' unknowns, too."""

    def curvature(
        self, state: int, ports: IntArray, jacobian: sparse.coo_array, injected: sparse.coo_array
    ) -> tuple[sparse.coo_array, sparse.coo_array]:
        """Of one state by its unknowns, (size, size), and by unknowns and injections at `ports`, (size, 2 * ports).

        `jacobian` and `injected` are its equations, `NetworkStates.equations`, with their entries in the same order.
        """
        ...


class Formulation(Protocol):
    """A network model that the clearing can dispatch against."""

    limits: Limits
    is_linear: bool

    def operate(self, injection_pu: ComplexArray, start: Any = None) -> OperatingPoint:
        """Find the state of every interval at (t, p) complex injections [pu], perhaps from a point of its own."""
        ...

    def carried(self, point: Any, state: IntArray) -> OperatingPoint:
        """Take over the states of a `point` of its own kind, of ``state[i]`` there as state i here."""
        ...
