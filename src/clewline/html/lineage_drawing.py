"""The line of a thing as a drawing: what made it, or what came of it, folded where it grows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from clewline.formatting import format_count, format_duration, format_time
from clewline.html.charts import Chart, Tone
from clewline.html.graph_drawing import DrawnEdge, DrawnNode, draw_graph
from clewline.serve.lineage_text import answer_text, node_text
from clewline.store.lineage import LineageNode

SIBLINGS_DRAWN = 6
"""Nodes of one kind beneath one node; of more, the first five are drawn and the rest counted."""

TONES: Mapping[str, Tone] = {
    "explanation": "plain",
    "prediction": "model",
    "revision": "fourth",
    "model": "good",
    "run": "other",
    "step": "other",
    "code": "plain",
    "data": "third",
    "artifact": "third",
}

Address = Callable[[str, str], str | None]
"""Kind and id of a record → where its page stands; None if it has none."""


def draw_lineage(
    root: LineageNode,
    *,
    forward: bool = False,
    address: Address,
    rest: Callable[[str, LineageNode], str] | None = None,
) -> Chart:
    """
    Draw a lineage, whose arrows lead from what went in to what came of it.

    Args:
        root: From `store.lineage` or `serve.prediction_lineage`.
        forward: Whether it is the answer to `impact`.
        address: Where a node leads to.
        rest: A kind of nodes and what they stand beneath → where the list of all of them
            stands, which the folded ones lead to.
    """
    drawn: dict[str, DrawnNode] = {}
    edges: dict[tuple[str, str], None] = {}
    waiting = [root]
    while waiting:
        node = waiting.pop(0)
        key = node_key(node)
        if key in drawn:
            continue
        drawn[key] = _drawn(node, forward, address, is_asked=node is root)
        shown, folded = _folded(node)
        waiting += shown
        for child in shown:
            edges[key, node_key(child)] = None
        for kind, (text, *notes) in folded.items():
            more = f"{key} more {kind}"
            where = rest(kind, node) if rest is not None else None
            notes += ["open as a list"] if where else []
            drawn[more] = DrawnNode(more, kind, text, notes, where, TONES[kind], is_dashed=True)
            edges[key, more] = None
    ends = list(edges) if forward else [(child, key) for key, child in edges]
    title = f"What came of {_name(root)}" if forward else f"What made {_name(root)}"
    return draw_graph(
        title,
        lineage_sentence(root, forward=forward),
        list(drawn.values()),
        [DrawnEdge(source, target) for source, target in ends if source != target],
    )


def node_key(node: LineageNode) -> str:
    """Return what two nodes of a lineage share if they are the same thing."""
    return f"{node.kind} {node.ref}"


def lineage_sentence(root: LineageNode, *, forward: bool = False) -> str:
    """Say in one sentence what a lineage holds."""
    waiting, seen = [root], dict[str, LineageNode]()
    while waiting:
        node = waiting.pop()
        if node_key(node) not in seen:
            seen[node_key(node)] = node
            waiting += node.children
    counts = Counter(str(node.kind) for node in seen.values())
    counts[root.kind] -= 1
    counts["run"] += sum(node.omitted for node in seen.values())
    named = {
        kind: kind if kind in ("code", "data") else format_count(counts[kind], kind)
        for kind in TONES
        if counts[kind] > 0
    }
    looked_at = max(node.facts.get("looked_at", 0) for node in seen.values())
    if looked_at:
        found = sum(node.facts.get("predictions", 0) for node in seen.values())
        named["prediction"] = f"{found:,} of the newest {format_count(looked_at, 'prediction')}"
    if not named:
        return (
            f"Nothing has come of {_name(root)} yet."
            if forward
            else f"Nothing is recorded of what made {_name(root)}."
        )
    *most, last = named.values()
    listed = f"{', '.join(most)} and {last}" if most else last
    return (
        f"{listed[0].upper()}{listed[1:]} {'came' if forward else 'stand'} "
        f"{'of' if forward else 'behind'} {_name(root)}. Arrows lead from what went in to what "
        "came of it."
    )


def _name(node: LineageNode) -> str:
    ref = node.ref if len(node.ref) <= 40 else f"{node.ref[:12]}…"
    return ref if node.kind in ("model", "revision") else f"{node.kind} {ref}"


def _folded(node: LineageNode) -> tuple[list[LineageNode], dict[str, list[str]]]:
    """Return the children that are drawn, and for each kind with more of them, how many more."""
    counts = Counter(child.kind for child in node.children)
    shown: list[LineageNode] = []
    placed: Counter[str] = Counter()
    for child in node.children:
        room = SIBLINGS_DRAWN if counts[child.kind] <= SIBLINGS_DRAWN else SIBLINGS_DRAWN - 1
        if placed[child.kind] < room:
            shown.append(child)
        placed[child.kind] += 1
    drawn = Counter(child.kind for child in shown)
    more = {kind: count - drawn[kind] for kind, count in counts.items() if count > drawn[kind]}
    if node.omitted:
        more["run"] = more.get("run", 0) + node.omitted
    folded = {str(kind): [format_count(count, f"more {kind}")] for kind, count in more.items()}
    if (found := node.facts.get("predictions", 0)) > drawn["prediction"]:
        of = f"{drawn['prediction']} of {found:,} are shown"
        folded["prediction"] = [of, f"from the newest {node.facts['looked_at']:,} of all"]
    return shown, folded


def _drawn(node: LineageNode, forward: bool, address: Address, *, is_asked: bool) -> DrawnNode:
    title, facts = node_text(node, forward=forward)
    label, notes = _box_text(node, title)
    details = "; ".join(f"{name} {text}".strip() for name, text in facts)
    kind = "artifact" if node.kind == "data" else node.kind
    return DrawnNode(
        node_key(node),
        node.kind,
        label,
        [note for note in notes if note],
        address(kind, node.ref),
        TONES[node.kind],
        is_asked=is_asked,
        details=details,
    )


def _box_text(node: LineageNode, title: str) -> tuple[str, list[str]]:
    """Return a name and short notes; the table has all facts."""
    record: Any = node.record
    facts = node.facts
    match node.kind:
        case "prediction":
            answer = answer_text(_answer(record))
            return answer, [_short(record.id), f"arm {record.arm}" if record.arm else ""]
        case "revision":
            live = facts.get("live")
            state = "live" if live == node.ref else "not live"
            return node.ref, [state, f"applied {format_time(record.created)}"]
        case "model":
            aliases = ", ".join(facts.get("aliases", ()))
            return node.ref, [aliases, f"{record.task}, {record.runtime}"]
        case "run":
            took = f" in {format_duration(record.ended - record.started)}" if record.ended else ""
            return record.pipeline, [node.ref, f"{record.status}{took}"]
        case "step":
            took = "" if record.wall_s is None else f" in {format_duration(record.wall_s)}"
            return record.label, [f"{record.status}{took}"]
        case "code":
            changed = facts.get("changed")
            return title, [format_count(len(changed), "changed file") if changed else ""]
        case "data" | "artifact":
            rows = facts.get("rows", record and record.rows)
            columns = facts.get("columns", record and record.columns)
            size = f"{rows:,} rows" if rows is not None else ""
            size += f" × {columns}" if size and columns is not None else ""
            return title.rpartition("/")[2] or title, [size, _short(node.ref)]
        case _:
            return title, [_short(node.ref)]


def _answer(record: Any) -> dict[str, Any]:
    answer: dict[str, Any] = msgspec.json.decode(record.answer)
    return answer


def _short(identifier: str) -> str:
    return identifier if len(identifier) <= 16 else f"{identifier[:8]}…{identifier[-4:]}"
