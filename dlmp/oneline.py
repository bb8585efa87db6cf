"""Where the buses and branches of a one-line diagram go: a network to coordinates, without drawing anything."""

from dataclasses import dataclass

import numpy as np

from dlmp.network.model import FloatArray, IntArray, Network

LEAST_KNOWN = 0.5
"""Share of the buses that must have a place on a map, or the feeder is laid out."""


@dataclass(frozen=True, eq=False)
class Diagram:
    """Coordinates of a one-line diagram.

    Parameters
    ----------
    xy
        (n, 2) Place of every bus: on a map, where half of the branches are no longer than 1; or else hops from its
        source, and lane.
    paths
        Points (i, 2) of every branch, its conductors together.
    ends
        Buses from which the tree goes nowhere: the ends of laterals.
    is_map
        Whether places are those on a map, where both directions have one scale.
    """

    xy: FloatArray
    paths: list[FloatArray]
    ends: list[int]
    is_map: bool = False

    def place(self, bus: int) -> tuple[float, float]:
        """Coordinates of a bus."""
        return float(self.xy[bus, 0]), float(self.xy[bus, 1])

    def middle(self, branch: int) -> tuple[float, float]:
        """Coordinates of the middle of a branch, or of its part along a lane."""
        path = self.paths[branch]
        x, y = path[(len(path) - 1) // 2 :][:2].mean(axis=0)
        return float(x), float(y)


def diagram(network: Network) -> Diagram:
    """Draw `network` on its map, or lay it out where most of its buses have no place on one."""
    tree, ends = spanning_tree(network), branch_ends(network)
    tips = sorted(set(tree.order) - set(tree.parent.tolist()))
    places = on_map(network.xy[first_nodes(network)], ends)
    if places is not None:
        return Diagram(places, [places[list(pair)] for pair in ends], tips, is_map=True)
    xy = layout(tree)
    return Diagram(xy, [branch_path(pair, tree, xy, branch) for branch, pair in enumerate(ends)], tips)


def first_nodes(network: Network) -> IntArray:
    """(n,) First node of every bus, in the order of `Network.buses`."""
    _, first = np.unique(network.bus, return_index=True)
    return np.sort(first)


def on_map(xy: FloatArray, ends: list[tuple[int, int]]) -> FloatArray | None:
    """Places of every bus on a map, (n, 2); None where fewer than half of them are known.

    One that is not known is amid those of its neighbours that are.

    Parameters
    ----------
    xy
        (n, 2) Place of every bus; NaN where it is not known.
    ends
        Buses at the ends of every branch.
    """
    is_known = np.asarray(np.isfinite(xy).all(axis=1))
    if is_known.mean() < LEAST_KNOWN:
        return None
    places = np.where(is_known[:, None], xy, 0.0)
    pairs = np.array(ends, dtype=np.int64).reshape(-1, 2)
    both_ways = np.vstack([pairs, pairs[:, ::-1]])
    while not is_known.all():
        start, end = both_ways[is_known[both_ways[:, 0]] & ~is_known[both_ways[:, 1]]].T
        if not len(end):
            return None
        total = np.zeros_like(places)
        np.add.at(total, end, places[start])
        count = np.bincount(end, minlength=len(places))
        places[count > 0] = total[count > 0] / count[count > 0, None]
        is_known |= count > 0
    length = np.hypot(*(places[pairs[:, 0]] - places[pairs[:, 1]]).T)
    if not length.any():
        return None
    return np.asarray((places - places.min(axis=0)) / np.median(length[length > 0]))


@dataclass(frozen=True, eq=False)
class Tree:
    """Shortest paths from the sources.

    `order` lists the buses, parents before children; `parent` and `branch` are those towards the source
    of each bus, -1 at a source; `depth` is the hops from there.
    """

    order: list[int]
    parent: IntArray
    branch: IntArray
    depth: IntArray


def branch_ends(network: Network) -> list[tuple[int, int]]:
    """Numbers of the buses at the ends of every branch, in the order of `Network.branch_number`."""
    _, first = np.unique(network.branch, return_index=True)
    first = np.sort(first)
    ends = (network.bus_of_port[node[first]].tolist() for node in (network.from_node, network.to_node))
    return list(zip(*ends, strict=True))


def spanning_tree(network: Network) -> Tree:
    """Find the tree by breadth-first search; of a radial feeder it is the feeder."""
    count = len(network.buses)
    neighbours: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for branch, (start, end) in enumerate(branch_ends(network)):
        neighbours[start].append((end, branch))
        neighbours[end].append((start, branch))
    parent, towards, depth = (np.full(count, value) for value in (-1, -1, 0))
    order = list(dict.fromkeys(network.bus_of_port[network.source].tolist()))
    reached = set(order)
    for node in order:
        for other, branch in neighbours[node]:
            if other not in reached:
                reached.add(other)
                order.append(other)
                parent[other], towards[other], depth[other] = node, branch, depth[node] + 1
    return Tree(order, parent, towards, depth)


def layout(tree: Tree) -> FloatArray:
    """Place every bus, (n, 2): x is the hops from its source, y a lane.

    The longest way onward goes straight; laterals take the nearest lane, above or below, that is free
    along their whole length and up to their parent's column (after Reingold and Tilford, 1981).
    """
    root = len(tree.parent)
    children: list[list[int]] = [[] for _ in range(root + 1)]
    for node in tree.order:
        children[tree.parent[node] if tree.parent[node] >= 0 else root].append(node)
    shift = np.zeros(root + 1)
    outline: dict[int, tuple[FloatArray, FloatArray]] = {}
    for node in [*reversed(tree.order), root]:
        ways = sorted(((outline.pop(child), child) for child in children[node]), key=lambda way: -len(way[0][0]))
        low, high = (np.append(side, 0.0) for side in ways[0][0]) if ways else (np.zeros(1), np.zeros(1))
        for sides, child in ways[1:]:
            below, above = (np.append(side, 0.0) for side in sides)
            beside = slice(-len(below), None)
            up, down = (high[beside] - below).max() + 1, (low[beside] - above).min() - 1
            shift[child] = up if up <= -down else down
            low[beside] = np.minimum(low[beside], below + shift[child])
            high[beside] = np.maximum(high[beside], above + shift[child])
        outline[node] = low, high
    y = np.zeros(root + 1)  # a source has parent -1, which is the place of the root
    for node in tree.order:
        y[node] = y[tree.parent[node]] + shift[node]
    return np.column_stack([tree.depth, y[:root]]).astype(float)


def branch_path(ends: tuple[int, int], tree: Tree, xy: FloatArray, branch: int) -> FloatArray:
    """Points of a branch: a branch of the tree turns at its parent's column, one that closes a loop bows out."""
    for parent, child in (ends, ends[::-1]):
        if tree.branch[child] == branch:
            return np.array([xy[parent], (xy[parent][0], xy[child][1]), xy[child]])
    start, end = xy[list(ends)]
    across = np.array([start[1] - end[1], end[0] - start[0]])
    bow = (start + end) / 2 + 0.35 * across / max(float(np.hypot(*across)), 1e-9)
    t = np.linspace(0, 1, 24)[:, None]
    return np.asarray((1 - t) ** 2 * start + 2 * t * (1 - t) * bow + t**2 * end)
