"""Where nodes and branches of a one-line diagram go."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from cases import feeder33
from hypothesis import given
from hypothesis import strategies as st

from dlmp.oneline import Diagram, Tree, diagram, layout, on_map, spanning_tree

BRANCH_ARRAYS = (
    *("branch_kind", "from_node", "to_node", "series_pu", "tap"),
    *("shunt_from_pu", "shunt_to_pu", "rating_from_pu", "rating_to_pu", "rating_is_current"),
)


@st.composite
def forests(draw) -> Tree:
    """Trees in which node i hangs from an earlier node, or is a source."""
    count = draw(st.integers(1, 40))
    parent = np.array([draw(st.integers(-1, node - 1)) if node else -1 for node in range(count)])
    depth = np.zeros(count, dtype=np.int64)
    for node in range(count):
        depth[node] = depth[parent[node]] + 1 if parent[node] >= 0 else 0
    return Tree(np.argsort(depth, kind="stable").tolist(), parent, np.arange(count) - 1, depth)


@given(forests())
def test_no_two_nodes_share_a_place(tree: Tree):
    assert max(Counter(map(tuple, layout(tree).tolist())).values()) == 1


@given(forests())
def test_x_is_the_hops_from_the_source_and_lanes_are_whole_numbers(tree: Tree):
    x, y = layout(tree).T
    assert np.array_equal(x, tree.depth)
    assert np.array_equal(y, np.round(y))


@given(forests())
def test_no_branch_runs_through_a_node_that_is_not_its_own(tree: Tree):
    xy = layout(tree)
    at = {tuple(place): node for node, place in enumerate(xy.tolist())}
    for child, parent in enumerate(tree.parent.tolist()):
        if parent >= 0:
            low, high = sorted((xy[parent, 1], xy[child, 1]))
            on_the_way = {at.get((xy[parent, 0], lane)) for lane in np.arange(low, high + 1)}
            assert on_the_way <= {parent, None}


@given(forests())
def test_the_longest_way_from_each_source_goes_straight(tree: Tree):
    y = layout(tree)[:, 1]
    farthest = int(tree.depth.argmax())
    way = [farthest]
    while tree.parent[way[-1]] >= 0:
        way.append(int(tree.parent[way[-1]]))
    lanes = y[way]
    source = way[-1]
    if np.sum(tree.depth == tree.depth.max()) == 1:
        assert (lanes == y[source]).all()


def test_the_33_bus_feeder_has_its_four_lanes():
    drawing = diagram(feeder33())
    assert drawing.xy[:18, 1].tolist() == [0.0] * 18
    assert drawing.xy[:18, 0].tolist() == list(range(18))
    assert len(set(drawing.xy[:, 1])) == 4
    assert drawing.ends == [17, 21, 24, 32]


@pytest.mark.parametrize("meshed", [True, False])
def test_every_branch_runs_from_one_of_its_ends_to_the_other(meshed: bool):
    network = feeder33(meshed=meshed)
    drawing: Diagram = diagram(network)
    for path, start, end in zip(drawing.paths, network.from_node, network.to_node, strict=True):
        assert {tuple(path[0]), tuple(path[-1])} == {drawing.place(start), drawing.place(end)}


def test_only_branches_outside_the_tree_are_bowed():
    network = feeder33(meshed=True)
    tree, drawing = spanning_tree(network), diagram(network)
    bowed = {branch for branch, path in enumerate(drawing.paths) if len(path) > 3}
    assert bowed == set(range(network.branch_count)) - set(tree.branch.tolist())
    assert len(bowed) == 5


def test_parallel_branches_do_not_hide_each_other():
    network = feeder33()
    doubled = {name: np.append(getattr(network, name), getattr(network, name)[0]) for name in BRANCH_ARRAYS}
    drawing = diagram(replace(network, **doubled, branch=np.append(network.branch, "second line 0")))
    assert not np.allclose(drawing.middle(0), drawing.middle(network.branch_count), atol=0.1)


CHAIN = [(0, 1), (1, 2), (2, 3)]
UNKNOWN = (np.nan, np.nan)


def test_on_a_map_half_of_the_branches_are_no_longer_than_one():
    places = on_map(np.array([(100.0, 50.0), (100.0, 60.0), (130.0, 60.0), (130.0, 65.0)]), CHAIN)
    np.testing.assert_allclose(places, [(0, 0), (0, 1), (3, 1), (3, 1.5)])


@pytest.mark.parametrize(
    ("xy", "expected"),
    [
        ([(1.0, 0.0), (3.0, 0.0), UNKNOWN, (5.0, 0.0)], [0, 2, 3, 4]),
        ([(0.0, 0.0), UNKNOWN, UNKNOWN, (6.0, 0.0)], [0, 0, 1, 1]),
    ],
    ids=["one", "two beside each other"],
)
def test_a_bus_without_a_place_is_amid_its_neighbours(xy, expected):
    places = on_map(np.array(xy), CHAIN)
    np.testing.assert_allclose(places, np.column_stack([expected, np.zeros(4)]))


@pytest.mark.parametrize(
    "xy",
    [
        [UNKNOWN, UNKNOWN, UNKNOWN, (1.0, 2.0)],
        [(1.0, 2.0)] * 4,
        [(1.0, 2.0), (2.0, np.inf), UNKNOWN, UNKNOWN],
    ],
    ids=["most are unknown", "all at one place", "no number"],
)
def test_without_a_map_there_is_none(xy):
    assert on_map(np.array(xy), CHAIN) is None


def test_a_part_that_no_known_place_leads_to_leaves_no_map():
    xy = np.array([(0.0, 0.0), (1.0, 0.0), UNKNOWN, UNKNOWN])
    assert on_map(xy, [(0, 1), (2, 3)]) is None


def test_a_feeder_with_coordinates_is_drawn_on_its_map():
    network = feeder33()
    xy = np.column_stack([np.arange(33.0) * 7, np.arange(33.0) ** 2])
    drawing = diagram(replace(network, xy=xy))
    assert drawing.is_map
    shown = drawing.xy - drawing.xy[0]
    np.testing.assert_allclose(shown[1:, 1] / shown[1:, 0], xy[1:, 1] / xy[1:, 0])
    for path, start, end in zip(drawing.paths, network.from_node, network.to_node, strict=True):
        assert path.tolist() == drawing.xy[[start, end]].tolist()
    np.testing.assert_allclose(drawing.middle(4), drawing.xy[[4, 5]].mean(axis=0))
    assert not diagram(network).is_map
