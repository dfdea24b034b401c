"""Boxes in layers: apart from each other, edges forward and past the boxes, few crossings."""

from __future__ import annotations

import random
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clewline.html import graph_layout
from clewline.html.graph_layout import Box, Flow, GraphLayout, lay_out


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[tuple[float, float]], list[tuple[int, int]]]:
    """Sizes, and edges from nodes to later ones."""
    count = draw(st.integers(1, 12))
    size = st.tuples(st.integers(30, 240).map(float), st.integers(20, 90).map(float))
    sizes = draw(st.lists(size, min_size=count, max_size=count))
    node = st.integers(0, count - 1)
    edges = draw(st.lists(st.tuples(node, node).filter(lambda e: e[0] < e[1]), max_size=20))
    names = draw(st.permutations(range(count)))  # so that the order given tells nothing
    return sizes, list(dict.fromkeys((names[a], names[b]) for a, b in edges))


def overlap(one: Box, other: Box) -> bool:
    wide = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
    high = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
    return min(wide, high) > 1e-6


def check(layout: GraphLayout, edges: list[tuple[int, int]], flow: Flow) -> None:
    """Check what holds of every layout."""
    for one, other in combinations(layout.boxes, 2):
        assert not overlap(one, other)
    for box in layout.boxes:
        assert box.x >= 0
        assert box.y >= 0
        assert box.x + box.width <= layout.width + 1e-6
        assert box.y + box.height <= layout.height + 1e-6
    for (source, target), lane in zip(edges, layout.lanes, strict=True):
        assert layout.layers[source] < layout.layers[target]
        begin, end = layout.boxes[source], layout.boxes[target]
        places = [point.x if flow == "right" else point.y for point in lane]
        assert places == sorted(places)
        if flow == "right":
            assert lane[0] == pytest.approx((begin.x + begin.width, begin.y + begin.height / 2))
            assert lane[-1] == pytest.approx((end.x, end.y + end.height / 2))
        else:
            assert lane[0] == pytest.approx((begin.x + begin.width / 2, begin.y + begin.height))
            assert lane[-1] == pytest.approx((end.x + end.width / 2, end.y))
        # Within a layer the edge is straight and passes no other box.
        for start, stop in list(pairwise(lane))[::2]:
            wide, high = max(stop.x - start.x, 1e-3), max(stop.y - start.y, 1e-3)
            thin = Box(start.x, start.y, wide, high)
            for node, box in enumerate(layout.boxes):
                assert node in (source, target) or not overlap(thin, box)


@pytest.mark.parametrize("flow", ["right", "down"])
@given(graph=graphs())
@settings(max_examples=80, deadline=None)
def test_boxes_stand_apart_and_edges_go_forward_past_them(
    flow: Flow, graph: tuple[list[tuple[float, float]], list[tuple[int, int]]]
) -> None:
    sizes, edges = graph
    layout = lay_out(sizes, edges, flow=flow)
    check(layout, edges, flow)
    assert layout == lay_out(sizes, edges, flow=flow)


def test_a_chain_is_a_straight_line_and_a_parent_stands_amid_its_children() -> None:
    chain = lay_out([(100, 30)] * 4, [(0, 1), (1, 2), (2, 3)])
    assert len({box.y for box in chain.boxes}) == 1
    fan = lay_out([(100, 30)] * 4, [(0, 1), (0, 2), (0, 3)])
    assert fan.boxes[0].y == pytest.approx(fan.boxes[2].y, abs=0.5)


def test_a_source_stands_before_what_it_leads_to() -> None:
    layout = lay_out([(100, 30)] * 5, [(0, 1), (1, 2), (2, 3), (4, 3)])
    assert layout.layers == [0, 1, 2, 3, 2]


def test_crossings_that_can_be_undone_are_undone() -> None:
    # Three pairs given crosswise.
    edges = [(0, 5), (1, 4), (2, 3)]
    layout = lay_out([(100, 30)] * 6, edges)
    for (one, above), (other, below) in combinations(edges, 2):
        order = layout.boxes[one].y < layout.boxes[other].y
        assert order == (layout.boxes[above].y < layout.boxes[below].y)


def test_crossings_are_counted_as_by_hand() -> None:
    chance = random.Random(3)
    left, right = list(range(8)), list(range(8, 16))
    after = [[chance.choice(right) for _ in range(3)] for _ in left] + [[] for _ in right]
    ends = [(n, right.index(target)) for n in left for target in after[n]]
    by_hand = sum((a - c) * (b - d) < 0 for (a, b), (c, d) in combinations(ends, 2))
    assert by_hand > 20
    assert graph_layout._crossings([left, right], after) == by_hand


def test_a_cycle_is_refused() -> None:
    with pytest.raises(ValueError, match="cycle"):
        lay_out([(10, 10)] * 3, [(0, 1), (1, 2), (2, 1)])


def test_five_hundred_nodes_are_placed_apart() -> None:
    chance = random.Random(1)
    edges = [(chance.randrange(max(n - 30, 0), n), n) for n in range(1, 500) for _ in range(2)]
    edges = list(dict.fromkeys(edges))
    layout = lay_out([(150, 44)] * 500, edges)
    assert not [pair for pair in combinations(layout.boxes, 2) if overlap(*pair)]
    assert all(layout.layers[source] < layout.layers[target] for source, target in edges)


def test_edges_beyond_the_lanes_still_lead_from_box_to_box() -> None:
    edges = [(n, n + 1) for n in range(299)] + [(n, n + 150) for n in range(150)]
    layout = lay_out([(100, 30)] * 300, edges)
    width = max(box.y for box in layout.boxes) / (30 + 14)
    assert width < graph_layout.MOST_LANES / 149
    behind = [lane for lane in layout.lanes[299:] if len(lane) == 4]
    assert 100 < len(behind) < 150
    assert all(lane[0].x < lane[-1].x for lane in behind)


def test_nothing_is_a_drawing_without_size() -> None:
    assert lay_out([], []) == GraphLayout([], [], [], 0.0, 0.0)
