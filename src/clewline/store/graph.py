"""Walking the edges between events: steps, runs, models and revisions."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from clewline.store.reader import CatalogReader
from clewline.store.records import ArtifactUse, Edge

STEP, INPUT, MODEL, REVISION = "step:", "input:", "model:", "revision:"


def sources(reader: CatalogReader, ref: str) -> list[Edge]:
    """The edges that lead to a node."""
    return reader.find(Edge, target=ref, limit=None)


def targets(reader: CatalogReader, ref: str) -> list[Edge]:
    """The edges that lead from a node."""
    return reader.find(Edge, source=ref, limit=None)


def steps_before(reader: CatalogReader, *steps: str) -> list[str]:
    """Step runs and all that they rest on, nearest first, as step run ids."""
    return _walk(*steps, follow=lambda ref: (edge.source for edge in sources(reader, ref)))


def steps_after(reader: CatalogReader, *steps: str) -> list[str]:
    """Step runs and all that rest on them, nearest first."""
    return _walk(*steps, follow=lambda ref: (edge.target for edge in targets(reader, ref)))


def makers(reader: CatalogReader, artifact: str) -> list[str]:
    """The step runs that gave an artifact as an output or a file."""
    return [
        use.step_run
        for use in reader.find(ArtifactUse, artifact=artifact, limit=None)
        if not use.role.startswith(INPUT)
    ]


def takers(reader: CatalogReader, artifact: str) -> list[str]:
    """The step runs that took an artifact as an input."""
    edges = reader.find(Edge, source=f"{INPUT}{artifact}", limit=None)
    found = {edge.target.removeprefix(STEP): None for edge in edges}
    for use in reader.find(ArtifactUse, artifact=artifact, limit=None):
        if use.role.startswith(INPUT):
            found[use.step_run] = None
    return list(found)


def _walk(*steps: str, follow: Callable[[str], Iterator[str]]) -> list[str]:
    found = dict.fromkeys(steps)
    waiting = list(steps)
    while waiting:
        for ref in follow(f"{STEP}{waiting.pop(0)}"):
            step = ref.removeprefix(STEP)
            if ref.startswith(STEP) and step not in found:
                found[step] = None
                waiting.append(step)
    return list(found)
