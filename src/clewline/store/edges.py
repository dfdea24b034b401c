"""The law of the line: an edge leads from what was to what became, so there is no cycle."""

from __future__ import annotations

from clewline.store.records import Edge

_ORDER = {"code": 0, "input": 0, "run": 1, "step": 2, "model": 3, "revision": 4}


def require_forward(edge: Edge) -> None:
    """
    Check that an edge leads forward.

    Between kinds the order of the line decides, inside a run the order of the
    steps. From run to run a step leads only to one that took its outputs, which
    it had ended before.

    Raises:
        ValueError: It leads back, or its refs are none: a mistake of the caller's.
    """
    if not _is_forward(edge):
        raise ValueError(f"the edge {edge.source} → {edge.target} ({edge.role}) leads back")


def _is_forward(edge: Edge) -> bool:
    source, _, before = edge.source.partition(":")
    target, _, after = edge.target.partition(":")
    if source not in _ORDER or target not in _ORDER:
        return False
    if source != target:
        return _ORDER[source] < _ORDER[target]
    if source != "step":
        return False
    if before.partition("/")[0] != after.partition("/")[0]:
        return edge.role == "cached"
    return _index(before) < _index(after)


def _index(step: str) -> int:
    return int(step.partition("/")[2].partition("-")[0])
