"""SimBench grids and profiles; one grid is loaded for all tests, for that takes seconds."""

import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import simbench

from dlmp.errors import InputError
from dlmp.market import Horizon
from dlmp.network.simbench import from_simbench, profile_rows, simbench_profiles

CODE = "1-LV-rural3--2-sw"
BERLIN = "Europe/Berlin"


@pytest.fixture(scope="module")
def values():
    """Return the package's own net and absolute values [MW], [Mvar]."""
    net = simbench.get_simbench_net(CODE)
    return net, simbench.get_absolute_values(net, profiles_instead_of_study_cases=True)


@pytest.fixture(scope="module")
def network(values):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simbench, "get_simbench_net", lambda code: values[0])
        return from_simbench(CODE)


def rows(start, minutes, intervals, zone=BERLIN):
    return profile_rows(Horizon(start, minutes, intervals, zone)).tolist()


def test_a_grid_has_the_elements_of_its_loads_generators_and_storage(network, values):
    net, _ = values
    assert network.name == CODE
    assert network.node_count == 129
    assert network.element.tolist() == [*net.load.name, *net.sgen.name, *net.storage.name]
    assert network.element_p_kw.sum() == pytest.approx(
        1000 * (net.load.p_mw.sum() - net.sgen.p_mw.sum() + net.storage.p_mw.sum())
    )


def test_the_rows_are_the_package_s_own_times_of_2016():
    """The table's clock jumps to 03:00 on 27 March, and has 02:00 twice on 30 October."""
    assert rows(datetime(2015, 12, 31, 23, 0, tzinfo=UTC), 15, 2) == [[0], [1]]
    assert rows(datetime(2016, 3, 27, 1, 0, tzinfo=UTC), 15, 1) == [[8264]]
    assert rows(datetime(2016, 10, 30, 1, 0, tzinfo=UTC), 15, 1) == [[29096]]


def test_the_package_has_those_times_in_its_time_column(values):
    time = values[0].profiles["load"].time
    assert [time[0], time[8264], time[29096]] == ["01.01.2016 00:00", "27.03.2016 03:00", "30.10.2016 02:00"]


def test_any_year_and_zone_is_mapped_by_its_date_and_standard_time():
    noon_of_2_january = [(24 + 12) * 4]
    assert rows(datetime(2026, 1, 2, 12, 0, tzinfo=UTC), 15, 1, "UTC") == [noon_of_2_january]
    assert rows(datetime(2026, 1, 2, 20, 0, tzinfo=UTC), 15, 1, "America/Los_Angeles") == [noon_of_2_january]
    in_july = rows(datetime(2026, 7, 2, 19, 0, tzinfo=UTC), 15, 1, "America/Los_Angeles")
    assert in_july == [[(182 + 1) * 96 + 11 * 4]]  # 12:00 on the clock is 11:00 standard time


def test_a_year_of_365_days_leaps_over_29_february():
    start = datetime(2026, 2, 28, 23, 45, tzinfo=UTC)
    assert rows(start, 15, 2, "UTC") == [[(31 + 28) * 96 - 1], [(31 + 29) * 96]]


def test_longer_intervals_have_their_quarter_hours_and_shorter_ones_the_one_around_their_start():
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert rows(start, 60, 2, "UTC") == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert rows(start, 5, 4, "UTC") == [[0], [0], [0], [1]]


def test_profiles_are_the_package_s_absolute_values(network, values):
    net, absolute = values
    start = datetime(2016, 1, 2, 11, 0, tzinfo=UTC)  # noon in Berlin
    p_kw, q_kvar = simbench_profiles(CODE, network, Horizon(start, 60, 3, BERLIN))
    assert p_kw.shape == q_kvar.shape == (3, len(network.element))
    second = slice(36 * 4 + 4, 36 * 4 + 8)
    for table, sign in (("load", 1000), ("sgen", -1000), ("storage", 1000)):
        columns = np.isin(network.element, net[table].name)
        np.testing.assert_allclose(p_kw[1, columns], sign * absolute[table, "p_mw"].iloc[second].mean(), rtol=1e-12)
    load = np.isin(network.element, net.load.name)
    np.testing.assert_allclose(q_kvar[1, load], 1000 * absolute["load", "q_mvar"].iloc[second].mean(), rtol=1e-12)
    np.testing.assert_array_equal(q_kvar[1, ~load], network.element_q_kvar[~load])


def test_the_mean_of_short_intervals_is_the_quarter_hour(network):
    start = datetime(2016, 6, 1, 10, 0, tzinfo=UTC)
    short, _ = simbench_profiles(CODE, network, Horizon(start, 5, 3, BERLIN))
    quarter, _ = simbench_profiles(CODE, network, Horizon(start, 15, 1, BERLIN))
    np.testing.assert_array_equal(short, np.repeat(quarter, 3, axis=0))


def test_the_sun_does_not_shine_at_night(network):
    start = datetime(2016, 6, 1, 0, 0, tzinfo=UTC) - timedelta(hours=1)
    p_kw, _ = simbench_profiles(CODE, network, Horizon(start, 60, 24, BERLIN))
    solar = -p_kw[:, network.element_kind == "generation"].sum(axis=1)
    assert solar[0] == pytest.approx(0.0, abs=1e-6)
    assert solar[12] > 10


def test_an_unknown_code_is_told_with_those_close_to_it():
    with pytest.raises(InputError, match="1-MV-rural--0-sw"):
        from_simbench("1-MV-rurl--0-sw")


def test_without_the_package_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "simbench", None)
    with pytest.raises(InputError, match=r'pip install "dlmp\[simbench\]"'):
        from_simbench("1-MV-urban--0-sw")
