"""
Edges of the lineage graph: from what was to what became of it, so that there is no cycle.

A node is written as `run:ID`, `step:ID`, `input:DIGEST`, `code:DIGEST`, `model:NAME@NUMBER` or
`revision:NAME#NUMBER`. Which artifacts a step run took and made stands in `ArtifactUse`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

from clewline.store.reader import RecordQueries
from clewline.store.records import ArtifactUse, Edge, StepRun

STEP, INPUT, MODEL, REVISION = "step:", "input:", "model:", "revision:"

# Plain queries: a file may have been read by ten thousand runs, whose records nobody wants.
_NEIGHBOURS = {
    "back": "SELECT source FROM edge WHERE target IN (SELECT value FROM json_each(?)) "
    "ORDER BY source, target, role",
    "forward": "SELECT target FROM edge WHERE source IN (SELECT value FROM json_each(?)) "
    "ORDER BY source, target, role",
}
_USES = (
    "SELECT step_run FROM artifact_use WHERE artifact = ? AND role {} 'input:%' ORDER BY 1, role"
)

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


def sources(records: RecordQueries, node: str) -> list[str]:
    """List the nodes from which edges lead to a node."""
    return [name for (name,) in records.rows(_NEIGHBOURS["back"], (_json([node]),))]


def targets(records: RecordQueries, node: str) -> list[str]:
    """List the nodes to which edges lead from a node."""
    return [name for (name,) in records.rows(_NEIGHBOURS["forward"], (_json([node]),))]


def connected_steps(
    records: RecordQueries, steps: list[str], way: Literal["back", "forward"]
) -> list[str]:
    """List step runs and all that they rest on, or that rest on them, nearest first."""
    found = dict.fromkeys(steps)
    nearest = list(found)
    while nearest:
        nodes = _json([f"{STEP}{step}" for step in nearest])
        names = [name for (name,) in records.rows(_NEIGHBOURS[way], (nodes,))]
        steps = [name.removeprefix(STEP) for name in names if name.startswith(STEP)]
        nearest = [step for step in dict.fromkeys(steps) if step not in found]
        found.update(dict.fromkeys(nearest))
    return list(found)


def _json(nodes: list[str]) -> str:
    return json.dumps(nodes)


def steps_that_made(records: RecordQueries, artifact: str) -> list[str]:
    """List the step runs that gave an artifact as an output or a file."""
    return [step for (step,) in records.rows(_USES.format("NOT LIKE"), (artifact,))]


def steps_that_took(records: RecordQueries, artifact: str) -> list[str]:
    """List the step runs that took an artifact as an input."""
    steps = [node.removeprefix(STEP) for node in targets(records, f"{INPUT}{artifact}")]
    steps += [step for (step,) in records.rows(_USES.format("LIKE"), (artifact,))]
    return list(dict.fromkeys(steps))
