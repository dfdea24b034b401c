"""The line of anything: what made it and what came of it, as one drawing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from shlex import quote as shell_quoted
from typing import Any
from urllib.parse import quote

from clewline.console.page import PageAnswer, PageRequest, PageRoute, Redirect, View
from clewline.console.rendering import line_address, page_address
from clewline.console.table import Column, Table, offset_source
from clewline.errors import InvalidInput
from clewline.formatting import format_count
from clewline.html.lineage_drawing import draw_lineage, node_key
from clewline.html.markup import Content, element
from clewline.html.page import show_chart
from clewline.serve.lineage_text import node_text
from clewline.serve.prediction_lineage import add_predictions, follow_line
from clewline.store.lineage import LineageNode

MOST_RUNS = 2_000
"""Runs that a list holds; the drawing has 20 at most."""


class LinePage:
    """What made a thing, and what came of it."""

    name = "line"
    title = "Line"
    place = 60

    def routes(self) -> Sequence[PageRoute]:
        """Return the addresses of the question and of the answer."""
        return (PageRoute("/line", ask_line), PageRoute("/line/{ref:path}", show_line))


def ask_line(request: PageRequest) -> PageAnswer:
    """Ask for a reference, or go to the one that was typed."""
    if ref := request.query.get("ref", "").strip():
        return Redirect(line_address(ref, _direction(request)))
    return View("line_ask.html", title="Line")


def show_line(request: PageRequest) -> PageAnswer:
    """Show the line of a reference back or forward, and list what stands on it."""
    ref, direction = request.path["ref"], _direction(request)
    if not ref.strip():
        return Redirect("/line")
    forward, full = direction == "impact", request.query.get("full") == "yes"
    kind = request.query.get("kind", "")

    def follow(**how: Any) -> LineageNode:
        return follow_line(
            request.project, request.store.catalog.reader, ref, forward=forward, full=full, **how
        )

    root = follow()
    listed = follow(runs_shown=MOST_RUNS) if kind == "run" and _omits(root) else root
    if forward:
        add_predictions(request.project, root)
    where = line_address(ref, direction) + ("&full=yes" if full else "")

    def rest(of: str, beneath: LineageNode) -> str:
        if of == "prediction":
            return f"/predictions?endpoint={quote(beneath.record.endpoint, safe='')}"
        return f"{where}&kind={of}#nodes"

    chart = draw_lineage(root, forward=forward, address=page_address, rest=rest)
    nodes = list({node_key(node): node for node in _walk(listed)}.values())
    kinds = dict.fromkeys(node.kind for node in nodes)
    table = Table(
        "nodes",
        (
            Column("kind", "Kind"),
            Column("name", "Name", link=lambda row: page_address(row["page"], row["ref"])),
            Column("facts", "What is known"),
            Column("ref", "Line", show=lambda row: _both_ways(row["ref"])),
        ),
        offset_source(lambda offset, limit, _: rows[offset : offset + limit], None),
        request,
        caption="Everything on this line",
    )
    rows = [_row(node, forward) for node in nodes if kind in ("", node.kind)]
    return View(
        "line.html",
        title=chart.title,
        values={
            "chart": show_chart(chart),
            "table": table,
            "kinds": list(kinds),
            "kind": kind,
            "direction": direction,
            "full": full,
            "ref": ref,
            "here": where,
            "typed": f"clewline {direction} {shell_quoted(ref)}{' --full' if full else ''}",
            "count": format_count(len(rows), kind or "thing"),
        },
    )


def _direction(request: PageRequest) -> str:
    direction = request.query.get("direction", "why")
    if direction not in ("why", "impact"):
        raise InvalidInput(
            f"A line leads back (why) or forward (impact), not {direction!r}.",
            "Write direction=why or direction=impact.",
        )
    return direction


def _walk(root: LineageNode) -> Iterator[LineageNode]:
    waiting = [root]
    while waiting:
        node = waiting.pop(0)
        yield node
        waiting += node.children


def _omits(root: LineageNode) -> bool:
    return any(node.omitted for node in _walk(root))


def _row(node: LineageNode, forward: bool) -> Mapping[str, Any]:
    title, facts = node_text(node, forward=forward)
    return {
        "kind": node.kind,
        "name": title,
        "facts": "; ".join(f"{name} {text}".strip() for name, text in facts),
        "ref": node.ref,
        "page": "artifact" if node.kind == "data" else node.kind,
    }


def _both_ways(ref: str) -> Content:
    return [
        element("a", "why", href=line_address(ref, "why"), aria_label=f"What made {ref}"),
        " ",
        element("a", "impact", href=line_address(ref, "impact"), aria_label=f"What came of {ref}"),
    ]
