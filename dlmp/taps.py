"""Regulators that follow the market: clear, let OpenDSS's controls act at the awards, clear again.

A clearing holds the taps of its network.  `clear_with_taps` lets regulators and switched capacitors act, from where
they stand, at the awards of the interval with the highest load, and clears again with the taps that they come to,
until these no longer change.  One set of taps holds for all intervals.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from dlmp.clearing import CONVERGED, Clearing, clear
from dlmp.dispatch import PassReport
from dlmp.errors import InputError, Problem
from dlmp.market import MarketCase
from dlmp.network.model import UnbalancedNetwork
from dlmp.network.opendss.check import settle_taps, with_taps
from dlmp.settings import Settings
from dlmp.units import BASE_KVA

MAX_ROUNDS = 5
SAME_PU = 1e-6
"""Taps that differ by less are the same."""


@dataclass(frozen=True, eq=False)
class TapClearing:
    """The outcome of `clear_with_taps`.

    Parameters
    ----------
    clearing
        The last clearing; its network has the taps that it ended with.
    rounds
        The taps of each clearing in turn, by name.
    settled
        True when the controls leave the taps of the last clearing as they are.
    """

    clearing: Clearing
    rounds: tuple[dict[str, float], ...]
    settled: bool

    @property
    def taps(self) -> dict[str, float]:
        """The taps of the last clearing."""
        return self.rounds[-1]


def clear_with_taps(
    case: MarketCase,
    settings: Settings | None = None,
    progress: Callable[[PassReport], None] | None = None,
    max_rounds: int = MAX_ROUNDS,
) -> TapClearing:
    """Clear `case` until its regulators rest at what is cleared.

    Parameters
    ----------
    case, settings, progress
        See `dlmp.clear`; the first clearing is at the taps of the case.
    max_rounds
        Most clearings.

    Returns
    -------
    The last clearing: when the taps rest, come back to earlier ones, or after `max_rounds`.

    Raises
    ------
    InputError
        When the network was not read from an OpenDSS circuit, or has no regulator.
    InfeasibleError, PowerFlowError, SolverError
        Of any of the clearings; see `dlmp.clear`.
    """
    network = _regulated(case)
    rounds: list[dict[str, float]] = []
    while True:
        clearing = clear(replace(case, network=network), settings, progress)
        rounds.append(network.taps)
        if clearing.status != CONVERGED:
            return TapClearing(clearing, tuple(rounds), settled=False)
        taps, at_rest = _settled(clearing, network)
        if not at_rest or len(rounds) == max_rounds or any(_same(taps, earlier) for earlier in rounds):
            return TapClearing(clearing, tuple(rounds), settled=at_rest and _same(taps, rounds[-1]))
        network = with_taps(network, taps)


def _regulated(case: MarketCase) -> UnbalancedNetwork:
    network = case.network
    if not isinstance(network, UnbalancedNetwork) or not network.origin:
        raise InputError([Problem("taps", "network", network.name, "only OpenDSS circuits have regulators to settle")])
    if not network.taps:
        raise InputError([Problem("taps", "network", network.name, "has no regulators; clear it without --taps")])
    return network


def _settled(clearing: Clearing, network: UnbalancedNetwork) -> tuple[dict[str, float], bool]:
    """Where the controls come to at the interval with the highest load, and whether they come to rest."""
    case = clearing.case
    interval = int(case.load_p_kw.sum(axis=1).argmax())
    power = clearing.awards.injection_kva()[[interval]], case.law_pu[[interval]] * BASE_KVA
    return settle_taps(network, *power)[0]


def _same(taps: Mapping[str, float], others: Mapping[str, float]) -> bool:
    return all(abs(tap - others[name]) <= SAME_PU for name, tap in taps.items())
