"""CPU time by phase of a clearing; a phase inside another takes its time from the outer one."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

PHASES = ("build", "power_flow", "gradients", "solver", "newton", "rules")


class PhaseClock:
    """Charges CPU time to the innermost open phase.

    Attributes
    ----------
    seconds
        CPU seconds of each of `PHASES`.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Charge the time of the block to `name`."""
        self._charge()
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def add(self, seconds: Mapping[str, float]) -> None:
        """Charge what another process has used."""
        for name, used in seconds.items():
            self.seconds[name] += used

    def _charge(self) -> None:
        now = time.process_time()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now
