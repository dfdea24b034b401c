"""Which artifacts a step run took and gave."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clewline.store.records import ArtifactUse, StepRun


def uses_of(step: StepRun) -> Iterator[ArtifactUse]:
    """Give a record for each artifact that a step run names."""
    for parameter, given in step.inputs.items():
        for digest in _artifacts(given):
            yield ArtifactUse(artifact=digest, step_run=step.id, role=f"input:{parameter}")
    for position, digest in enumerate(step.outputs):
        yield ArtifactUse(artifact=digest, step_run=step.id, role=f"output:{position}")
    for name, digest in step.files.items():
        yield ArtifactUse(artifact=digest, step_run=step.id, role=f"file:{name}")


def _artifacts(given: Any) -> Iterator[Any]:
    """Find `{"artifact": DIGEST}` however deep it stands in lists and dictionaries."""
    if isinstance(given, dict):
        if isinstance(given.get("artifact"), str):
            yield given["artifact"]
        given = list(given.values())
    if isinstance(given, list | tuple):
        for each in given:
            yield from _artifacts(each)
