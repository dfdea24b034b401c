"""The nodes of a lineage, and the answers of predictions, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from clewline.formatting import (
    format_count,
    format_duration,
    format_list,
    format_number,
    format_size,
    format_time,
    format_time_ms,
    format_values,
    short_digest,
)
from clewline.store.lineage import (
    ArtifactNode,
    CodeNode,
    LineageNode,
    ModelNode,
    RevisionNode,
    RunNode,
    StepNode,
)

if TYPE_CHECKING:
    from clewline.serve.log.frame import RouteChoice
    from clewline.serve.prediction_lineage import PredictionNode

FIELDS_SHOWN = 5

Facts = list[tuple[str, str]]
"""Names of facts and their texts; a fact without a name stands alone."""


class NodeText(NamedTuple):
    """A node in words."""

    title: str
    facts: Facts


def node_text(node: LineageNode, *, forward: bool = False, full: bool = False) -> NodeText:
    """
    Write a node in words.

    Args:
        node: Of any kind.
        forward: Whether it stands in the answer to `impact`.
        full: Whether to show every field of a prediction's row.
    """
    if node.kind == "prediction":
        return _prediction(cast("PredictionNode", node), full)
    write: dict[str, Callable[..., NodeText]] = {
        "revision": _revision,
        "model": _model,
        "run": _run,
        "step": _step,
        "code": _code,
        "data": _artifact,
        "artifact": _artifact,
    }
    title, facts = write[node.kind](node)
    if node.kind == "revision" and forward:
        endpoint = node.ref.rpartition("#")[0]
        facts.append(("answers", f"`clewline predictions list --endpoint {endpoint}`"))
    return NodeText(title, facts)


def answer_text(answer: dict[str, Any]) -> str:
    """
    Write an answer in a few words.

    >>> answer_text({"label": "<=50K", "probabilities": {"<=50K": 0.97, ">50K": 0.03}})
    '<=50K (0.97)'
    >>> answer_text({"value": 12.3}), answer_text({"value": None})
    ('12.3', 'null')
    """
    if "error" in answer:
        return f"failed: {answer['error']['message']}"
    if "label" not in answer:
        return _number(answer.get("value"))
    label = answer["label"]
    key = label if isinstance(label, str) else _json(label)
    share = (answer.get("probabilities") or {}).get(key)
    return key if share is None else f"{key} ({_number(share)})"


def shadow_text(name: str, shadow: dict[str, Any]) -> str:
    """
    Write what a shadow answered in a few words.

    >>> shadow_text("candidate", {"model": "a@2", "value": 2, "agrees": False, "difference": 0.5})
    'candidate (a@2) differs by 0.5: 2'
    """
    if "error" in shadow:
        return f"{name} failed: {shadow['error']}"
    verb = "agrees" if shadow["agrees"] else "differs"
    difference = f" by {_number(shadow['difference'])}" if shadow["difference"] else ""
    return f"{name} ({shadow['model']}) {verb}{difference}: {answer_text(shadow)}"


def choice_text(choice: RouteChoice) -> str:
    """Write what a route chose: `challenger by route, propensity 0.1`."""
    state = f", state {choice.state}" if choice.state else ""
    return f"{choice.arm} by {choice.node}, propensity {format_number(choice.propensity)}{state}"


def graph_parts(tree: dict[str, Any]) -> list[str]:
    """
    List what a graph does, its nodes from the top, without its models.

    >>> graph_parts({"kind": "route", "how": "weights", "arms": {"a": {"kind": "model"}}})
    ['route weights']
    """
    kind = tree.get("kind")
    own = []
    if isinstance(kind, str) and kind != "model":
        own.append(" ".join(part for part in (kind, tree.get("how")) if isinstance(part, str)))
    below = (value for value in tree.values() if isinstance(value, dict))
    return own + [part for value in below for part in graph_parts(value)]


def _prediction(node: PredictionNode, full: bool) -> NodeText:
    answer, row = msgspec.json.decode(node.answer), msgspec.json.decode(node.row)
    facts = [("row", format_values(row, len(row) if full else FIELDS_SHOWN))]
    if shares := answer.get("probabilities"):
        facts.append(("probabilities", format_values(shares)))
    facts += [("flag", _flag(flag)) for flag in answer.get("flags", ())]
    if node.entity is not None:
        facts.append(("about", node.entity))
    facts.append(("answered", format_time_ms(node.answered)))
    facts += [("arm", choice_text(choice)) for choice in node.choices]
    place = f"row {node.batch_row + 1} of {node.batch_rows}" if node.batch_rows > 1 else "alone"
    facts.append(("batch", f"{place}, {path_text(node.path)}"))
    facts += [("shadow", shadow_text(*each)) for each in node.shadows.items()]
    return NodeText(answer_text(answer), facts)


def path_text(path: list[tuple[str, float]]) -> str:
    """Write the nodes that a row went through, with their times."""
    return format_list(f"{node} {spent_us:.0f} µs" for node, spent_us in path)


def _flag(flag: dict[str, Any]) -> str:
    bounds = flag.get("bounds")
    if bounds is not None:
        return f"{flag['field']} {flag['value']} is {flag['flag']} {bounds}"
    levels = format_count(len(flag.get("levels") or ()), "level")
    return f"{flag['field']} {flag['value']!r} is an {flag['flag']} ({levels} known)"


def _revision(node: RevisionNode) -> NodeText:
    state = "not live"
    if node.live == node.ref:
        state = f"live since {format_time(node.live_since or 0.0)}"
    elif node.live is not None:
        state = f"not live; {node.live} is"
    facts = [("applied", f"{format_time(node.created)}, {state}")]
    if node.graph:
        facts.append(("graph", format_list(graph_parts(node.graph))))
    if node.accepted:
        limits = (f"{name} {_limits(limit)}" for name, limit in node.accepted.items())
        facts.append(("accepted", format_list(limits)))
    return NodeText(node.ref, facts)


def _limits(accepted: dict[str, Any]) -> str:
    bounds, levels = accepted.get("bounds"), accepted.get("levels")
    parts = [f"{bounds[0]} to {bounds[1]}"] if bounds else []
    return " and ".join([*parts, format_count(len(levels), "level")] if levels else parts)


def _model(node: ModelNode) -> NodeText:
    aliases = f", now {format_list(node.aliases)}" if node.aliases else ""
    facts = [
        ("registered", f"{format_time(node.created)}{aliases}"),
        ("served by", f"{node.runtime}, {_equality(node.equality)}"),
    ]
    if node.metrics:
        facts.append(("metrics", _metrics(node.metrics)))
    tables = [
        f"{verb} on {format_count(table.rows, 'row')} ({short_digest(table.digest)})"
        for name, verb in (("train", "trained"), ("test", "tested"))
        if (table := node.tables.get(name)) is not None
    ]
    if tables:
        facts.append(("tables", ", ".join(tables)))
    return NodeText(node.ref, facts)


def _equality(record: dict[str, Any]) -> str:
    """Write the record of the equality check in half a line."""
    reason = record.get("reason")
    if reason or not record.get("verified"):
        return f"not compiled: {reason}" if reason else "not compiled"
    rows = int(record.get("rows", 0)) + int(record.get("synthetic_rows", 0))
    most = float(record.get("max_difference", 0.0))
    apart = f"no number off by more than {format_number(most)}" if most else "no difference"
    return f"verified equal on {format_count(rows, 'row')}, {apart}"


def _run(node: RunNode) -> NodeText:
    params = [format_values(node.params)] if node.params else []
    if node.seed is not None and "seed" not in node.params:
        params.append(f"seed {node.seed}")
    facts = [("params", ", ".join(params) or "none")]
    if node.metrics:
        facts.append(("metrics", _metrics(node.metrics)))
    took = f" in {format_duration(node.ended - node.started)}" if node.ended else ""
    cached = f", {node.cached_steps} from the cache" if node.cached_steps else ""
    steps = format_count(node.steps, "step")
    facts.append((node.status, f"{format_time(node.started)}, {steps}{took}{cached}"))
    if node.error:
        error = f"{node.error['type']}: {node.error['message']}"
        facts.append(("error", error.partition("\n")[0]))
    if node.replay_of:
        facts.append(("replay of", node.replay_of))
    return NodeText(f"{node.ref}  {node.pipeline}", facts)


def _step(node: StepNode) -> NodeText:
    if node.repeated:
        return NodeText(node.ref, [("", "drawn elsewhere in this tree")])
    facts = [("params", format_values(node.params))] if node.params else []
    if node.metrics:
        facts.append(("metrics", _metrics(node.metrics)))
    if node.cached_from:
        facts.append(("cached from", node.cached_from))
    elif node.wall_s is not None:
        facts.append((node.status, f"in {format_duration(node.wall_s)}"))
    else:
        facts.append(("status", node.status))
    return NodeText(node.ref, facts)


def _code(node: CodeNode) -> NodeText:
    facts: Facts = []
    if node.functions:
        title = format_list(node.functions, 4)
    else:
        title = f"commit {node.commit[:12]}" if node.commit else "without a Git commit"
        if node.commit or node.changed:
            changed = format_list(node.changed, 5) if node.changed else "none, as committed"
            facts.append(("changed files", changed))
    if node.snapshot:
        facts.append(("snapshot", short_digest(node.snapshot)))
    if node.runs is not None:
        facts.append(("runs", f"{node.runs}, the first {format_time(node.first_run or 0.0)}"))
    return NodeText(title, facts)


def _artifact(node: ArtifactNode) -> NodeText:
    is_made_data = node.kind == "data" and not node.paths and node.made_by
    title = format_list(node.paths, 2) or node.artifact_kind or "data"
    facts: Facts = []
    if node.read is not None:
        facts.append(("", _read(node)))
    if node.rows is not None:
        columns = f" × {format_count(node.columns, 'column')}" if node.columns is not None else ""
        facts.append(("rows", f"{format_count(node.rows, 'row')}{columns}"))
    size = f", {format_size(node.size_bytes)}" if node.size_bytes is not None else ""
    facts.append(("digest", f"{short_digest(node.digest)}{size}"))
    if is_made_data:
        title = f"made by {node.made_by}"
    elif node.made_by:
        facts.append(("made by", node.made_by))
    if node.taken_by == 0:
        facts.append(("taken by", "no step"))
    return NodeText(title, facts)


def _read(node: ArtifactNode) -> str:
    assert node.read is not None
    text = f"{node.read.path} as the newest run read it"
    if node.read.changed:
        text += "; the file has changed since"
    if node.read.earlier:
        text += f"; earlier runs read {node.read.earlier} other contents there"
    return text


def _metrics(metrics: Mapping[str, float]) -> str:
    return format_list(f"{name} {_number(value)}" for name, value in metrics.items())


def _number(value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return format_number(value) if is_number else _json(value)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
