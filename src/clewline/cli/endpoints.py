"""`clewline endpoints`: list, show, check, apply and roll back what is served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cyclopts import App

from clewline.cli import endpoint_tables as tables
from clewline.cli.endpoint_tables import Checked, Listed
from clewline.cli.output import console, emit
from clewline.errors import InvalidConfig, NotFound
from clewline.formatting import format_count
from clewline.project import Project, find
from clewline.serve import endpoint_file as specs
from clewline.serve import revision as revisions
from clewline.serve.graph import declared
from clewline.serve.graph import functions as codes
from clewline.serve.graph.difference import RevisionChange, revision_changes
from clewline.serve.graph.problems import InvalidEndpoint
from clewline.serve.graph.resolver import ImportedVersions, RevisionDraft, source_of
from clewline.store.records import LiveRevision, Revision
from clewline.store.store import Store

if TYPE_CHECKING:
    from clewline.serve.model_cache.loaded_models import SharedModels

app = App(name="endpoints", help="List, show, check and apply endpoints.")

TOGETHER = 500
"""Revisions that go live in one transaction."""


@app.command(name="list")
def list_() -> None:
    """List endpoints: what has a file, and what is live."""
    project = find()
    with Store.open(project.store_root, write=False) as store:
        live = {found.endpoint: found for found in store.catalog.find(LiveRevision, limit=None)}
        files = set(specs.names(project))
        listed = [
            _listed(store, name, live.get(name), name in files) for name in sorted(files | {*live})
        ]
    emit(listed, tables.listing)


@app.command
def show(name: str, /, *, limit: int = 20) -> None:
    """
    Show an endpoint: the graph of its live revision, and the revisions before.

    All from the catalog. Whether a running server could load it, that server says:
    GET /v1/endpoints/NAME.

    Parameters
    ----------
    name
        Of the endpoint.
    limit
        How many revisions at most, newest first.
    """
    project = find()
    with Store.open(project.store_root, write=False) as store:
        live = revisions.require_live(store.catalog, name)
        state = store.catalog.get(LiveRevision, name)
        history = store.catalog.find(Revision, order="-number", limit=limit, endpoint=name)
    assert state is not None, "a live revision has a record that says so"
    emit(
        {"live": live, "revisions": history, "since": state.moved, "unloaded": state.unloaded},
        lambda _: tables.endpoint(live, state, history),
    )


@app.command
def check(name: str, /) -> None:
    """
    Judge an endpoint's file and try it on background rows, without making it live.

    Every node and arm is tried, row by row and all rows together. Exit status 1
    when something is wrong; all that was found is named.

    Parameters
    ----------
    name
        Of the endpoint.
    """
    project = find()
    with Store.open(project.store_root, write=_brings(project, [name])) as store:
        found = _checked(project, store, name)
    emit(found, tables.checked)
    if found.problems:
        raise SystemExit(1)


@app.command
def apply(*names: str) -> None:
    """
    Make endpoint files live; a server that is up swaps without losing a request.

    All of them, or none when one cannot be applied. What is live already stays.

    Parameters
    ----------
    names
        Of the endpoints; all that have a file when none is named.
    """
    project = find()
    wanted = names or tuple(specs.names(project))
    if not wanted:
        raise NotFound(f"{project.endpoints} has no files.", "Write NAME.yaml there.")
    with Store.open(project.store_root) as store:
        drafts = _drafts(project, store, dict.fromkeys(wanted))
        applied = [
            each
            for first in range(0, len(drafts), TOGETHER)
            for each in revisions.make_live(store, drafts[first : first + TOGETHER])
        ]
        changes = [
            _changes(store, each.before, draft) for each, draft in zip(applied, drafts, strict=True)
        ]
    shown = [
        {"revision": each.revision, "is_new": each.is_new, "changes": change}
        for each, change in zip(applied, changes, strict=True)
    ]
    emit(shown, lambda _: _print_applied(applied, changes))


@app.command
def rollback(name: str, /, *, to: int | None = None) -> None:
    """
    Make an earlier revision live again.

    Parameters
    ----------
    name
        Of the endpoint.
    to
        The number of the revision; the one before the live one by default.
    """
    project = find()
    with Store.open(project.store_root) as store:
        was = revisions.require_live(store.catalog, name)
        back = revisions.rollback(store, name, to)
        changes = _changes(store, was, RevisionDraft(back, None))
    emit(
        {"live": back, "changes": changes},
        lambda _: tables.applied(back, True, changes, was.ref),
    )


def _listed(store: Store, name: str, live: LiveRevision | None, has_file: bool) -> Listed:
    if live is None:
        return Listed(name, None, [], has_file, "not applied", None)
    revision = store.catalog.get(Revision, name, live.number)
    assert revision is not None, "the catalog keeps what is live"
    state = "unloaded" if live.unloaded else "live" if has_file else "live, its file is gone"
    models = list(revision.models.values())
    return Listed(name, revision.ref, models, has_file, state, live.moved)


# Models from elsewhere


def _brings(project: Project, names: Sequence[str]) -> bool:
    """Whether files name models from elsewhere, which are registered."""
    return any(declared.imports(specs.read(project, name, refuse=False).root) for name in names)


def _brought(project: Project, store: Store, spec: specs.EndpointSpec) -> ImportedVersions:
    if not declared.imports(spec.root):
        return {}
    from clewline.hub.endpoint_imports import import_endpoint_models

    return import_endpoint_models(project, store, spec)


# Checking


def _checked(project: Project, store: Store, name: str) -> Checked:
    from clewline.serve.model_cache.loaded_models import SharedModels
    from clewline.serve.trial import try_graph

    try:
        spec = specs.read(project, name, refuse=False)
        draft = revisions.resolve(project, store.catalog, spec, _brought(project, store, spec))
        trial = try_graph(SharedModels(project), draft, source_of(spec))
    except InvalidEndpoint as error:
        return Checked(endpoint=name, problems=list(error.problems))
    live = revisions.live_revision(store.catalog, name)
    same = live is not None and revisions.content(live) == revisions.content(draft.revision)
    return Checked(
        endpoint=name,
        live=None if live is None else live.ref,
        next=(live if live is not None and same else draft.revision).ref,
        models=draft.revision.models,
        graph=draft.revision.graph,
        changes=_changes(store, live, draft),
        trial=trial,
    )


def _changes(store: Store, live: Revision | None, draft: RevisionDraft) -> list[RevisionChange]:
    """What is not as in the live revision."""
    before = codes.file_digests(store.blobs, live.code if live is not None else None)
    if draft.code is not None:
        return revision_changes(live, draft.revision, before, draft.code.digests())
    return revision_changes(
        live, draft.revision, before, codes.file_digests(store.blobs, draft.revision.code)
    )


# Applying


def _drafts(
    project: Project, store: Store, names: Sequence[str] | dict[str, None]
) -> list[RevisionDraft]:
    """Resolve and try all files; nothing goes live that cannot answer."""
    from clewline.serve.model_cache.loaded_models import SharedModels

    pool = SharedModels(project)
    drafts: list[RevisionDraft] = []
    refused: list[InvalidEndpoint] = []
    for name in names:
        try:
            drafts.append(_draft(project, store, pool, name))
        except InvalidEndpoint as error:
            refused.append(error)
    if len(refused) == 1 and len(names) == 1:
        raise refused[0]
    if refused:
        told = "\n".join(error.message for error in refused)
        raise InvalidConfig(
            f"{format_count(len(refused), 'file')} of {len(names)} cannot be applied, "
            f"so none was:\n{told}",
            "Mend them, or name the others: clewline endpoints apply NAME ….",
        )
    return drafts


def _draft(project: Project, store: Store, pool: SharedModels, name: str) -> RevisionDraft:
    from clewline.serve.trial import try_graph

    spec = specs.read(project, name, refuse=False)
    draft = revisions.resolve(project, store.catalog, spec, _brought(project, store, spec))
    live = revisions.live_revision(store.catalog, name)
    if live is None or revisions.content(live) != revisions.content(draft.revision):
        try_graph(pool, draft, source_of(spec))
    return draft


def _print_applied(
    applied: list[revisions.AppliedRevision], changes: list[list[RevisionChange]]
) -> None:
    for each, change in zip(applied, changes, strict=True):
        was = None if each.before is None else each.before.ref
        tables.applied(each.revision, each.is_new, change, was)
    if len(applied) > 10:
        new = sum(each.is_new for each in applied)
        console().print(f"{format_count(new, 'new revision')}, {len(applied) - new} as they were.")
