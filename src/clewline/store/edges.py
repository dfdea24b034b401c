"""
Edges of the lineage graph: from what was to what became of it, so that there is no cycle.

A node is written as `run:ID`, `step:ID`, `input:DIGEST`, `code:DIGEST`, `model:NAME@NUMBER` or
`revision:NAME#NUMBER`. Which artifacts a step run took and made stands in `ArtifactUse`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from clewline.store.records import ArtifactUse, Edge, StepRun
from clewline.store.ref import RecordSource

STEP, INPUT, MODEL, REVISION = "step:", "input:", "model:", "revision:"

_ORDER = {"code": 0, "input": 0, "run": 1, "step": 2, "model": 3, "revision": 4}


def require_forward(edge: Edge) -> None:
    """
    Check that an edge leads forward.

    Between kinds the order of the lineage decides, inside a run the order of the steps. From
    run to run a step leads only to one that took its outputs from the cache.

    Raises:
        ValueError: It leads back, or its nodes are not nodes: a mistake of the caller's.
    """
    source, _, before = edge.source.partition(":")
    target, _, after = edge.target.partition(":")
    forward = source in _ORDER and target in _ORDER and _ORDER[source] < _ORDER[target]
    if source == target == "step":
        (run, _, step), (next_run, _, next_step) = before.partition("/"), after.partition("/")
        if run != next_run:
            forward = edge.role == "cached"
        else:
            forward = int(step.partition("-")[0]) < int(next_step.partition("-")[0])
    if not forward:
        raise ValueError(f"the edge {edge.source} → {edge.target} ({edge.role}) leads back")


def artifact_uses(step: StepRun) -> Iterator[ArtifactUse]:
    """Yield a record for each artifact that a step run took or made."""
    for parameter, value in step.inputs.items():
        for digest in _artifacts_in(value):
            yield ArtifactUse(artifact=digest, step_run=step.id, role=f"{INPUT}{parameter}")
    for position, digest in enumerate(step.outputs):
        yield ArtifactUse(artifact=digest, step_run=step.id, role=f"output:{position}")
    for name, digest in step.files.items():
        yield ArtifactUse(artifact=digest, step_run=step.id, role=f"file:{name}")


def _artifacts_in(value: Any) -> Iterator[Any]:
    """Find `{"artifact": DIGEST}` however deep it stands in lists and dictionaries."""
    if isinstance(value, dict):
        if isinstance(value.get("artifact"), str):
            yield value["artifact"]
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _artifacts_in(each)


def sources(records: RecordSource, node: str) -> list[str]:
    """List the nodes from which edges lead to a node."""
    return [edge.source for edge in records.find(Edge, target=node, limit=None)]


def targets(records: RecordSource, node: str) -> list[str]:
    """List the nodes to which edges lead from a node."""
    return [edge.target for edge in records.find(Edge, source=node, limit=None)]


def connected_steps(
    records: RecordSource, steps: list[str], way: Literal["back", "forward"]
) -> list[str]:
    """List step runs and all that they rest on, or that rest on them, nearest first."""
    follow = sources if way == "back" else targets
    found = dict.fromkeys(steps)
    waiting = list(steps)
    while waiting:
        for node in follow(records, f"{STEP}{waiting.pop(0)}"):
            step = node.removeprefix(STEP)
            if node.startswith(STEP) and step not in found:
                found[step] = None
                waiting.append(step)
    return list(found)


def steps_that_made(records: RecordSource, artifact: str) -> list[str]:
    """List the step runs that gave an artifact as an output or a file."""
    uses = records.find(ArtifactUse, artifact=artifact, limit=None)
    return [use.step_run for use in uses if not use.role.startswith(INPUT)]


def steps_that_took(records: RecordSource, artifact: str) -> list[str]:
    """List the step runs that took an artifact as an input."""
    steps = [node.removeprefix(STEP) for node in targets(records, f"{INPUT}{artifact}")]
    uses = records.find(ArtifactUse, artifact=artifact, limit=None)
    steps += [use.step_run for use in uses if use.role.startswith(INPUT)]
    return list(dict.fromkeys(steps))
