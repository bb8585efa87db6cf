"""CPU time is charged to the innermost phase, once."""

import time

import pytest

from dlmp import timing
from dlmp.timing import PHASES, PhaseClock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> PhaseClock:
    """A clock on which every look at the time is a second later."""
    ticks = iter(range(1000))
    monkeypatch.setattr(timing.time, "process_time", lambda: float(next(ticks)))
    return PhaseClock()


def test_time_outside_every_phase_is_not_charged(clock: PhaseClock):
    time.process_time()
    with clock.phase("build"):
        pass
    time.process_time()
    with clock.phase("build"):
        pass
    assert clock.seconds == dict.fromkeys(PHASES, 0.0) | {"build": 2.0}


def test_a_phase_within_another_takes_its_time_from_it(clock: PhaseClock):
    """Looks at the time: newton begins at 0, gradients from 1 to 2, newton ends at 3."""
    with clock.phase("newton"), clock.phase("gradients"):
        pass
    assert (clock.seconds["newton"], clock.seconds["gradients"]) == (2.0, 1.0)


def test_a_phase_that_fails_is_charged_and_closed(clock: PhaseClock):
    with pytest.raises(RuntimeError), clock.phase("solver"):
        raise RuntimeError
    assert clock.seconds["solver"] == 1.0
    time.process_time()
    with clock.phase("build"):
        pass
    assert clock.seconds["solver"] == 1.0


def test_what_another_process_used_is_charged_too(clock: PhaseClock):
    time.process_time()
    with clock.phase("build"):
        pass
    clock.add({"build": 3.0, "solver": 0.5})
    assert (clock.seconds["build"], clock.seconds["solver"]) == (4.0, 0.5)
