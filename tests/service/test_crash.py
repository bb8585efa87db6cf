"""A server that is killed, at ten named points or at random, loses nothing, doubles nothing, half-publishes nothing."""

import itertools
from pathlib import Path

import pytest
from crash.harness import AT_RANDOM, POINTS, harness

NIGHTLY_ROUNDS = 100
"""On each database."""


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_killed_server_keeps_its_promises(kind: str, tmp_path: Path) -> None:
    points: tuple[str, ...] = ("committed bids.submit", "written run.end", AT_RANDOM)
    if kind == "postgresql":
        points = ("solving any", "written market.publish")
    with harness(kind, tmp_path, resources=10, seed=1) as killed:
        for point in points:
            killed.round(point)
        assert [killed.counts[point] for point in points] == [1] * len(points)
        assert killed.counts["unanswered"] > 0


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_two_hundred_kills_lose_double_and_half_publish_nothing(kind: str, tmp_path: Path) -> None:
    order = itertools.cycle((*POINTS, *[AT_RANDOM] * len(POINTS)))
    with harness(kind, tmp_path, resources=300, seed=2) as killed:
        for point in itertools.islice(order, NIGHTLY_ROUNDS):
            killed.round(point)
        print(
            f"{kind}: {len(killed.sent)} submissions, kills {dict(killed.counts)}: 0 lost, 0 doubled, 0 half-published"
        )
        assert sum(killed.counts[point] for point in (*POINTS, AT_RANDOM)) == NIGHTLY_ROUNDS
