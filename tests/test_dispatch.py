"""Passes of a day in which some intervals are solved and others are not."""

from dataclasses import replace

import numpy as np
import pytest
from cases import feeder33, generators33, market, rated

from dlmp import Settings, clear, dispatch
from dlmp.formulation.network_rows import NetworkRows
from dlmp.market import MarketCase

PRICES = np.array([20.0, 45.0, 60.0])
OPEN = np.array([False, True, False])
"""The interval whose finish is made to fail."""


@pytest.fixture
def unfinished(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second interval is never told to be solved."""
    finish = dispatch.newton_finish

    def left_open(*arguments: object, **options: object) -> dispatch.Optimum:
        found = finish(*arguments, **options)
        return replace(found, is_open=found.is_open | OPEN)

    monkeypatch.setattr(dispatch, "newton_finish", left_open)


def congested() -> MarketCase:
    """A line that is at its rating whenever it pays."""
    return market(rated(feeder33(), "line 2", ampere=80.0), PRICES, *generators33())


CASES = {"voltages": lambda: market(feeder33(v_min_pu=0.93), PRICES, *generators33()), "a rating": congested}


@pytest.mark.parametrize("name", CASES)
def test_solved_intervals_keep_their_outcome_while_others_are_searched(name: str, request: pytest.FixtureRequest):
    case = CASES[name]()
    expected = clear(case)
    request.getfixturevalue("unfinished")
    found = clear(case, Settings(max_passes=3))
    assert (found.status, expected.status) == ("not_converged", "converged")
    own = ~OPEN
    np.testing.assert_allclose(
        found.prices.lmp_usd_per_mwh[own], expected.prices.lmp_usd_per_mwh[own], rtol=0, atol=1e-6
    )
    np.testing.assert_allclose(found.awards.net_injection_kw[own], expected.awards.net_injection_kw[own], atol=1e-4)
    assert (found.prices.lmp_usd_per_mwh > 0).all()


@pytest.mark.usefixtures("unfinished")
def test_what_is_solved_asks_for_no_more_tangents(monkeypatch: pytest.MonkeyPatch):
    """Neither of a limit that binds there nor of the import."""
    made: list[set[int]] = []
    add_point = NetworkRows.add_point

    def noted(rows: NetworkRows, *arguments: object) -> None:
        add_point(rows, *arguments)
        made.append({int(state) for part in rows.newest for state in part.state})

    monkeypatch.setattr(NetworkRows, "add_point", noted)
    found = clear(congested(), Settings(max_passes=3))
    assert len(found.passes) == 3
    assert found.summary()["lp_solves"] <= 9
    assert (made[0], made[-1]) == ({0, 1, 2}, {1})
