"""A record as a node of the line: its title and the facts that a person looks for."""

from __future__ import annotations

from typing import Any

import msgspec

from clewline.errors import NotFound
from clewline.store.phrases import counted, duration, named, number, short, size, some, when
from clewline.store.reader import CatalogReader
from clewline.store.records import (
    Alias,
    Artifact,
    ArtifactUse,
    Edge,
    LiveRevision,
    ModelVersion,
    Revision,
    Run,
    SeenFile,
    StepRun,
)
from clewline.store.rows import R


class Node(msgspec.Struct):
    """One thing on the line, and what it leads to."""

    ref: str  # what `why` and `impact` take to go on from here
    kind: str
    title: str
    facts: list[tuple[str, str]] = []
    children: list[Node] = []


def revision_node(reader: CatalogReader, revision: Revision) -> Node:
    """An endpoint's revision, and whether it is the one that answers."""
    text = revision.ref
    live = reader.get(LiveRevision, revision.endpoint)
    state = "not live"
    if live is not None and live.number == revision.number:
        state = f"live since {when(live.moved)}"
    elif live is not None:
        state = f"not live, {revision.endpoint}#{live.number} is"
    facts = [("applied", f"{when(revision.created)}, {state}")]
    if revision.graph:
        facts.append(("graph", some(graph_parts(revision.graph))))
    accepted = revision.accepted.get("fields", {})
    if accepted:
        limits = (f"{name} {_limits(limit)}" for name, limit in accepted.items())
        facts.append(("accepted", some(limits)))
    return Node(ref=text, kind="revision", title=text, facts=facts)


def model_node(reader: CatalogReader, version: ModelVersion) -> Node:
    """A model version: how it is served, how good it is, which aliases it holds."""
    text = version.ref
    aliases = [
        alias.alias
        for alias in reader.find(Alias, name=version.name, limit=None)
        if alias.number == version.number
    ]
    now = f", now {some(aliases)}" if aliases else ""
    facts = [
        ("registered", f"{when(version.created)}{now}"),
        ("served by", f"{version.runtime}, {_equality(version.equality)}"),
    ]
    if version.metrics:
        facts.append(("metrics", _metrics(version.metrics)))
    return Node(ref=text, kind="model", title=text, facts=facts)


def run_node(reader: CatalogReader, run: Run, *, beside: ModelVersion | None = None) -> Node:
    """A run: params, metrics (unless they stand `beside` it on its version), time."""
    seed = [f"seed {run.seed}"] if run.seed is not None and "seed" not in run.params else []
    facts = [("params", ", ".join([*([named(run.params)] if run.params else []), *seed]) or "none")]
    if run.metrics and (beside is None or run.metrics != beside.metrics):
        facts.append(("metrics", _metrics(run.metrics)))
    steps = counted(reader.count(StepRun, run=run.id), "step")
    cached = reader.count(StepRun, run=run.id, status="cached")
    took = f" in {duration(run.ended - run.started)}" if run.ended else ""
    remembered = f", {cached} from the cache" if cached else ""
    facts.append((run.status, f"{when(run.started)}, {steps}{took}{remembered}"))
    if run.error:
        told = f"{run.error['type']}: {run.error['message']}"
        facts.append(("error", told.partition("\n")[0]))
    if run.replay_of:
        facts.append(("replay of", run.replay_of))
    return Node(ref=run.id, kind="run", title=f"{run.id}  {run.pipeline}", facts=facts)


def code_node(run: Run) -> Node:
    title = f"commit {run.commit[:12]}" if run.commit else "without a Git commit"
    changed = some(run.changed, 5) if run.changed else "none, as committed"
    facts = [("changed files", changed)] if run.commit or run.changed else []
    if run.snapshot:
        facts.append(("snapshot", short(run.snapshot)))
    return Node(ref=run.snapshot or run.id, kind="code", title=title, facts=facts)


def step_node(step: StepRun) -> Node:
    plain = {
        name: given["value"]
        for name, given in step.inputs.items()
        if isinstance(given, dict) and "value" in given
    }
    facts = [("params", named(plain))] if plain else []
    if step.metrics:
        facts.append(("metrics", _metrics(step.metrics)))
    if step.cached_from:
        facts.append(("cached from", step.cached_from))
    elif step.wall_s is not None:
        facts.append((step.status, f"in {duration(step.wall_s)}"))
    else:
        facts.append(("status", step.status))
    return Node(ref=step.id, kind="step", title=step.id, facts=facts)


def data_node(reader: CatalogReader, digest: str) -> Node:
    artifact = reader.get(Artifact, digest)
    facts = [("digest", short(digest))]
    if artifact is not None:
        content = f"{short(digest)}, {size(artifact.size_bytes)}"
        facts = [*shape_facts(artifact), ("digest", content)]
    seen = _paths(reader, digest)
    title = some(seen, 2) if seen else (artifact.kind if artifact else "data")
    return Node(ref=digest, kind="data" if seen else "artifact", title=title, facts=facts)


def function_node(revision: Revision) -> Node:
    """The state of the code that the functions of a revision's graph are of."""
    facts = [("snapshot", short(revision.code or ""))]
    title = some(functions_of(revision.graph), 4)
    return Node(ref=revision.code or "", kind="code", title=title, facts=facts)


def functions_of(tree: Any) -> list[str]:
    """The functions that a graph names, however deep, each once."""
    found: dict[str, None] = {}
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if key == "function" and isinstance(value, str):
            found[value] = None
        found |= dict.fromkeys(functions_of(value))
    return list(found)


def graph_parts(tree: dict[str, Any]) -> list[str]:
    """
    What a graph does, its nodes from the top, without its models.

    >>> graph_parts({"kind": "route", "how": "weights", "arms": {"a": {"kind": "model"}}})
    ['route weights']
    """
    kind = tree.get("kind")
    own = []
    if isinstance(kind, str) and kind != "model":
        own.append(" ".join(part for part in (kind, tree.get("how")) if isinstance(part, str)))
    below = (value for value in tree.values() if isinstance(value, dict))
    return own + [part for value in below for part in graph_parts(value)]


def snapshot_node(reader: CatalogReader, digest: str) -> Node:
    runs = reader.find(Run, snapshot=digest, order="started", limit=1)
    if not runs:
        served = revisions_with(reader, digest)
        if not served:
            raise NotFound(f"No run and no revision has the code snapshot {digest}.")
        return function_node(served[0])
    node = code_node(runs[0])
    count = reader.count(Run, snapshot=digest)
    node.facts.append(("runs", f"{count}, the first {when(runs[0].started)}"))
    return node


def revisions_with(reader: CatalogReader, code: str) -> list[Revision]:
    """The revisions whose functions are of a state of the code, the first that used it first."""
    edges = reader.find(Edge, source=f"code:{code}", limit=None)
    targets = (edge.target for edge in edges if edge.target.startswith("revision:"))
    names = [target.removeprefix("revision:") for target in targets]
    return sorted((revision_of(reader, name) for name in names), key=lambda each: each.created)


def table_facts(reader: CatalogReader, step: str) -> list[tuple[str, str]]:
    """The tables that a version was trained and tested on, from its register step."""
    parts = []
    for parameter, verb in (("train", "trained"), ("test", "tested")):
        for use in reader.find(ArtifactUse, step_run=step, role=f"input:{parameter}", limit=1):
            artifact = reader.get(Artifact, use.artifact)
            if artifact is not None and artifact.rows is not None:
                rows = counted(artifact.rows, "row")
                parts.append(f"{verb} on {rows} ({short(artifact.digest)})")
    return [("tables", ", ".join(parts))] if parts else []


def _limits(accepted: dict[str, Any]) -> str:
    """What a person accepted for a field: bounds, levels or both."""
    bounds, levels = accepted.get("bounds"), accepted.get("levels")
    parts = [f"{bounds[0]} to {bounds[1]}"] if bounds else []
    return " and ".join([*parts, counted(len(levels), "level")] if levels else parts)


def _paths(reader: CatalogReader, digest: str) -> list[str]:
    return list(
        dict.fromkeys(seen.path for seen in reader.find(SeenFile, digest=digest, limit=None))
    )


def shape_facts(artifact: Artifact) -> list[tuple[str, str]]:
    if artifact.rows is None:
        return []
    columns = f" × {counted(artifact.columns, 'column')}" if artifact.columns is not None else ""
    return [("rows", f"{counted(artifact.rows, 'row')}{columns}")]


def _equality(record: dict[str, Any]) -> str:
    """The record of the equality test in half a line."""
    if record.get("reason") or not record.get("held"):
        reason = record.get("reason") or "not compiled"
        return (
            reason
            if reason.startswith("a Python class")
            else f"in the library's own form: {reason}"
        )
    rows = int(record.get("rows", 0)) + int(record.get("made_rows", 0))
    most = float(record.get("max_difference", 0.0))
    apart = f"no number off by more than {number(most)}" if most else "nothing differing"
    return f"held equal on {counted(rows, 'row')}, {apart}"


def _metrics(metrics: dict[str, float]) -> str:
    return some(f"{name} {number(value)}" for name, value in metrics.items())


def revision_of(reader: CatalogReader, text: str) -> Revision:
    endpoint, _, rest = text.rpartition("#")
    return one(reader, Revision, endpoint, int(rest))


def version_of(reader: CatalogReader, text: str) -> ModelVersion:
    name, _, rest = text.rpartition("@")
    return one(reader, ModelVersion, name, int(rest))


def one(reader: CatalogReader, kind: type[R], *key: Any) -> R:
    record = reader.get(kind, *key)
    if record is None:
        raise NotFound(
            f"The catalog has no {kind.__name__} {' '.join(map(str, key))}, which the line names.",
            "`clewline doctor` checks the store.",
        )
    return record
