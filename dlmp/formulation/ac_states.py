"""The AC network with the unknowns of its states as columns, and the second derivatives of its Lagrangian.

A gradient by all injections is dense and costs a solve; the same row over the voltages has a handful of entries.
Where very many injections are free, programmes over injections *and* voltages are far cheaper: their matrices are as
sparse as the network.  A state of complex unknowns (u,) counts as (2u,) real ones, real before imaginary parts.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.formulation.interface import Weights
from dlmp.network.model import ComplexArray, FloatArray, IntArray
from dlmp.sensitivity import ImportedPower, Magnitudes, Sensitivity, by_unknown

SEED_COLUMNS = 512
"""Adjoints solved at a time: bounds the memory of dense right-hand sides."""
SAMPLE = 32
"""Voltages that stand for all when it is asked how much they move."""


@dataclass(frozen=True, eq=False)
class AcStates:
    """Equations and rows of solved states; see `dlmp.formulation.interface.NetworkStates`.

    Parameters
    ----------
    sensitivity
        The states.
    imported, magnitudes
        What is counted and what is limited.
    is_held
        (p,) True for the ports at a source: what is injected there comes off the import.
    is_flow, steepness
        (k,) Which limits are of flows, and what `steepest` has found, kept from one point to the next; NaN before.
    known_adjoints
        What `lagrangian` has found: the last seed of each state, and its adjoint.
    """

    sensitivity: Sensitivity
    imported: ImportedPower
    magnitudes: Magnitudes
    is_held: npt.NDArray[np.bool_]
    is_flow: npt.NDArray[np.bool_]
    steepness: FloatArray
    known_adjoints: dict[int, tuple[ComplexArray, ComplexArray]] = field(default_factory=dict, repr=False)

    @property
    def size(self) -> int:
        """Real unknowns of a state."""
        return 2 * len(self.sensitivity.flow.unknown)

    @property
    def loss_curvature(self) -> sparse.csr_array:
        """(size, size) Second derivatives of the network's losses."""
        return self.sensitivity.flow.loss_curvature

    def equations(self, state: int, ports: IntArray) -> tuple[sparse.coo_array, sparse.coo_array]:
        """``J dx = B ds`` of one state: `J` (size, size), and `B` (size, 2 * ports)."""
        return self.sensitivity.equations(state, ports)

    def import_rows(self, ports: IntArray) -> tuple[sparse.csr_array, sparse.csr_array]:
        """Real and reactive import by unknowns, (2, size), and by injections at `ports`, (2, 2 * ports)."""
        held = np.flatnonzero(self.is_held[ports])
        part, place = np.repeat([0, 1], len(held)), np.concatenate([held, len(ports) + held])
        by_injection = sparse.csr_array((-np.ones(len(place)), (part, place)), shape=(2, 2 * len(ports)))
        return self.imported.by_unknown, by_injection

    def limit_rows(self, state: IntArray, limit: IntArray) -> sparse.csr_array:
        """Limited quantities ``limit[i]`` in ``state[i]`` by unknowns, (i, size)."""
        if not len(limit):
            return sparse.csr_array((0, self.size))
        return by_unknown(self.sensitivity.flow, self.magnitudes.seed(self.sensitivity.state_pu, state, limit))

    def steepest(self, limit: IntArray) -> FloatArray:
        """(i,) By how much one pu of injection moves each `limit` at most, about; voltages as those of a sample."""
        voltages = np.flatnonzero(~self.is_flow)
        if np.isnan(self.steepness).any() and len(voltages):
            flow, sample = self.sensitivity.flow, voltages[:: -(-len(voltages) // SAMPLE)]
            seed = self.magnitudes.seed(self.sensitivity.state_pu, np.zeros(len(sample), dtype=np.int64), sample)
            adjoint = flow.reference.solve(seed.toarray().T[flow.unknown], transposed=True)
            by_port = np.abs(flow.ports.of_nodes(adjoint) / self.sensitivity.port_v[0, flow.port][:, None])
            by_port = by_port[flow.network.is_priced[flow.port]]
            self.steepness[:] = np.where(self.is_flow, 1.0, np.median(by_port.max(axis=0)))
        return self.steepness[limit]

    def weighted_seed(self, weights: sparse.csr_array) -> sparse.csr_array:
        """(t, n + s) Seed of the weighted sum of each state's limits."""
        entries = weights.tocoo()
        seeds = self.magnitudes.seed(self.sensitivity.state_pu, entries.row, entries.col)
        place = (entries.data, (entries.row, np.arange(entries.nnz)))
        return sparse.csr_array(sparse.csr_array(place, shape=(weights.shape[0], entries.nnz)) @ seeds)

    def lagrangian(self, weights: Weights) -> "AcLagrangian":
        """Derivatives of ``import_p P0 + import_q Q0 - sum limits g``, one adjoint for each state of new weights."""
        real, reactive = self.imported.seed()
        bought = np.outer(weights.import_p, real) + np.outer(weights.import_q, reactive)
        seed = bought - self.weighted_seed(weights.limits).toarray()
        weighs, known = np.flatnonzero(seed.any(axis=1)), self.known_adjoints
        is_new = [t not in known or not np.array_equal(known[t][0], seed[t]) for t in weighs.tolist()]
        new = weighs[np.array(is_new, dtype=bool)]
        found = self.sensitivity.adjoint(new, seed[new].T).T
        known.update({t: (seed[t].copy(), own.copy()) for t, own in zip(new.tolist(), found, strict=True)})
        adjoint = np.zeros((len(self.sensitivity.flow.unknown), len(seed)), dtype=complex)
        for state in weighs.tolist():
            adjoint[:, state] = known[state][1]
        return AcLagrangian(self, adjoint, weights.import_p + 1j * weights.import_q, weights.limits)


@dataclass(frozen=True, eq=False)
class AcLagrangian:
    """Derivatives of a weighted sum of import and limits; `adjoint` is (u, t)."""

    states: AcStates
    adjoint: ComplexArray
    import_weights: ComplexArray
    limit_weights: sparse.csr_array

    def gradient(self, ports: IntArray) -> FloatArray:
        """By real and reactive injection at `ports`, (t, 2, ports) [currency/MWh]."""
        gradient = self.states.sensitivity.gradient(np.arange(self.adjoint.shape[1]), self.adjoint, ports)
        held = np.flatnonzero(self.states.is_held[ports])
        gradient[:, 0, held], gradient[:, 1, held] = (
            -self.import_weights.real[:, None],
            -self.import_weights.imag[:, None],
        )
        return gradient

    def hessians(self, intervals: IntArray, share: sparse.csr_array, reactive: npt.NDArray[np.bool_]) -> FloatArray:
        """By real or `reactive` injections with `share` (i, p) at each port, (k, i, i) [currency/MWh/pu].

        On a large network the voltages move as they do in the mean of all intervals: nearly the same, and by far
        less work.
        """
        sensitivity, magnitudes = self.states.sensitivity, self.states.magnitudes
        common = sensitivity.common_tangent(share, reactive) if sensitivity.flow.is_large else None
        blocks = np.zeros((len(intervals), len(reactive), len(reactive)))
        for block, interval in zip(blocks, intervals.tolist(), strict=True):
            tangent = sensitivity.tangent(interval, share, reactive) if common is None else common
            curved = sensitivity.injection_curvature(interval, self.adjoint[:, interval], tangent, share, reactive)
            row = self.limit_weights[[interval]]
            block[:] = curved - magnitudes.curvature(sensitivity.state_pu[interval], tangent, row.indices, row.data)
        return blocks

    def curvature(
        self, state: int, ports: IntArray, jacobian: sparse.coo_array, injected: sparse.coo_array
    ) -> tuple[sparse.coo_array, sparse.coo_array]:
        """Of one state by its unknowns, (size, size), and by unknowns and injections at `ports`, (size, 2 * ports).

        A multiple of the equations is added that makes them those of losses: nothing changes where the equations hold,
        and the first is positive definite but for what is far smaller.
        """
        sensitivity, pattern = self.states.sensitivity, self.states.sensitivity.flow.pattern
        by_unknowns, mixed = sensitivity.curvature(state, self.adjoint[:, state], ports)
        price = max(float(np.median(np.abs(self.adjoint[:, state]))), 1.0)
        paired = price * sensitivity.flow.sign_of_losses
        lost = paired[pattern.row] * jacobian.data
        own = slice(*self.limit_weights.indptr[state : state + 2])
        bent = self.states.magnitudes.curvature_by_unknown(
            sensitivity.flow, sensitivity.state_pu[state], self.limit_weights.indices[own], self.limit_weights.data[own]
        )
        entries = np.concatenate([by_unknowns + lost + lost[pattern.mirrored], -bent.data])
        places = np.concatenate([pattern.row, bent.row]), np.concatenate([pattern.column, bent.col])
        mixed.data -= paired[mixed.row] * injected.data
        return sparse.coo_array((entries, places), shape=jacobian.shape), mixed
