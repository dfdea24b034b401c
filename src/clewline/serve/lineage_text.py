"""The nodes of a lineage, and the answers of predictions, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

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
from clewline.model.sealed_changes import SealedChange
from clewline.store.lineage import LineageNode
from clewline.store.records import Artifact, ExplanationRecord, ModelVersion, Revision, Run, StepRun

if TYPE_CHECKING:
    from clewline.serve.log.frame import RouteChoice
    from clewline.serve.prediction_lineage import PredictionDetails

FIELDS_SHOWN = 5

Facts = dict[str, Any]
FactTexts = list[tuple[str, str]]
"""Names of facts and their texts; a fact without a name stands alone."""


class NodeText(NamedTuple):
    """A node in words."""

    title: str
    facts: FactTexts


def node_text(node: LineageNode, *, forward: bool = False, full: bool = False) -> NodeText:
    """
    Write a node in words.

    Args:
        node: Of any kind.
        forward: Whether it stands in the answer to `impact`.
        full: Whether to show every field of a prediction's row.
    """
    record, facts = node.record, node.facts
    match node.kind:
        case "explanation":
            return _explanation(record, facts)
        case "prediction":
            return _prediction(record, facts, full)
        case "revision":
            return NodeText(node.ref, _revision(record, facts, forward))
        case "model":
            return NodeText(node.ref, _model(record, facts))
        case "run":
            return NodeText(f"{node.ref}  {record.pipeline}", _run(record, facts))
        case "step":
            return NodeText(node.ref, _step(record, facts))
        case "code":
            return _code(facts)
        case "data" | "artifact":
            return _artifact(node, record, facts)


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


def _explanation(record: ExplanationRecord, facts: Facts) -> NodeText:
    texts = [("id", record.id), ("options", format_values(record.options) or "none")]
    texts.append(("of", f"{record.model} in {record.revision}"))
    took = f"in {format_duration(record.seconds)}"
    texts.append(("made", f"{format_time(record.created)} by {record.made_by}, {took}"))
    if (missing := facts.get("missing")) is not None:
        texts.append(("prediction", f"{record.prediction}: {missing}"))
    return NodeText(f"{record.kind}, {record.status}", texts)


def _prediction(record: PredictionDetails, facts: Facts, full: bool) -> NodeText:
    answer, row = msgspec.json.decode(record.answer), msgspec.json.decode(record.input)
    texts = [("row", format_values(row, len(row) if full else FIELDS_SHOWN))]
    if shares := answer.get("probabilities"):
        texts.append(("probabilities", format_values(shares)))
    texts += [("flag", _flag(flag)) for flag in answer.get("flags", ())]
    if record.entity is not None:
        texts.append(("about", record.entity))
    texts.append(("answered", format_time_ms(record.time)))
    texts += [("arm", choice_text(choice)) for choice in record.choices]
    is_alone = record.batch_rows == 1
    place = "alone" if is_alone else f"row {record.batch_row + 1} of {record.batch_rows}"
    texts.append(("batch", f"{place}, {path_text(record.path)}"))
    texts += [("shadow", shadow_text(*each)) for each in record.shadows.items()]
    texts += [
        ("explained", f"{each.kind}, {each.status}, {format_time(each.created)}: {each.id}")
        for each in facts.get("explanations", ())
    ]
    return NodeText(answer_text(answer), texts)


def path_text(path: list[tuple[str, float]]) -> str:
    """Write the nodes that a row went through, with their times."""
    return format_list(f"{node} {spent_us:.0f} µs" for node, spent_us in path)


def _flag(flag: dict[str, Any]) -> str:
    bounds = flag.get("bounds")
    if bounds is not None:
        return f"{flag['field']} {flag['value']} is {flag['flag']} {bounds}"
    levels = format_count(len(flag.get("levels") or ()), "level")
    return f"{flag['field']} {flag['value']!r} is an {flag['flag']} ({levels} known)"


def _revision(revision: Revision, facts: Facts, forward: bool) -> FactTexts:
    live, state = facts.get("live"), "not live"
    if live == revision.ref:
        state = f"live since {format_time(facts['live_since'])}"
    elif live is not None:
        state = f"not live; {live} is"
    texts = [("applied", f"{format_time(revision.created)}, {state}")]
    if revision.graph:
        texts.append(("graph", format_list(graph_parts(revision.graph))))
    if accepted := revision.accepted.get("fields"):
        limits = (f"{name} {limits_text(limit)}" for name, limit in accepted.items())
        texts.append(("accepted", format_list(limits)))
    if forward:
        texts.append(("answers", f"`clewline predictions list --endpoint {revision.endpoint}`"))
    return texts + _changed(facts) + _explained(facts)


def _changed(facts: Facts) -> FactTexts:
    """Write who changed it and why."""
    return [("changed", change_text(change)) for change in facts.get("changes", ())]


def change_text(change: SealedChange) -> str:
    """
    Write what a person has changed.

    >>> change_text(SealedChange(seq=1, kind="promoted", refs=["a@2"], alias="champion",
    ...     person="anna", user="ops@host", reason="Better on all groups", created=0.0))
    '1970-01-01 00:00 UTC, made champion by anna: Better on all groups'
    """
    what = {
        "promoted": f"made {change.alias}",
        "applied": "applied",
        "rolled_back": "made live again",
        "token_added": "added",
        "token_revoked": "revoked",
    }[change.kind]
    why = f": {change.reason}" if change.reason else ""
    is_named = change.person and change.person != "local"  # nobody logs in on loopback
    who = change.person if is_named else change.user
    return f"{format_time(change.created)}, {what} by {who}{why}"


def _explained(facts: Facts) -> FactTexts:
    count = facts.get("explanations")
    return [("explained", format_count(count, "explanation"))] if count else []


def limits_text(accepted: dict[str, Any]) -> str:
    """Return the accepted bounds and levels of a field as text."""
    bounds, levels = accepted.get("bounds"), accepted.get("levels")
    parts = [f"{bounds[0]} to {bounds[1]}"] if bounds else []
    return " and ".join([*parts, format_count(len(levels), "level")] if levels else parts)


def _model(version: ModelVersion, facts: Facts) -> FactTexts:
    aliases = f", now {format_list(facts['aliases'])}" if facts["aliases"] else ""
    texts = [
        ("registered", f"{format_time(version.created)}{aliases}"),
        ("served by", f"{version.runtime}, {_equality(version.equality)}"),
    ]
    if version.metrics:
        texts.append(("metrics", _metrics(version.metrics)))
    tables = [
        f"{verb} on {format_count(table['rows'], 'row')} ({short_digest(table['digest'])})"
        for name, verb in (("train", "trained"), ("test", "tested"))
        if (table := facts.get(name)) is not None
    ]
    if tables:
        texts.append(("tables", ", ".join(tables)))
    return texts + _changed(facts) + _explained(facts)


def _equality(record: dict[str, Any]) -> str:
    """Write the record of the equality check in half a line."""
    reason = record.get("reason")
    if reason or not record.get("verified"):
        return f"not compiled: {reason}" if reason else "not compiled"
    rows = int(record.get("rows", 0)) + int(record.get("synthetic_rows", 0))
    most = float(record.get("max_difference", 0.0))
    apart = f"no number off by more than {format_number(most)}" if most else "no difference"
    return f"verified equal on {format_count(rows, 'row')}, {apart}"


def _run(run: Run, facts: Facts) -> FactTexts:
    params = [format_values(run.params)] if run.params else []
    if run.seed is not None and "seed" not in run.params:
        params.append(f"seed {run.seed}")
    texts = [("params", ", ".join(params) or "none")]
    if run.metrics and not facts.get("same_metrics"):
        texts.append(("metrics", _metrics(run.metrics)))
    took = f" in {format_duration(run.ended - run.started)}" if run.ended else ""
    cached = f", {facts['cached_steps']} from the cache" if facts["cached_steps"] else ""
    steps = format_count(facts["steps"], "step")
    texts.append((run.status, f"{format_time(run.started)}, {steps}{took}{cached}"))
    if run.error:
        error = f"{run.error['type']}: {run.error['message']}"
        texts.append(("error", error.partition("\n")[0]))
    if run.replay_of:
        texts.append(("replay of", run.replay_of))
    return texts


def _step(step: StepRun, facts: Facts) -> FactTexts:
    if facts.get("repeated"):
        return [("", "shown elsewhere in this tree")]
    inputs = ((name, value) for name, value in step.inputs.items() if isinstance(value, dict))
    params = {name: value["value"] for name, value in inputs if "value" in value}
    texts = [("params", format_values(params))] if params else []
    if step.metrics:
        texts.append(("metrics", _metrics(step.metrics)))
    if step.cached_from:
        texts.append(("cached from", step.cached_from))
    elif step.wall_s is not None:
        texts.append((step.status, f"in {format_duration(step.wall_s)}"))
    else:
        texts.append(("status", step.status))
    return texts


def _code(facts: Facts) -> NodeText:
    texts: FactTexts = []
    commit, changed = facts.get("commit"), facts.get("changed")
    title = f"commit {commit[:12]}" if commit else "without a Git commit"
    if facts.get("functions"):
        title = format_list(facts["functions"], 4)
    elif commit or changed:
        files = format_list(changed, 5) if changed else "none, as committed"
        texts.append(("changed files", files))
    if facts.get("snapshot"):
        texts.append(("snapshot", short_digest(facts["snapshot"])))
    if "runs" in facts:
        texts.append(("runs", f"{facts['runs']}, the first {format_time(facts['first_run'])}"))
    return NodeText(title, texts)


def _artifact(node: LineageNode, artifact: Artifact | None, facts: Facts) -> NodeText:
    texts: FactTexts = []
    if (read := facts.get("read")) is not None:
        text = f"{read.path} as the newest run read it"
        if read.changed:
            text += "; the file has changed since"
        if read.earlier:
            text += f"; earlier runs read {read.earlier} other contents there"
        texts.append(("", text))
    rows = facts.get("rows", artifact and artifact.rows)
    columns = facts.get("columns", artifact and artifact.columns)
    if rows is not None:
        by = f" × {format_count(columns, 'column')}" if columns is not None else ""
        texts.append(("rows", f"{format_count(rows, 'row')}{by}"))
    size = f", {format_size(artifact.size_bytes)}" if artifact is not None else ""
    texts.append(("digest", f"{short_digest(node.ref)}{size}"))
    title = artifact.kind if artifact is not None else "data"
    if facts.get("paths"):
        title = format_list(facts["paths"], 2)
    elif node.kind == "data":
        return NodeText(f"made by {facts['made_by']}", texts)
    if "made_by" in facts:
        texts.append(("made by", facts["made_by"]))
    if facts.get("taken_by") == 0:
        texts.append(("taken by", "no step"))
    return NodeText(title, texts)


def _metrics(metrics: Mapping[str, float]) -> str:
    return format_list(f"{name} {_number(value)}" for name, value in metrics.items())


def _number(value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return format_number(value) if is_number else _json(value)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
