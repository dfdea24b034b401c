"""
Revisions: what an endpoint's file resolves to, pinned under a number that never changes.

`apply` resolves the aliases, pins packages, code and the accepted bounds, and moves
the endpoint to the new revision in one transaction. A server that is up notices.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from clewline.errors import NotFound
from clewline.project import Project
from clewline.serve.endpoint_file import EndpointSpec
from clewline.serve.graph.resolver import RevisionDraft, resolve
from clewline.serve.graph.tree import of_revision
from clewline.store.records import Edge, LiveRevision, Revision
from clewline.store.ref import RecordSource
from clewline.store.store import Store

__all__ = [
    "AppliedRevision",
    "RevisionDraft",
    "apply",
    "content",
    "durability",
    "edges",
    "is_pinned",
    "live_revision",
    "make_live",
    "require_live",
    "resolve",
    "rollback",
    "timeout_ms",
]


@dataclass(frozen=True, slots=True)
class AppliedRevision:
    """What `apply` came to: the live revision, whether it is new, and which was live before."""

    revision: Revision
    is_new: bool
    before: Revision | None = None


def durability(revision: Revision) -> Any:
    """Tell when a frame of this revision counts as logged: "process" or "fsync"."""
    return (revision.spec.get("log") or {}).get("durability", "process")


def timeout_ms(revision: Revision) -> float | None:
    """Tell within how many milliseconds an answer is due; None: whenever."""
    value = revision.spec.get("timeout_ms")
    return None if value is None else float(value)


def is_pinned(revision: Revision) -> bool:
    """Whether the revision's models stay in memory."""
    return revision.spec.get("pin") is True


def apply(project: Project, store: Store, spec: EndpointSpec) -> AppliedRevision:
    """
    Make what the file says the live revision, without trying it; the same makes no new one.

    Raises:
        NotFound: There is no such model, version or alias; names the nearest.
        InvalidConfig: A function is missing, or what was accepted for a model does not fit.
    """
    return make_live(store, [resolve(project, store.catalog, spec)])[0]


def make_live(store: Store, drafts: Sequence[RevisionDraft]) -> list[AppliedRevision]:
    """Make resolved files the live revisions, all or none; what is live already stays."""
    for draft in drafts:
        if draft.code is not None:
            draft.code.store(store.blobs)
    store.blobs.flush()  # a revision is never ahead of its code
    with store.catalog.transaction() as transaction:
        return [_make_live(transaction, draft.revision) for draft in drafts]


def _make_live(transaction: Any, draft: Revision) -> AppliedRevision:
    live = live_revision(transaction, draft.endpoint)
    if live is not None and content(live) == content(draft):
        return AppliedRevision(live, is_new=False, before=live)
    newest = transaction.find(Revision, order="-number", limit=1, endpoint=draft.endpoint)
    number = newest[0].number + 1 if newest else 1
    revision = msgspec.structs.replace(draft, number=number)
    transaction.add(revision, *edges(revision))
    _go_live(transaction, revision)
    return AppliedRevision(revision, is_new=True, before=live)


def rollback(store: Store, endpoint: str, number: int | None = None) -> Revision:
    """
    Make an earlier revision the live one: `number`, or the one before the live one.

    Raises:
        NotFound: There is no such endpoint or revision, or none before.
    """
    with store.catalog.transaction() as transaction:
        live = require_live(transaction, endpoint)
        wanted = live.number - 1 if number is None else number
        earlier = transaction.get(Revision, endpoint, wanted)
        if earlier is None:
            raise NotFound(
                f"There is no revision {endpoint}#{wanted}; {live.ref} is live.",
                f"`clewline endpoints show {endpoint}` lists its revisions.",
            )
        _go_live(transaction, earlier)
    return earlier


def live_revision(records: RecordSource, endpoint: str) -> Revision | None:
    """Get the revision that an endpoint answers with; None when it has none."""
    live = records.get(LiveRevision, endpoint)
    return None if live is None else records.get(Revision, endpoint, live.number)


def require_live(records: RecordSource, endpoint: str) -> Revision:
    """
    Get the revision that an endpoint answers with.

    Raises:
        NotFound: The endpoint has never been applied; names the nearest.
    """
    live = live_revision(records, endpoint)
    if live is None:
        known = [record.endpoint for record in records.find(LiveRevision, limit=None)]
        near = difflib.get_close_matches(endpoint, known, n=1)
        hint = f"Did you mean {near[0]}?" if near else "`clewline endpoints apply` makes it."
        raise NotFound(f"There is no endpoint {endpoint!r}.", hint)
    return live


def content(revision: Revision) -> tuple[Any, ...]:
    """
    Give what makes a revision what it is; two with the same content answer alike.

    How the file says it does not count: a comment or a default written out is no change.
    """
    pinned = (of_revision(revision), revision.packages, revision.accepted, revision.code)
    return (*pinned, durability(revision), timeout_ms(revision), is_pinned(revision))


def _go_live(transaction: Any, revision: Revision) -> None:
    transaction.replace(
        LiveRevision(endpoint=revision.endpoint, number=revision.number, moved=time.time())
    )


def edges(revision: Revision) -> list[Edge]:
    """The edges of the line that lead to a revision: from each model, and from its code."""
    target = f"revision:{revision.ref}"
    found = [
        Edge(source=f"model:{model}", target=target, role="serves")
        for model in dict.fromkeys(revision.models.values())
    ]
    if revision.code is not None:
        found.append(Edge(source=f"code:{revision.code}", target=target, role="code"))
    return found
