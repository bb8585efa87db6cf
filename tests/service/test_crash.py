"""A server that is killed, at named points or at random, loses nothing, doubles nothing, half-publishes nothing."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
from crash.harness import AT_RANDOM, POINTS, TEMPORARY, Harness, harness
from crash.settlements import SETTLEMENT_POINTS, settlements

NIGHTLY_ROUNDS, SETTLEMENT_ROUNDS = 110, 45
"""On each database."""


def killed_at(harness: Harness, points: Sequence[str]) -> None:
    """Kill a server at each of `points`."""
    for point in points:
        harness.round(point)
    print(harness.figures())
    assert harness.counts.total() == len(points)


def cycled(points: Sequence[str], rounds: int) -> list[str]:
    """Each point in turn, and as many kills at random."""
    return list(itertools.islice(itertools.cycle((*points, *[AT_RANDOM] * len(points))), rounds))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_killed_server_keeps_its_promises(kind: str, tmp_path: Path) -> None:
    points: tuple[str, ...] = ("committed bids.submit", "written run.end", AT_RANDOM)
    if kind == "postgresql":
        points = ("solving any", "written market.publish")
    with harness(kind, tmp_path, resources=10, seed=1) as killed:
        killed_at(killed, points)
        assert killed.in_flight.total() > 0


def test_a_server_that_is_killed_in_a_settlement_publishes_all_of_it_or_nothing(tmp_path: Path) -> None:
    with settlements("sqlite", tmp_path, resources=10, seed=1, with_engine=False) as killed:
        killed_at(killed, ("committed readings.add", "solved any", "written market.settle"))


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_two_hundred_kills_lose_double_and_half_publish_nothing(kind: str, tmp_path: Path) -> None:
    with harness(kind, tmp_path, resources=300, seed=2) as killed:
        killed_at(killed, cycled(POINTS, NIGHTLY_ROUNDS))


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_ninety_kills_in_settlements_leave_each_version_whole_or_absent(kind: str, tmp_path: Path) -> None:
    with settlements(kind, tmp_path, resources=150, seed=3, with_engine=False) as killed:
        killed_at(killed, cycled(SETTLEMENT_POINTS, SETTLEMENT_ROUNDS))


@pytest.mark.nightly
def test_kills_in_settlements_of_the_engine_leave_each_version_whole_or_absent(tmp_path: Path) -> None:
    with settlements("sqlite", tmp_path, resources=50, seed=4, with_engine=True) as killed:
        killed_at(killed, SETTLEMENT_POINTS)
    assert list((tmp_path / TEMPORARY).iterdir()) == [], "what a killed worker had of the bids is left"
