"""What a worker does with a batch, and what is known of it when it comes to no end."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from fleetcases import write_fleet

from dlmp.fleet.batch import JOURNAL, Batch, clear_batch, read_journal
from dlmp.fleet.feeders import Way, find_feeders
from dlmp.fleet.results import FeederResult
from dlmp.settings import Settings


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    feeders = find_feeders(write_fleet(tmp_path / "fleet", "a", "b"))
    (tmp_path / "out" / "work").mkdir(parents=True)
    return Batch(tuple(feeders), Way(Settings()), tmp_path / "out", tmp_path / "out" / "work" / "0")


def test_a_batch_leaves_whole_results_and_a_journal_of_its_feeders_in_their_order(batch: Batch):
    assert clear_batch(batch) == ""
    assert [(result.feeder, result.status) for result in read_journal(batch.work)] == [
        ("a", "converged"),
        ("b", "converged"),
    ]
    assert (batch.out / "b" / "prices.csv").exists()


def test_a_worker_without_the_folder_or_with_another_dlmp_says_so(batch: Batch, tmp_path: Path):
    apart = Batch(batch.feeders, batch.way, tmp_path / "not shared", tmp_path / "not shared" / "0")
    assert f"does not see the folder {tmp_path / 'not shared'}, which all workers must share" in clear_batch(apart)
    other = Batch(batch.feeders, batch.way, batch.out, batch.work, version="0.0.7")
    assert "the fleet is cleared with 0.0.7" in clear_batch(other)
    assert read_journal(apart.work) == read_journal(other.work) == []


def test_a_journal_whose_last_line_was_cut_off_tells_what_stands_before_it(tmp_path: Path):
    whole = json.dumps(asdict(FeederResult("a", "failed", "why", wall_seconds=1.5)))
    (tmp_path / JOURNAL).write_text(f"{whole}\n{whole[:30]}")
    assert read_journal(tmp_path) == [FeederResult("a", "failed", "why", wall_seconds=1.5)]
