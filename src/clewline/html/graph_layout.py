"""
Places for the boxes and edges of a directed graph without cycles, in layers.

Source:
    Sugiyama, Tagawa, Toda, Methods for Visual Understanding of Hierarchical System Structures
    (IEEE Trans. SMC 11, 1981), with the medians and weights of Gansner, Koutsofios, North, Vo,
    A Technique for Drawing Directed Graphs (IEEE Trans. Softw. Eng. 19, 1993). Places across the
    layers are a weighted least squares fit that keeps the order (pool adjacent violators).
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Literal, NamedTuple

Flow = Literal["right", "down"]

LANE = 8.0
"""Breadth that a layer keeps free for an edge that passes through it, in pixels."""

GAP = 48.0
"""Usual distance between layers, in pixels."""

MOST_LANES = 6_000
"""Lanes that layers keep free; edges for which none is left pass behind the boxes."""

_FEW_SEGMENTS = 3_000
_SWEEPS, _SWEEPS_OF_MANY = 10, 3


class Box(NamedTuple):
    """Left, top, width and height, in pixels."""

    x: float
    y: float
    width: float
    height: float


class Point(NamedTuple):
    """A place in pixels, from the left and from the top."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class GraphLayout:
    """
    Where everything stands.

    Args:
        boxes: One for each node.
        layers: The layer of each node; every edge leads to a later one.
        lanes: For each edge the points that it goes through, in pairs. It is straight within a
            layer (between the two points of a pair) and bends between layers (from pair to
            pair); the first point of the first pair and the last one of the last pair lie on
            the sides of the boxes.
        width: Of all, in pixels.
        height: Of all, in pixels.
    """

    boxes: Sequence[Box]
    layers: Sequence[int]
    lanes: Sequence[Sequence[Point]]
    width: float
    height: float


def lay_out(
    sizes: Sequence[tuple[float, float]],
    edges: Sequence[tuple[int, int]],
    *,
    flow: Flow = "right",
    gaps: Sequence[float] | None = None,
    space: float = 14,
) -> GraphLayout:
    """
    Place boxes in layers so that every edge goes forward and few of them cross.

    The same graph is always placed in the same way. The edges of one source share their
    way as long as they can.

    Args:
        sizes: Width and height of each node, in pixels.
        edges: Source and target, as places in `sizes`.
        flow: The way that edges go.
        gaps: After each layer, in pixels; 48 by default.
        space: Least distance between the boxes of a layer, in pixels.

    Raises:
        ValueError: The graph has a cycle.
    """
    layers = find_layers(len(sizes), edges)
    # Along the flow and across it; at the end "down" changes the two.
    along = [size[0] if flow == "right" else size[1] for size in sizes]
    across = [size[1] if flow == "right" else size[0] for size in sizes]
    count = max(layers, default=-1) + 1
    deep = [0.0] * count
    for length, layer in zip(along, layers, strict=True):
        deep[layer] = max(deep[layer], length)
    gaps = gaps or [GAP] * count
    starts = [0.0]
    for length, gap in zip(deep, gaps, strict=True):
        starts.append(starts[-1] + length + gap)

    # An edge over several layers becomes a chain of lanes, so that boxes make room for it. The
    # edges of one source share lanes; the shortest ones come first.
    members: list[list[int]] = [[] for _ in range(count)]
    for node in _first_visits(len(sizes), edges):
        members[layers[node]].append(node)
    breadth = list(across)
    shared: dict[tuple[int, int], int] = {}  # source and layer → lane
    chains: dict[int, list[int]] = {}
    for edge in sorted(range(len(edges)), key=lambda n: layers[edges[n][1]] - layers[edges[n][0]]):
        source, target = edges[edge]
        passed = range(layers[source] + 1, layers[target])
        missing = [layer for layer in passed if (source, layer) not in shared]
        if len(shared) + len(missing) > MOST_LANES:
            continue
        for layer in missing:
            shared[source, layer] = len(breadth)
            members[layer].append(len(breadth))
            breadth.append(LANE)
        chains[edge] = [source, *(shared[source, layer] for layer in passed), target]
    before: list[list[int]] = [[] for _ in breadth]
    after: list[list[int]] = [[] for _ in breadth]
    for left, right in dict.fromkeys(pair for edge in chains for pair in pairwise(chains[edge])):
        after[left].append(right)
        before[right].append(left)

    members = _reduce_crossings(members, before, after)
    centres = _centres(members, before, after, breadth, len(sizes), space)

    def point(at: float, side: float) -> Point:
        return Point(at, side) if flow == "right" else Point(side, at)

    boxes = []
    for node, (width, height) in enumerate(sizes):
        corner = point(starts[layers[node]], centres[node] - across[node] / 2)
        boxes.append(Box(*corner, width, height))
    lanes = []
    for edge, (source, target) in enumerate(edges):
        layer = layers[source]
        begin, end = starts[layer] + along[source], starts[layers[target]]
        points = [point(begin, centres[source])]
        # A narrow box leaves some of its layer to the edge.
        points.append(point(starts[layer] + deep[layer], centres[source]))
        for step, lane in enumerate(chains.get(edge, [])[1:-1], layer + 1):
            points.append(point(starts[step], centres[lane]))
            points.append(point(starts[step] + deep[step], centres[lane]))
        lanes.append([*points, point(end, centres[target]), point(end, centres[target])])
    side = max((at + wide / 2 for at, wide in zip(centres, breadth, strict=True)), default=0.0)
    size = point(starts[count - 1] + deep[-1] if count else 0.0, side)
    return GraphLayout(boxes, layers, lanes, size.x, size.y)


def find_layers(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """
    Return the layer of each node: the longest way to it, or just before what it leads to.

    Raises:
        ValueError: The graph has a cycle.
    """
    after: list[list[int]] = [[] for _ in range(count)]
    missing = [0] * count
    for source, target in edges:
        after[source].append(target)
        missing[target] += 1
    degree = list(missing)
    layers = [0] * count
    order = [node for node in range(count) if not missing[node]]
    for node in order:  # grows while it is read
        for target in after[node]:
            layers[target] = max(layers[target], layers[node] + 1)
            missing[target] -= 1
            if not missing[target]:
                order.append(target)
    if len(order) < count:
        node = next(node for node in range(count) if missing[node])
        raise ValueError(f"the graph has a cycle that leads to node {node}")
    for node in reversed(order):
        if len(after[node]) > degree[node]:
            layers[node] = min(layers[target] for target in after[node]) - 1
    return layers


def _first_visits(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """List the nodes as a walk along the edges comes upon them, so that a branch stays together."""
    after: list[list[int]] = [[] for _ in range(count)]
    has_source = [False] * count
    for source, target in edges:
        after[source].append(target)
        has_source[target] = True
    seen: dict[int, None] = {}
    waiting = [node for node in reversed(range(count)) if not has_source[node]]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen[node] = None
            waiting.extend(reversed(after[node]))
    return list(seen)


def _reduce_crossings(
    members: list[list[int]], before: list[list[int]], after: list[list[int]]
) -> list[list[int]]:
    """Sort each layer by the medians of its neighbours, to and fro, and keep the best order."""
    segments = sum(map(len, after))
    best, fewest = members, _crossings(members, after)
    current = [list(layer) for layer in members]
    for sweep in range(_SWEEPS if segments <= _FEW_SEGMENTS else _SWEEPS_OF_MANY):
        if not fewest:
            break
        forward = sweep % 2 == 0
        neighbours = before if forward else after
        place = {node: n for layer in current for n, node in enumerate(layer)}
        for number in range(len(current)) if forward else reversed(range(len(current))):
            layer = current[number]
            middle = {
                node: median([place[each] for each in neighbours[node]])
                if neighbours[node]
                else place[node]
                for node in layer
            }
            layer.sort(key=lambda node: middle[node])
            place.update((node, n) for n, node in enumerate(layer))
        crossings = _crossings(current, after)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in current], crossings
    return best


def _crossings(members: Sequence[Sequence[int]], after: Sequence[Sequence[int]]) -> int:
    """Count the crossings between each layer and the next."""
    found = 0
    for here, there in pairwise(members):
        place = {node: n for n, node in enumerate(there)}
        ends: list[int] = []
        for node in here:
            targets = sorted(place[target] for target in after[node])
            found += sum(len(ends) - bisect_right(ends, target) for target in targets)
            for target in targets:
                insort(ends, target)
    return found


def _centres(
    members: Sequence[Sequence[int]],
    before: Sequence[Sequence[int]],
    after: Sequence[Sequence[int]],
    breadth: Sequence[float],
    boxes: int,
    space: float,
) -> list[float]:
    """Return the centre of each box and lane across the flow: near its neighbours, in order."""
    distances = [
        [(breadth[left] + breadth[right]) / 2 + space for left, right in pairwise(layer)]
        for layer in members
    ]
    centres = [0.0] * len(breadth)
    for layer, apart in zip(members, distances, strict=True):
        _put(centres, layer, _spread([0.0] * len(layer), [1.0] * len(layer), apart))

    def weight(one: int, other: int) -> float:
        # The longer an edge, the straighter.
        return (1.0, 2.0, 8.0)[(one >= boxes) + (other >= boxes)]

    sweeps = _SWEEPS if sum(map(len, after)) <= _FEW_SEGMENTS else _SWEEPS_OF_MANY
    for sweep in range(2 * sweeps + 2):
        is_last = sweep >= 2 * sweeps
        forward = sweep % 2 == 0
        for number in range(len(members)) if forward else reversed(range(len(members))):
            wanted, weights = [], []
            for node in members[number]:
                near = before[node] if forward else after[node]
                if is_last:
                    near = [*before[node], *after[node]]
                pull = [(weight(node, each), centres[each]) for each in near]
                total = sum(each for each, _ in pull)
                wanted.append(
                    sum(each * at for each, at in pull) / total if pull else centres[node]
                )
                weights.append(total or 0.1)
            _put(centres, members[number], _spread(wanted, weights, distances[number]))
    least = min((at - breadth[n] / 2 for n, at in enumerate(centres)), default=0.0)
    return [max(at - least, breadth[n] / 2) for n, at in enumerate(centres)]


def _put(centres: list[float], layer: Sequence[int], places: Sequence[float]) -> None:
    for node, place in zip(layer, places, strict=True):
        centres[node] = place


def _spread(
    wanted: Sequence[float], weights: Sequence[float], distances: Sequence[float]
) -> list[float]:
    """
    Return the places nearest to the wanted ones that keep their order and their distances.

    >>> _spread([0, 0, 9], [1, 1, 1], [2, 2])
    [-1.0, 1.0, 9.0]
    """
    offsets = [0.0]
    for distance in distances:
        offsets.append(offsets[-1] + distance)
    blocks: list[tuple[float, float, int]] = []  # mean, weight, members
    for want, weight, offset in zip(wanted, weights, offsets, strict=False):
        mean, total, size = want - offset, weight, 1
        while blocks and blocks[-1][0] > mean:
            left, heavy, wide = blocks.pop()
            mean = (left * heavy + mean * total) / (heavy + total)
            total, size = total + heavy, size + wide
        blocks.append((mean, total, size))
    places = [mean for mean, _, size in blocks for _ in range(size)]
    return [float(place + offset) for place, offset in zip(places, offsets, strict=False)]
