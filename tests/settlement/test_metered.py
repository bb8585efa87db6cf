"""Meter readings: what they become, and everything that can be wrong with them."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from dlmp.errors import InputError
from dlmp.market import Horizon
from dlmp.settlement.metered import Metered, metered_energy

NAMES = np.array(["pv", "ev"])
HORIZON = Horizon(datetime(2026, 7, 1, 7, tzinfo=UTC), 15, 2)
AWARDED = np.array([[7 + 1j, 7 + 2j], [7 + 3j, 7 + 4j]])


def read(frame: pd.DataFrame, *, deem_missing: bool = False) -> Metered:
    return metered_energy(frame, NAMES, HORIZON, AWARDED, deem_missing=deem_missing)


def table(**change: object) -> pd.DataFrame:
    columns = {
        "resource": ["ev", "pv", "pv", "ev"],
        "interval": [0, 0, 1, 1],
        "net_injection_kwh": [-5.0, 10.0, 12.0, -6.0],
    }
    return pd.DataFrame(columns | change)


def problems(frame: pd.DataFrame) -> list[tuple[str, str, object]]:
    with pytest.raises(InputError) as caught:
        read(frame)
    return [(problem.element, problem.field, problem.value) for problem in caught.value.problems]


def test_readings_stand_in_any_order():
    metered = read(table())
    assert metered.energy.real.tolist() == [[10, -5], [12, -6]]
    assert metered.energy.imag.tolist() == AWARDED.imag.tolist()
    assert not metered.is_deemed.any()


def test_what_has_no_reading_is_deemed_as_awarded_where_that_is_asked_for():
    """A reading of real energy alone stands, with the reactive energy that was awarded."""
    metered = read(table(q_kvarh=[5, None, 7, 8])[:3], deem_missing=True)
    assert metered.energy.tolist() == [[10 + 1j, -5 + 5j], [12 + 7j, 7 + 4j]]
    assert metered.is_deemed.tolist() == [[True, False], [False, True]], "of the first its reactive energy"
    nobody = read(table(q_kvarh=[None] * 4)[:3], deem_missing=True)
    assert nobody.is_deemed.tolist() == [[False, False], [False, True]], "reactive energy is not metered"
    nothing = read(table()[:0], deem_missing=True)
    assert nothing.energy.tolist() == AWARDED.tolist()
    assert nothing.is_deemed.all()


def test_reactive_energy_is_taken_where_it_is_metered():
    assert read(table(q_kvarh=[5, 6, 7, 8])).energy.imag.tolist() == [[6, 5], [7, 8]]


@pytest.mark.parametrize(
    "start", [["2026-07-01T07:00:00Z"] * 2 + ["2026-07-01T07:15:00Z"] * 2, [HORIZON.starts[i] for i in (0, 0, 1, 1)]]
)
def test_intervals_may_be_told_by_their_start(start: list[object]):
    frame = table(interval_start=start)
    for one in (frame, frame.drop(columns="interval")):
        assert read(one).energy.real.tolist() == [[10, -5], [12, -6]]


def test_everything_that_is_wrong_is_told_at_once():
    frame = pd.concat([table(), table()[1:2]], ignore_index=True)
    frame.loc[0, "resource"] = "wind"
    frame.loc[2, "net_injection_kwh"] = np.nan
    assert problems(frame) == [
        ("metered row 0", "resource", "wind"),
        ("metered row 2", "net_injection_kwh", pytest.approx(np.nan, nan_ok=True)),
        ("metered resource pv", "interval", 0),
        ("metered resource ev", "interval", 0),
    ]


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, -1e13, "many", None])
@pytest.mark.parametrize("column", ["net_injection_kwh", "q_kvarh"])
def test_a_reading_is_a_finite_number(column: str, value: object):
    values = pd.Series([1.0, 2.0, 3.0, value], dtype=object)
    found = problems(table(**{column: values}))
    assert [problem[:2] for problem in found] == [("metered row 3", column)]


@pytest.mark.parametrize("value", [2, -1, 0.5, "x"])
def test_an_interval_is_one_of_the_horizon(value: object):
    found = problems(table(interval=pd.Series([0, 0, 1, value], dtype=object)))
    assert found == [("metered row 3", "interval", value), ("metered resource ev", "interval", 1)]


def test_a_start_is_that_of_an_interval_and_of_this_row_s():
    start = ["2026-07-01T07:00:00Z", "2026-07-01T07:15:00Z", "2026-07-01T07:15:00Z", "2026-07-01T07:20:00Z"]
    found = problems(table(interval_start=start))
    assert ("metered row 3", "interval_start", "2026-07-01T07:20:00Z") in found
    assert ("metered row 1", "interval", 0) in found


def test_missing_and_unknown_columns_are_named():
    frame = table().drop(columns=["interval", "net_injection_kwh"]).assign(kw=1.0)
    assert problems(frame) == [
        ("metered", "net_injection_kwh", "missing"),
        ("metered", "interval or interval_start", "missing"),
        ("metered", "kw", "unknown"),
    ]


def test_many_missing_readings_are_counted():
    horizon = Horizon(HORIZON.start, 15, 40)
    with pytest.raises(InputError, match="= 56: more readings are missing") as caught:
        metered_energy(table(), NAMES, horizon, np.zeros((40, 2), complex), deem_missing=False)
    assert len(caught.value.problems) == 21
