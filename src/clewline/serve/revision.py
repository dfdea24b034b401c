"""
Revisions: what an endpoint's file resolves to, pinned under a number that never changes.

`apply` resolves the aliases, pins packages, code and the accepted bounds, moves the endpoint to
the new revision, and seals both in the signed chain, in one transaction. A running server notices.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from clewline.errors import IntegrityError, NotFound, did_you_mean
from clewline.flow.code.snapshot import BlobSource
from clewline.model.registry_chain import APPLIED, ROLLED_BACK, append_link, stated
from clewline.model.seal import Sealer
from clewline.model.sealed_records import SealedRecords, unchecked
from clewline.project import Project
from clewline.serve.conformal_sets import option_of as conformal_option
from clewline.serve.endpoint_file import EndpointSpec
from clewline.serve.explain_rules import explain_rules, rule_text
from clewline.serve.graph.functions import FunctionFiles, file_digests
from clewline.serve.graph.problems import Problems
from clewline.serve.graph.resolver import ImportedVersions, Resolver
from clewline.serve.graph.tree import children, of_revision, title, walk
from clewline.store.catalog import Transaction
from clewline.store.records import Edge, LiveRevision, Revision
from clewline.store.ref import RecordSource, find_revision
from clewline.store.rows import UnreadableRecord
from clewline.store.store import Store


class RevisionDraft(NamedTuple):
    """The revision that applying a file would make, and its code, which is not stored yet."""

    revision: Revision
    code: FunctionFiles | None


class AppliedRevision(NamedTuple):
    """The live revision after `apply`, whether it is new, and which one was live before."""

    revision: Revision
    is_new: bool
    before: Revision | None = None


class RevisionChange(msgspec.Struct, frozen=True):
    """One difference between two revisions; None stands for what is not there."""

    what: str  # node champion, code nodes.py, timeout_ms, …
    before: str | None
    after: str | None


# What a revision says


def durability(revision: Revision) -> Any:
    """Return when a logged batch of this revision counts as logged: "process" or "fsync"."""
    return (revision.spec.get("log") or {}).get("durability", "process")


def timeout_ms(revision: Revision) -> float | None:
    """Return the milliseconds within which an answer is due; None for no limit."""
    value = revision.spec.get("timeout_ms")
    return None if value is None else float(value)


def is_pinned(revision: Revision) -> bool:
    """Return whether the revision's models stay in memory."""
    return revision.spec.get("pin") is True


def content(revision: Revision) -> tuple[Any, ...]:
    """
    Return what makes a revision what it is; two with the same content answer alike.

    The way in which the file says it does not count: a comment or a written default is no change.
    """
    pinned = (of_revision(revision), revision.packages, revision.accepted, revision.code)
    options = (durability(revision), timeout_ms(revision), is_pinned(revision))
    return (*pinned, *options, explain_rules(revision), conformal_option(revision))


# From a file to the live revision


def resolve(
    project: Project,
    records: RecordSource,
    spec: EndpointSpec,
    imported: ImportedVersions | None = None,
) -> RevisionDraft:
    """
    Resolve a file against the records and the working tree; nothing is fetched.

    Args:
        project: The project.
        records: Its records.
        spec: The file; mistakes found when it was read are reported with those found here.
        imported: The versions that its models from elsewhere have become.

    Raises:
        InvalidEndpoint: A model, version, alias, file or function is missing, a function
            does not declare what it takes, or accepted bounds contradict each other; names
            all of these mistakes.
        NotFound: The file names one model alone, which is missing.
    """
    problems = Problems(spec.problems)
    if spec.root is None or (problems and not spec.is_graph):
        problems.require_none(spec.file)
    assert spec.root is not None, "a file without an answering node has problems"
    resolver = Resolver(project, records, problems, imported or {})
    tree = resolver.resolve(spec.root)
    fields = resolver.accepted_fields(tree)
    if not spec.is_graph and problems.cause is not None:
        raise problems.cause
    problems.require_none(spec.file)
    kept = {
        "graph": tree if spec.is_graph else {},
        "accepted": {"fields": fields} if fields else {},
    }
    revision = Revision(
        endpoint=spec.endpoint,
        number=_next_number(unchecked(records), spec.endpoint),
        spec=spec.document,
        models=resolver.models,
        packages=resolver.packages,
        code=resolver.code.digest if resolver.code else None,
        created=time.time(),
        **msgspec.json.decode(msgspec.json.encode(kept)),  # equal to what the catalog gives back
    )
    return RevisionDraft(revision, resolver.code)


def apply(project: Project, store: Store, spec: EndpointSpec) -> AppliedRevision:
    """
    Make the content of a file live without a trial; unchanged content makes no new revision.

    Raises:
        InvalidEndpoint, NotFound: As `resolve`.
    """
    records = SealedRecords(project, store.catalog)
    return make_live(project, store, [resolve(project, records, spec)])[0]


def make_live(
    project: Project, store: Store, drafts: Sequence[RevisionDraft]
) -> list[AppliedRevision]:
    """
    Make all drafts live, or none; a draft equal to the live revision changes nothing.

    Raises:
        NotFound: The project's private key is missing, so nothing can be sealed.
    """
    for draft in drafts:
        if draft.code is not None:
            draft.code.store(store.blobs)
    store.blobs.flush()  # the code is stored before a revision that needs it
    with store.catalog.transaction() as transaction:
        records = SealedRecords(project, transaction)
        applied = [_apply(records, transaction, draft.revision) for draft in drafts]
        new = [each.revision for each in applied if each.is_new]
        for revision in new:
            transaction.add(revision, *edges(revision))
        if new:
            _move(transaction, new, APPLIED, Sealer.of(project))
        return applied


def _apply(records: SealedRecords, transaction: Transaction, draft: Revision) -> AppliedRevision:
    live = sealed_live_revision(records, draft.endpoint)
    if live is not None and content(live) == content(draft):
        return AppliedRevision(live, is_new=False, before=live)
    number = _next_number(transaction, draft.endpoint)
    return AppliedRevision(msgspec.structs.replace(draft, number=number), is_new=True, before=live)


def rollback(
    project: Project,
    store: Store,
    endpoint: str,
    number: int | None = None,
    *,
    person: str | None = None,
    reason: str | None = None,
) -> Revision:
    """
    Make an earlier revision live again.

    Args:
        project: The project.
        store: Its store.
        endpoint: The endpoint.
        number: Of the revision; by default the one before the live one.
        reason: Why; recorded in the signed chain.
        person: Who does it; recorded in the signed chain.

    Raises:
        NotFound: There is no such endpoint or revision, the live one is the first, or the
            project's private key is missing.
        IntegrityError: The earlier revision is not the one in the signed chain.
    """
    with store.catalog.transaction() as transaction:
        live = require_live(transaction, endpoint)
        if number is None and live.number == 1:
            raise NotFound(
                f"{live.ref} is the first revision; there is nothing to roll back to.",
                f"`clewline endpoints show {endpoint}` lists the revisions.",
            )
        wanted = live.number - 1 if number is None else number
        earlier = find_revision(SealedRecords(project, transaction), f"{endpoint}#{wanted}")
        said = stated(person, reason)
        _move(transaction, [earlier], ROLLED_BACK, Sealer.of(project), said)
    return earlier


def live_revision(records: RecordSource, endpoint: str) -> Revision | None:
    """Return the live revision of an endpoint; None if it has none."""
    live = records.get(LiveRevision, endpoint)
    return None if live is None else records.get(Revision, endpoint, live.number)


def sealed_live_revision(records: SealedRecords, endpoint: str) -> Revision | None:
    """Return the live revision; None if there is none that the signed chain holds."""
    try:
        return live_revision(records, endpoint)
    except IntegrityError:  # `clewline doctor` names it, and applying again replaces it
        return None


def require_live(records: RecordSource, endpoint: str) -> Revision:
    """
    Return the live revision of an endpoint.

    Raises:
        NotFound: The endpoint has never been applied; names the nearest.
    """
    live = live_revision(records, endpoint)
    if live is None:
        known = [record.endpoint for record in records.find(LiveRevision, limit=None)]
        hint = did_you_mean(endpoint, known, "`clewline endpoints apply` creates it.")
        raise NotFound(f"There is no endpoint {endpoint!r}.", hint)
    return live


def edges(revision: Revision) -> list[Edge]:
    """Return the lineage edges to a revision: from each model, and from its code."""
    target = f"revision:{revision.ref}"
    found = [
        Edge(source=f"model:{model}", target=target, role="serves")
        for model in dict.fromkeys(revision.models.values())
    ]
    if revision.code is not None:
        found.append(Edge(source=f"code:{revision.code}", target=target, role="code"))
    return found


def _next_number(records: RecordSource, endpoint: str) -> int:
    unreadable: list[UnreadableRecord] = []
    found = records.find(Revision, order="-number", endpoint=endpoint, unreadable=unreadable)
    numbers = [*(each.number for each in found), *(each.key[1] for each in unreadable)]
    return max((number for number in numbers if isinstance(number, int)), default=0) + 1


def _move(
    transaction: Transaction,
    revisions: Sequence[Revision],
    kind: str,
    sealer: Sealer,
    said: Mapping[str, str] | None = None,
) -> None:
    """Make revisions live, and seal that with what was said about it."""
    moved = time.time()
    live = [
        LiveRevision(endpoint=each.endpoint, number=each.number, moved=moved) for each in revisions
    ]
    transaction.replace(*live)
    body = {"revisions": [each.ref for each in revisions], **(said or {})}
    new = revisions if kind == APPLIED else ()
    append_link(transaction, kind, body, sealer, *new, *live)


# What differs between two revisions


def revision_changes(
    before: Revision | None,
    after: Revision,
    code_before: Mapping[str, str],
    code_after: Mapping[str, str],
) -> list[RevisionChange]:
    """
    List what differs: nodes with their models and weights, code, accepted bounds, options.

    Args:
        before: The live revision; None if there is none.
        after: The revision that would be live.
        code_before: Path → digest of the code files of `before`.
        code_after: The same of `after`.
    """
    old = {} if before is None else dict(_facts(before, code_before))
    new = dict(_facts(after, code_after))
    return [
        RevisionChange(what, old.get(what), new.get(what))
        for what in {**new, **old}
        if old.get(what) != new.get(what)
    ]


def stored_changes(
    blobs: BlobSource, before: Revision | None, after: Revision
) -> list[RevisionChange]:
    """List what differs between two revisions whose code is stored."""
    code = [file_digests(blobs, each.code if each else None) for each in (before, after)]
    return revision_changes(before, after, *code)


def _facts(revision: Revision, code: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for node in walk(of_revision(revision)):
        names = [child["name"] for _, child in children(node)]
        over = f" over {', '.join(names)}" if len(names) > 1 else ""
        yield f"node {node['name']}", f"{title(node)}{over}"
    for path, digest in code.items():
        yield f"code {path}", digest[:8]
    for name, limits in revision.accepted.get("fields", {}).items():
        bounds = limits.get("bounds")
        parts = [f"{bounds[0]} to {bounds[1]}"] if bounds else []
        parts += limits.get("levels") or []
        if (way := limits.get("mutable")) is not None:
            parts.append(f"only goes {way}" if way else "does not change")
        if others := limits.get("depends_on"):
            parts.append(f"depends on {', '.join(others)}")
        yield f"accepted {name}", ", ".join(parts)
    if (option := conformal_option(revision)) is not None:
        yield "conformal", option.text
    for place, rule in enumerate(explain_rules(revision), 1):
        yield f"explain {place}", f"{rule.kind} {rule_text(rule)}".strip()
    options = {key: revision.spec.get(key) for key in ("timeout_ms", "pin")}
    for key, value in {**options, "log.durability": durability(revision)}.items():
        if value is not None:
            yield key, str(value).lower()
