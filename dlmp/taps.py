"""Regulators that follow the market: clear, let OpenDSS's controls act at the awards, clear again.

A clearing holds the taps of its network.  `clear_with_taps` lets regulators and switched capacitors act, from where
they stand, at the awards of the interval with the highest load, and clears again with the taps that they come to,
until these no longer change.  Market and regulator may push each other on: where a regulator measures more than its
dead band and lowers a tap, the market makes up for it with supply behind it, the current falls, and line-drop
compensation measures as much as before.  Such a walk goes one tap per clearing and ends where the offers do.

One set of taps holds for all intervals.  At the awards of the others real regulators may stand elsewhere; there,
limits bind, and make prices, that they would relieve.  `TapClearing.moving` names these intervals.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from dlmp.clearing import CONVERGED, Clearing, clear
from dlmp.dispatch import PassReport
from dlmp.errors import DlmpError, InfeasibleError, InputError, PowerFlowError, Problem
from dlmp.market import MarketCase
from dlmp.network.model import UnbalancedNetwork
from dlmp.network.opendss.check import settle_taps, with_taps
from dlmp.settings import Settings
from dlmp.units import BASE_KVA

MAX_ROUNDS = 20
SAME_PU = 1e-6
"""Taps that differ by less are the same."""
NO_DISPATCH = (InfeasibleError, PowerFlowError)
"""What `clear` raises where taps leave no dispatch."""


@dataclass(frozen=True, eq=False)
class TapClearing:
    """The outcome of `clear_with_taps`.

    Parameters
    ----------
    clearing
        The last clearing; its network has the taps that it ended with.
    rounds
        The taps of each clearing in turn, by name.
    interval
        The interval with the highest load, whose awards set the taps.
    moving
        Intervals at whose awards the controls would not leave these taps; none when the clearing did not converge.
    obstacle
        Why the controls do not leave the taps of the last clearing as they are in `interval`; empty when they do.
    """

    clearing: Clearing
    rounds: tuple[dict[str, float], ...]
    interval: int
    moving: tuple[int, ...]
    obstacle: str

    @property
    def taps(self) -> dict[str, float]:
        """The taps of the last clearing."""
        return self.rounds[-1]

    @property
    def settled(self) -> bool:
        """True when the controls leave the taps of the last clearing as they are in `interval`."""
        return not self.obstacle

    def summary(self) -> dict[str, object]:
        """Return the figures of `summary.json`."""
        return {
            "taps_settled": self.settled,
            "taps_obstacle": self.obstacle,
            "taps_interval": self.interval,
            "taps_moving_intervals": list(self.moving),
            "tap_clearings": len(self.rounds),
        }


def clear_with_taps(
    case: MarketCase,
    settings: Settings | None = None,
    progress: Callable[[PassReport], None] | None = None,
    max_rounds: int = MAX_ROUNDS,
    workers: int = 1,
) -> TapClearing:
    """Clear `case` until its regulators rest at what is cleared.

    Parameters
    ----------
    case, settings, progress, workers
        See `dlmp.clear`.  The first clearing is at the taps of the case or, where these leave no dispatch that keeps
        all limits, at those that the controls come to at its loads without awards, if they do.
    max_rounds
        Most clearings.

    Returns
    -------
    The last clearing: when the taps rest, come back to earlier ones, leave no dispatch or would have it break limits
    that it keeps now, or after `max_rounds`.

    Raises
    ------
    InputError
        When the network was not read from an OpenDSS circuit, or has no regulator.
    InfeasibleError, PowerFlowError
        At the taps of the case, when those settled at its loads leave no dispatch either; see `dlmp.clear`.
    SolverError
        Of any of the clearings.
    """
    network = _regulated(case)

    def clear_at(network: UnbalancedNetwork) -> Clearing:
        return clear(replace(case, network=network), settings, progress, workers=workers)

    interval = int(case.load_p_kw.sum(axis=1).argmax())
    clearing = _first(case, network, interval, clear_at)
    rounds: list[dict[str, float]] = []
    while True:
        network = _regulated(clearing.case)
        rounds.append(network.taps)
        if clearing.status != CONVERGED:
            return TapClearing(clearing, tuple(rounds), interval, (), "the last clearing did not converge")
        ends = settle_taps(network, clearing.awards.injection_kva(), case.law_pu * BASE_KVA)
        moving = tuple(
            number for number, (taps, at_rest) in enumerate(ends) if not at_rest or not _same(taps, network.taps)
        )
        taps, at_rest = ends[interval]
        obstacle = _obstacle(taps, at_rest, rounds, max_rounds) if interval in moving else ""
        if interval in moving and not obstacle:
            try:
                following = clear_at(with_taps(network, taps))
                if not _breaks(following) or _breaks(clearing):
                    clearing = following
                    continue
                obstacle = "at the taps that they move to next, limits would have to be broken"
            except NO_DISPATCH as error:
                obstacle = f"at the taps that they move to next, {' '.join(str(error).split())}"
        return TapClearing(clearing, tuple(rounds), interval, moving, obstacle)


def _regulated(case: MarketCase) -> UnbalancedNetwork:
    network = case.network
    if not isinstance(network, UnbalancedNetwork) or not network.origin:
        raise InputError([Problem("taps", "network", network.name, "only OpenDSS circuits have regulators to settle")])
    if not network.taps:
        raise InputError([Problem("taps", "network", network.name, "has no regulators; clear it without --taps")])
    return network


def _first(
    case: MarketCase, network: UnbalancedNetwork, interval: int, clear_at: Callable[[UnbalancedNetwork], Clearing]
) -> Clearing:
    """Clear at the taps of `network` or, where these do not keep all limits, at those settled at its loads alone."""
    try:
        own: Clearing | DlmpError = clear_at(network)
    except NO_DISPATCH as error:
        own = error
    if isinstance(own, Clearing) and not _breaks(own):
        return own
    ((taps, at_rest),) = settle_taps(network, -case.load_pu[[interval]] * BASE_KVA, case.law_pu[[interval]] * BASE_KVA)
    if at_rest and not _same(taps, network.taps):
        try:
            settled = clear_at(with_taps(network, taps))
            if not _breaks(settled) or not isinstance(own, Clearing):
                return settled
        except NO_DISPATCH:
            pass
    if isinstance(own, Clearing):
        return own
    raise own


def _breaks(clearing: Clearing) -> bool:
    return clearing.status == CONVERGED and len(clearing.broken_limits()) > 0


def _obstacle(taps: Mapping[str, float], at_rest: bool, rounds: Sequence[Mapping[str, float]], max_rounds: int) -> str:
    """Why there is no clearing after that of the last of `rounds`, whose controls move to `taps`."""
    if not at_rest:
        return "they hunt, or its awards have no power flow in OpenDSS"
    for number, earlier in enumerate(rounds[:-1], start=1):
        if _same(taps, earlier):
            return f"they come back to the taps of clearing {number}"
    return f"they still move after {max_rounds}, the most clearings" if len(rounds) == max_rounds else ""


def _same(taps: Mapping[str, float], others: Mapping[str, float]) -> bool:
    return all(abs(tap - others[name]) <= SAME_PU for name, tap in taps.items())
