"""Pictures: colours are prices, marks are limits, nothing lies on anything else."""

import warnings
from dataclasses import fields, replace
from itertools import combinations

import matplotlib
import matplotlib.pyplot
import numpy as np
import pandapower.networks
import pytest
from cases import CASES, feeder33, market, resource
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from storecases import STORE_CASES

from dlmp.clearing import Clearing, clear
from dlmp.errors import InputError
from dlmp.market import simple_case
from dlmp.network.pandapower import from_pandapower
from dlmp.plot import BINDING, COLOURS, curves, feeder, price_stack
from dlmp.prices import COMPONENTS, Prices

NAMES = ("day_33", "congestion_meshed_33", "two_sources_33", "transformer_cigre", "oberrhein")


@pytest.fixture(scope="module")
def cleared() -> dict[str, Clearing]:
    found = {name: clear(CASES[name]()) for name in NAMES[:-1]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of pandapower, about its own network
        oberrhein = from_pandapower(pandapower.networks.mv_oberrhein())
    return found | {"oberrhein": clear(simple_case(oberrhein, 30.0))}


def drawn(ax: Axes, gid: str):
    """The collection of that name, with its colours."""
    ax.figure.draw_without_rendering()
    (collection,) = (artist for artist in ax.collections if artist.get_gid() == gid)
    return collection


def node_colours(ax: Axes, clearing: Clearing) -> np.ndarray:
    """(n, 4) Colour of every node."""
    is_source = clearing.case.network.is_source
    colours = np.empty((len(is_source), 4))
    colours[~is_source] = drawn(ax, "nodes").get_facecolors()
    colours[is_source] = drawn(ax, "sources").get_facecolors()
    return colours


@pytest.mark.parametrize("name", NAMES)
def test_the_dearest_node_has_the_top_colour_and_the_cheapest_the_bottom_one(name: str, cleared):
    clearing = cleared[name]
    colours, price = node_colours(feeder(clearing), clearing), clearing.prices.lmp_usd_per_mwh[0]
    viridis = matplotlib.colormaps["viridis"]
    assert np.allclose(colours[price.argmax()], viridis(1.0))
    assert np.allclose(colours[price.argmin()], viridis(0.0))


@pytest.mark.parametrize("component", [field.name for field in fields(Prices) if "_" in field.name])
def test_another_component_and_interval_get_their_own_colours(component: str, cleared):
    clearing = cleared["day_33"]
    values = getattr(clearing.prices, component)[1]
    colours = node_colours(feeder(clearing, 1, component), clearing)
    if np.ptp(values) > 1e-9:
        share = (values - values.min()) / np.ptp(values)
        assert np.allclose(colours, matplotlib.colormaps["viridis"](share), atol=0.02)
    else:
        assert (colours == colours[0]).all()


def test_a_voltage_that_binds_is_ringed_and_named_with_its_limit(cleared):
    clearing = cleared["day_33"]
    ax = feeder(clearing, 1)
    assert len(drawn(ax, "binding").get_offsets()) == 2
    assert {text.get_text() for text in ax.texts if text.get_color() == BINDING} == {"17\n1.03 pu", "32\n1.03 pu"}
    assert len(drawn(feeder(clearing, 0), "binding").get_offsets()) == 0


def test_a_voltage_that_is_broken_is_ringed_and_named_with_what_it_is():
    clearing = clear(market(feeder33(v_min_pu=0.914), 20.0, resource("idle", 3, supply=[(1, 900)])))
    ax = feeder(clearing)
    broken = clearing.broken_limits()
    assert len(drawn(ax, "binding").get_offsets()) == len(broken) > 0
    (lowest,) = broken[broken.element == "bus 17"].itertuples()
    assert any(f"0.914 pu broken: {lowest.value:.4g}" in text.get_text() for text in ax.texts)


def test_a_branch_that_binds_has_the_colour_of_limits(cleared):
    clearing = cleared["congestion_meshed_33"]
    lines = drawn(feeder(clearing), "branches")
    binding = [i for i, colour in enumerate(lines.get_colors()) if tuple(colour) == to_rgba(BINDING)]
    assert clearing.case.network.branch[binding].tolist() == ["line 1"]


def test_lines_are_as_wide_as_their_loading(cleared):
    clearing = cleared["transformer_cigre"]
    width = np.array(drawn(feeder(clearing), "branches").get_linewidths())
    loading = clearing.flows.loading[0]
    assert (np.diff(width[np.argsort(loading)]) >= -1e-6).all()
    assert np.ptp(width) == pytest.approx(3.0 * np.ptp(loading))


@pytest.mark.parametrize("name", NAMES)
def test_labels_neither_overlap_nor_leave_the_axes(name: str, cleared):
    ax = feeder(cleared[name])
    ax.figure.draw_without_rendering()
    boxes = [Annotation.get_window_extent(text) for text in ax.texts if not text.arrow_patch]
    assert len(boxes) >= 10
    for one, other in combinations(boxes, 2):
        assert not one.shrunk(0.9, 0.9).overlaps(other.shrunk(0.9, 0.9))
    frame = ax.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


@pytest.mark.parametrize(("name", "all_named"), [("day_33", True), ("oberrhein", False)])
def test_a_small_feeder_names_every_bus_and_a_large_one_some(name: str, all_named: bool, cleared):
    clearing = cleared[name]
    named = {text.get_text().split("\n")[0] for text in feeder(clearing).texts}
    buses = set(clearing.case.network.bus.tolist())
    assert named <= buses
    assert (named == buses) == all_named
    assert set(clearing.case.network.bus[clearing.case.network.source].tolist()) <= named


def test_a_name_with_dollar_signs_is_no_mathematics(cleared):
    clearing = cleared["day_33"]
    network = replace(clearing.case.network, bus=np.array([f"${i}_$" for i in range(33)]))
    ax = feeder(replace(clearing, case=replace(clearing.case, name="$x$ and \\y", network=network)))
    ax.figure.draw_without_rendering()
    assert ax.get_title(loc="left").startswith("$x$ and \\y, Thu 2026-01-01 00:00 UTC")


def test_the_components_of_a_stack_add_up_to_the_price(cleared):
    clearing = cleared["day_33"]
    node = clearing.case.network.node("17")
    ax = price_stack(clearing, "17")
    heights = [[bar.get_height() for bar in container] for container in ax.containers]
    price = clearing.prices.lmp_usd_per_mwh[:, node]
    assert [container.get_label() for container in ax.containers] == ["energy", "loss", "congestion", "voltage"]
    assert list(COLOURS) == list(COMPONENTS)
    assert np.allclose(np.sum(heights, axis=0), price, atol=1e-9)
    (line,) = (patch for patch in ax.patches if patch.get_label() == "price")
    assert np.array_equal(line.get_data().values, price)


def test_negative_components_are_stacked_below_zero(cleared):
    ax = price_stack(cleared["day_33"], "17")
    bars = [bar for container in ax.containers for bar in container]
    assert any(bar.get_height() < -1 for bar in bars)
    assert all(bar.get_y() * bar.get_height() >= -1e-9 for bar in bars)


def line(ax: Axes, gid: str) -> list[list[float]]:
    """Points of the line of that name."""
    (found,) = (artist for artist in ax.lines if artist.get_gid() == gid)
    return np.transpose(found.get_data()).tolist()


def test_a_curve_has_the_bids_from_the_most_consumption_to_the_most_injection_its_award_and_price():
    mixed = resource("mixed", 5, supply=[(40, 28), (60, 45)], demand=[(30, 22), (50, 15)])
    clearing = clear(market(feeder33(), [20.0, 30.0], mixed))
    for interval, award in ((0, -30), (1, 40)):
        ax = curves(clearing, "mixed", interval)
        _, *steps, _ = line(ax, "curve")
        expected = [[-80, 15], [-30, 15], [-30, 22], [0, 22], [0, 28], [40, 28], [40, 45], [100, 45]]
        assert steps == expected
        ((at, price),) = line(ax, "award")
        assert (at, price) == (pytest.approx(award), clearing.awards.lmp_usd_per_mwh[interval, 0])
        assert [y for _, y in line(ax, "price")] == [price, price]


def test_a_curve_turns_upright_where_the_range_ends_and_slopes_where_the_bid_does():
    plant = resource("plant", 5, supply=[(40, 10), (60, 30)], available_kw=70)
    case = market(feeder33(), 21.0, plant)
    clearing = clear(replace(case, bids=replace(case.bids, price_rise_usd_per_mwh=np.array([[0.0, 24.0]]))))
    first, *steps, last = line(curves(clearing, "plant"), "curve")
    assert steps == [[0, 10], [40, 10], [40, 30], [70, 42]]
    assert (first[0], last[0]) == (0, 70)
    assert first[1] < 10
    assert last[1] > 42


def test_what_is_self_scheduled_moves_the_curve_aside():
    case = market(feeder33(), 70.0, resource("office", 5, supply=[(20, 60)], demand=[(50, 0)], kind="load"))
    clearing = clear(replace(case, bids=replace(case.bids, is_self_scheduled=~case.bids.is_supply[None])))
    _, *steps, _ = line(curves(clearing, "office"), "curve")
    assert steps == [[-50, 60], [-30, 60]]
    assert line(curves(clearing, "office"), "award")[0][0] == pytest.approx(-30)


@pytest.mark.parametrize("name", STORE_CASES)
def test_the_award_of_a_store_lies_on_the_curve_of_its_energy_s_worth(name: str):
    clearing = clear(STORE_CASES[name]())
    stores, slack = clearing.case.stores, 1e-4
    may_move = np.maximum(stores.charge_max_kw, stores.discharge_max_kw) > 0
    is_unrated = ~np.isfinite(clearing.case.resources.s_max_kva[stores.resource])
    for interval, store in np.ndindex(clearing.stores.charge_kw.shape):
        if is_unrated[store] and may_move[interval, store]:
            ax = curves(clearing, str(clearing.case.resources.name[stores.resource[store]]), interval)
            points, ((at, price),) = line(ax, "curve"), line(ax, "award")
            below = [x for x, y in points if y <= price + slack]
            above = [x for x, y in points if y >= price - slack]
            assert min(above) - slack <= at <= max(below) + slack


@pytest.mark.parametrize(
    ("name", "interval", "message"),
    [
        ("nobody", 0, "is no resource of the case; those are: solar 17, solar 32"),
        ("solar 17", 3, "must be 0 to 2"),
        ("solar 17", 0, "offers nothing in interval 0"),
    ],
)
def test_a_curve_that_is_not_there_is_refused(name: str, interval: int, message: str, cleared):
    with pytest.raises(InputError, match=message):
        curves(cleared["day_33"], name, interval)


def test_a_curve_is_drawn_into_the_axes_it_is_given(cleared):
    ax = Figure().add_subplot()
    assert curves(cleared["day_33"], "north", 2, ax) is ax
    assert "north\nThu 2026-01-01 02:00 UTC" in ax.get_title(loc="left")


@pytest.mark.parametrize("draw", [feeder, lambda clearing, ax: price_stack(clearing, "17", ax)])
def test_it_draws_into_the_axes_it_is_given(draw, cleared):
    ax = Figure().add_subplot(1, 2, 2)
    assert draw(cleared["day_33"], ax=ax) is ax
    assert ax.get_title(loc="left")


def test_pyplot_is_left_alone(cleared):
    feeder(cleared["day_33"])
    assert matplotlib.pyplot.get_fignums() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"component": "network"}, "must be one of lmp_usd_per_mwh, energy, loss"),
        ({"interval": 3}, "must be 0 to 2"),
        ({"interval": -1}, "must be 0 to 2"),
    ],
)
def test_what_is_not_there_is_refused(arguments, message, cleared):
    with pytest.raises(InputError, match=message):
        feeder(cleared["day_33"], **arguments)


def test_an_unknown_bus_is_refused(cleared):
    with pytest.raises(InputError, match="is no bus"):
        price_stack(cleared["day_33"], "99")
