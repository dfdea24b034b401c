"""
A directed graph without cycles as SVG: boxes in layers, with a sentence and a table of its data.

Looks are classes and presentation attributes only, so a page may forbid inline style. Boxes with
an address are links; the others take the focus as well, so that arrow keys can move among all.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from clewline.formatting import format_count
from clewline.html.charts import Chart, Tone
from clewline.html.graph_layout import GAP, Box, Flow, GraphLayout, Point, find_layers, lay_out
from clewline.html.markup import Markup, element, isolated, join, shorten

NODES_DRAWN = 500
EDGES_DRAWN = 1_500
"""What is beyond is left out of the drawing, which says so; draw a list in its place."""

NOTES_DRAWN = 4
_WIDEST, _NARROWEST = 236.0, 104.0
_LEFT, _RIGHT = 14.0, 10.0
_KIND, _LABEL, _NOTE = 11.5, 13.0, 11.5  # sizes of text
_BOLD = 1.1  # a bold text is so much wider
_LINE = 16.0
_ARROW = 7.0
_LABEL_ROOM = 116.0
_MARGIN = 4.0


@dataclass(frozen=True, slots=True)
class DrawnNode:
    """
    A box.

    Args:
        key: Unique in the drawing.
        kind: What it is, in a word or two, such as `model` or `failed step`; it heads the box
            and stands in the legend.
        label: Its name; shortened where it is long.
        notes: Up to four short lines beneath the name.
        address: Where it leads to.
        tone: Colour of its edge; nodes of one kind have one tone.
        is_dashed: Draw a dashed outline: what did not run, or does not answer.
        is_asked: Draw it as the one that the page is about.
        details: What the table says of it; by default its notes.
    """

    key: str
    kind: str
    label: str
    notes: Sequence[str] = ()
    address: str | None = None
    tone: Tone = "plain"
    is_dashed: bool = False
    is_asked: bool = False
    details: str = ""


class DrawnEdge(NamedTuple):
    """An arrow from one box to another."""

    source: str
    target: str
    label: str = ""
    is_dashed: bool = False


def draw_graph(
    title: str,
    sentence: str,
    nodes: Sequence[DrawnNode],
    edges: Sequence[DrawnEdge],
    *,
    flow: Flow = "right",
) -> Chart:
    """
    Draw a graph: `html.page.show_chart` writes it with its sentence, its legend and its table.

    The drawing has its natural size and scrolls within its column. The same graph always gives
    the same bytes.

    Args:
        title: Of the drawing.
        sentence: What it shows; what is left out of a large one is added to it.
        nodes: In the order of the table. The first 500 are drawn.
        edges: Between the nodes. The first 1,500 are drawn.
        flow: The way that edges go. `right` suits many side by side, `down` a narrow page.

    Raises:
        ValueError: Two nodes have one key, an edge leads to no node, or there is a cycle.
    """
    place = {node.key: number for number, node in enumerate(nodes)}
    if len(place) < len(nodes):
        raise ValueError("two nodes of a drawing have the same key")
    for edge in edges:
        if edge.source not in place or edge.target not in place:
            raise ValueError(f"the edge {edge.source!r} → {edge.target!r} leads to no node")
    drawn = nodes[:NODES_DRAWN]
    inside = [e for e in edges if max(place[e.source], place[e.target]) < NODES_DRAWN]
    shown = inside[:EDGES_DRAWN]
    if len(drawn) < len(nodes):
        sentence += f" The drawing holds {len(drawn):,} of {format_count(len(nodes), 'node')}."
    if len(shown) < len(edges):
        sentence += f" The drawing holds {len(shown):,} of {format_count(len(edges), 'arrow')}."
    ends = list(dict.fromkeys((place[edge.source], place[edge.target]) for edge in shown))
    layers = find_layers(len(drawn), ends)
    by_source = _labels_by_source(ends)
    gaps = [GAP if flow == "right" else 36.0] * (max(layers, default=-1) + 1)
    for edge in shown if gaps else ():
        if edge.label:
            end = place[edge.source], place[edge.target]
            gap = layers[end[0]] if end in by_source else layers[end[1]] - 1
            wanted = min(text_width(edge.label[:80], _NOTE), _LABEL_ROOM) + 28
            gaps[gap] = max(gaps[gap], wanted if flow == "right" else 52.0)
    widths = _widths(drawn, layers if flow == "right" else [0] * len(drawn))
    sizes = [(width, _height(node)) for node, width in zip(drawn, widths, strict=True)]
    space = 14.0 if flow == "right" else 22.0
    layout = lay_out(sizes, ends, flow=flow, gaps=gaps, space=space)
    drawing = _drawing(title, sentence, drawn, shown, layout, ends, flow)
    legend = dict.fromkeys((node.tone, node.kind) for node in nodes if node.kind)
    return Chart(title, sentence, drawing, *_node_table(nodes, edges), list(legend))


def _node_table(
    nodes: Sequence[DrawnNode], edges: Sequence[DrawnEdge]
) -> tuple[tuple[str, ...], list[list[object]]]:
    labels = {node.key: node.label for node in nodes}
    targets: dict[str, list[str]] = {node.key: [] for node in nodes}
    for edge in edges:
        name = shorten(labels[edge.target], 60)
        targets[edge.source].append(f"{name} ({edge.label})" if edge.label else name)
    rows: list[list[object]] = []
    for node in nodes:
        name = isolated(node.label)
        if node.address is not None:
            name = element("a", name, href=node.address)
        rows.append(
            [name, node.kind, node.details or "; ".join(node.notes), ", ".join(targets[node.key])]
        )
    return ("node", "kind", "what is known", "leads to"), rows


def _labels_by_source(ends: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
    """Find the edges that stand alone at their source but not at their target."""
    out = Counter(source for source, _ in ends)
    into = Counter(target for _, target in ends)
    return {end for end in ends if out[end[0]] == 1 < into[end[1]]}


def _widths(nodes: Sequence[DrawnNode], layers: Sequence[int]) -> list[float]:
    """Return the width of each box: as its texts need, alike in a layer."""
    widest = [_NARROWEST] * (max(layers, default=0) + 1)
    for node, layer in zip(nodes, layers, strict=True):
        texts = [(node.kind, _KIND), (node.label, _LABEL * _BOLD)]
        texts += [(note, _NOTE) for note in node.notes[:NOTES_DRAWN]]
        wanted = max(text_width(text[:80], size) for text, size in texts)
        widest[layer] = min(max(widest[layer], ceil(wanted) + _LEFT + _RIGHT), _WIDEST)
    return [widest[layer] for layer in layers]


def _height(node: DrawnNode) -> float:
    return 12 + _LINE * (bool(node.kind) + 1 + len(node.notes[:NOTES_DRAWN]))


def _drawing(
    title: str,
    sentence: str,
    nodes: Sequence[DrawnNode],
    edges: Sequence[DrawnEdge],
    layout: GraphLayout,
    ends: Sequence[tuple[int, int]],
    flow: Flow,
) -> Markup:
    lanes = dict(zip(((nodes[a].key, nodes[b].key) for a, b in ends), layout.lanes, strict=True))
    by_source = _labels_by_source(ends)
    after: list[list[int]] = [[] for _ in nodes]
    for source, target in ends:
        after[source].append(target)
    number = {node.key: n for n, node in enumerate(nodes)}
    lines, labels = [], []
    for edge in edges:
        lane = lanes[edge.source, edge.target]
        kind = "graph-edge dashed" if edge.is_dashed else "graph-edge"
        lines.append(element("path", d=_path(lane, flow), class_=kind))
        lines.append(element("path", d=_arrow_head(lane[-1], flow), class_="graph-arrow"))
        if edge.label:
            at_source = (number[edge.source], number[edge.target]) in by_source
            labels.append(_edge_label(edge.label, lane, flow, at_source))
    boxes = [
        _box(node, layout.boxes[n], layout.layers[n], after[n]) for n, node in enumerate(nodes)
    ]
    width, height = layout.width + 2 * _MARGIN, layout.height + 2 * _MARGIN
    svg = element(
        "svg",
        element("title", shorten(title, 120)),
        element("desc", shorten(sentence, 600)),
        element("g", *lines, aria_hidden="true"),
        element("g", *labels),
        element("g", *boxes),
        role="group",
        aria_label=shorten(title, 120),
        width=_number(width),
        height=_number(height),
        viewBox=f"{-_MARGIN:g} {-_MARGIN:g} {_number(width)} {_number(height)}",
        xmlns="http://www.w3.org/2000/svg",
        class_="graph-drawing",
    )
    return element(
        "div",
        svg,
        class_="scroll graph",
        role="region",
        aria_label=f"Drawing: {shorten(title, 100)}",
        tabindex="0",
    )


def _box(node: DrawnNode, box: Box, layer: int, after: Sequence[int]) -> Markup:
    room = box.width - _LEFT - _RIGHT
    lines = [(node.kind, "graph-kind", _KIND)] if node.kind else []
    lines.append((node.label, "graph-label", _LABEL * _BOLD))
    lines += [(note, "graph-note", _NOTE) for note in node.notes[:NOTES_DRAWN]]
    texts = [
        element(
            "text",
            fit_text(text, room, size),
            x=_LEFT,
            y=_number(18 + _LINE * line),
            font_size=f"{min(size, _LABEL):g}",
            class_=kind,
        )
        for line, (text, kind, size) in enumerate(lines)
    ]
    words = [node.kind, node.label, *node.notes]
    hint = element("title", "\n".join(shorten(each, 300) for each in words if each))
    shapes = join(
        hint,
        element("rect", width=_number(box.width), height=_number(box.height), rx=5),
        element("rect", width=4, height=_number(box.height), rx=2, class_="graph-tone"),
        # What the width of a text was estimated too small for is cut off at the box.
        element(
            "svg", texts, width=_number(box.width - 3), height=_number(box.height), class_="clip"
        ),
    )
    kinds = ["graph-node", f"tone-{node.tone}"]
    kinds += ["dashed"] if node.is_dashed else []
    kinds += ["asked"] if node.is_asked else []
    shared = {
        "class_": " ".join(kinds),
        "transform": f"translate({_number(box.x)} {_number(box.y)})",
        "aria_label": ", ".join(shorten(each, 120) for each in words if each),
        "data_layer": layer,
        "data_to": " ".join(map(str, after)) or None,
    }
    if node.address is None:
        return element("g", shapes, role="img", tabindex="0", **shared)
    return element("a", shapes, href=node.address, **shared)


def _path(lane: Sequence[Point], flow: Flow) -> str:
    """Return a path that is straight within layers and bends between them."""
    parts = [f"M{_at(lane[0])}"]
    for place in range(1, len(lane)):
        one, other = lane[place - 1], lane[place]
        if one == other:
            continue
        if place % 2:
            parts.append(f"L{_at(other)}")
        elif flow == "right":
            middle = (one.x + other.x) / 2
            parts.append(f"C{_at(Point(middle, one.y))} {_at(Point(middle, other.y))} {_at(other)}")
        else:
            middle = (one.y + other.y) / 2
            parts.append(f"C{_at(Point(one.x, middle))} {_at(Point(other.x, middle))} {_at(other)}")
    return "".join(parts)


def _arrow_head(end: Point, flow: Flow) -> str:
    back, side = (Point(end.x - _ARROW, end.y), Point(0, _ARROW / 2)) if flow == "right" else (
        Point(end.x, end.y - _ARROW), Point(_ARROW / 2, 0))  # fmt: skip
    left = Point(back.x - side.x, back.y - side.y)
    right = Point(back.x + side.x, back.y + side.y)
    return f"M{_at(left)}L{_at(end)}L{_at(right)}Z"


def _edge_label(text: str, lane: Sequence[Point], flow: Flow, at_source: bool) -> Markup:
    """Write a label where its edge stands alone: by the target, or by the source."""
    if flow == "down":
        end = lane[0] if at_source else lane[-1]
        at, anchor = Point(end.x + 6, end.y + (16 if at_source else -12)), "start"
    elif at_source:
        at, anchor = Point(lane[0].x + 6, lane[0].y - 5), "start"
    else:
        at, anchor = Point(lane[-1].x - 10, lane[-1].y - 5), "end"
    return element(
        "text",
        fit_text(text, _LABEL_ROOM, _NOTE),
        element("title", shorten(text, 300)),
        x=_number(at.x),
        y=_number(at.y),
        text_anchor=anchor,
        font_size=f"{_NOTE:g}",
        class_="graph-edge-label halo",
    )


def fit_text(text: str, room: float, size: float) -> str:
    """
    Shorten a text in its middle until it is about as wide as a place for it.

    Args:
        text: Any text.
        room: Width of the place, in pixels.
        size: Of the text, in pixels.
    """
    columns = 80
    shown = shorten(text, columns)
    while columns > 1 and (width := text_width(shown, size)) > room:
        columns = min(columns - 1, int(len(shown) * room / width) + 1)
        shown = shorten(text, columns)
    return shown


def text_width(text: str, size: float) -> float:
    """Estimate the width of a text of one line in a usual sans serif, in pixels."""
    return size * sum(map(_share, text))


def _share(character: str) -> float:
    """Return the width of a character as a share of the size of its text."""
    if character in "ijlI.,:;'|!()[]{}ft ":
        return 0.36
    if character in "mwMW@%—…":
        return 0.98
    if unicodedata.east_asian_width(character) in "WF":
        return 1.05
    return 0.7 if character.isupper() else 0.62


def _at(point: Point) -> str:
    return f"{_number(point.x)} {_number(point.y)}"


def _number(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
