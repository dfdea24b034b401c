"""What applying a file would change: two revisions of an endpoint, held against each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from clewline.serve.graph.tree import below, of_revision, title, walk
from clewline.serve.revision import durability
from clewline.store.records import Revision

Files = Mapping[str, str]
"""Path of a code file → the digest of its content."""


class RevisionChange(msgspec.Struct, frozen=True):
    """One thing that is not as it was; None stands for what is not there."""

    what: str  # node champion, code nodes.py, timeout_ms, …
    before: str | None
    after: str | None


def revision_changes(
    before: Revision | None, after: Revision, code_before: Files, code_after: Files
) -> list[RevisionChange]:
    """
    Tell what changes: nodes with their models and weights, code, accepted bounds, options.

    Args:
        before: What is live; None when nothing is.
        after: What would be.
        code_before: The code files of `before`.
        code_after: The code files of `after`.
    """
    sides = ((before, code_before), (after, code_after))
    old, new = (_described(*side) if side[0] is not None else {} for side in sides)
    order = [*new, *(what for what in old if what not in new)]
    return [
        RevisionChange(what, old.get(what), new.get(what))
        for what in order
        if old.get(what) != new.get(what)
    ]


def _described(revision: Revision | None, code: Files) -> dict[str, str]:
    assert revision is not None
    said = dict(_nodes(revision))
    said |= {f"code {path}": digest[:8] for path, digest in code.items()}
    fields = revision.accepted.get("fields", {})
    said |= {f"accepted {name}": _limits(limits) for name, limits in fields.items()}
    options = {key: revision.spec.get(key) for key in ("timeout_ms", "pin")}
    options["log.durability"] = durability(revision)
    return said | {key: str(value).lower() for key, value in options.items() if value is not None}


def _nodes(revision: Revision) -> Iterator[tuple[str, str]]:
    """Every node by its name, with what it is and what stands below it."""
    for node in walk(of_revision(revision)):
        children = [child["name"] for _, child in below(node)]
        over = f" over {', '.join(children)}" if len(children) > 1 else ""
        yield f"node {node['name']}", f"{title(node)}{over}"


def _limits(limits: dict[str, Any]) -> str:
    bounds, levels = limits.get("bounds"), limits.get("levels")
    parts = [f"{bounds[0]} to {bounds[1]}"] if bounds else []
    return ", ".join([*parts, *(levels or [])])
