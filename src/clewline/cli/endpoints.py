"""`clewline endpoints`: list, show, check, apply and roll back endpoints."""

from __future__ import annotations

from collections.abc import Iterable

from cyclopts import App

from clewline.cli import endpoint_tables as tables
from clewline.cli.endpoint_tables import EndpointCheck
from clewline.cli.output import Mode, console, emit, print_message
from clewline.cli.parameters import Limit
from clewline.errors import InvalidConfig, NotFound
from clewline.formatting import format_count
from clewline.model.sealed_records import SealedRecords
from clewline.project import Project, find
from clewline.serve import revision as revisions
from clewline.serve.endpoint_file import endpoint_names, read_endpoint
from clewline.serve.endpoint_list import endpoint_rows, listed_endpoints
from clewline.serve.graph.functions import file_digests
from clewline.serve.graph.problems import InvalidEndpoint
from clewline.serve.revision import RevisionChange, RevisionDraft
from clewline.store.records import LiveRevision, Revision
from clewline.store.store import Store

app = App(name="endpoints", help="List, show, check and apply endpoints.")

TOGETHER = 500
"""Revisions that go live in one transaction."""


@app.command(name="list")
def list_() -> None:
    """List endpoints that have a file or are live."""
    project = find()
    with Store.open(project.store_root, write=False) as store:
        names = listed_endpoints(project, store.catalog)
        rows = endpoint_rows(project, store.catalog, names)
    emit(rows, tables.show_list)


@app.command
def show(name: str, /, *, limit: Limit = 20) -> None:
    """
    Show the live graph of an endpoint, and its earlier revisions.

    This reads the catalog. Ask a running server whether it could load the revision:
    GET /v1/endpoints/NAME.

    Parameters
    ----------
    name
        Name of the endpoint.
    limit
        Maximum number of revisions to list, newest first.
    """
    project = find()
    with Store.open(project.store_root, write=False) as store:
        live = revisions.require_live(store.catalog, name)
        state = store.catalog.get(LiveRevision, name)
        history = store.catalog.find(Revision, order="-number", limit=limit, endpoint=name)
    assert state is not None, "a live revision has a record that says so"
    emit(
        {"live": live, "revisions": history, "since": state.moved, "unloaded": state.unloaded},
        lambda _: tables.show_endpoint(live, state, history),
    )


@app.command
def check(name: str, /) -> None:
    """
    Check an endpoint's file and try it on background rows.

    Nothing goes live. Every node and arm is tried, row by row and with all rows
    together. All mistakes are listed; the exit status is 1 if there are any.

    Parameters
    ----------
    name
        Name of the endpoint.
    """
    project = find()
    spec = read_endpoint(project, name, refuse=False)
    imports = spec.root is not None and bool(spec.root.imports())  # these are registered
    with Store.open(project.store_root, write=imports) as store:
        try:
            found = _check(project, store, name)
        except InvalidEndpoint as error:
            if Mode.debug:
                raise
            found = EndpointCheck(endpoint=name, problems=list(error.problems))
    emit(found, tables.show_check)
    if found.problems:
        raise SystemExit(1)


@app.command
def apply(*names: str) -> None:
    """
    Make endpoint files live, without losing a request.

    All of them go live, or none if one of them cannot be applied. A file whose
    content is live already changes nothing.

    Parameters
    ----------
    names
        Names of the endpoints; by default all that have a file.
    """
    project = find()
    wanted = dict.fromkeys(names or endpoint_names(project))
    if not wanted:
        raise NotFound(f"{project.endpoints} has no files.", "Write NAME.yaml there.")
    with Store.open(project.store_root) as store:
        drafts = _tried_drafts(project, store, wanted)
        applied = [
            each
            for first in range(0, len(drafts), TOGETHER)
            for each in revisions.make_live(project, store, drafts[first : first + TOGETHER])
        ]
        changes = [
            _changes(store, each.before, draft) for each, draft in zip(applied, drafts, strict=True)
        ]
    results = [
        {"revision": each.revision, "is_new": each.is_new, "changes": change}
        for each, change in zip(applied, changes, strict=True)
    ]

    def show_results(_: object) -> None:
        for each, change in zip(applied, changes, strict=True):
            has_changes = each.before is not None
            tables.show_applied(each.revision, each.is_new, change if has_changes else [])
        if len(applied) > 10:
            new = sum(each.is_new for each in applied)
            console().print(f"{format_count(new, 'new revision')}, {len(applied) - new} unchanged.")

    emit(results, show_results)


@app.command
def rollback(name: str, /, *, to: int | None = None, reason: str | None = None) -> None:
    """
    Make an earlier revision live again.

    Parameters
    ----------
    name
        Name of the endpoint.
    to
        Number of the revision; by default the one before the live one.
    reason
        Why; the signed chain records it.
    """
    project = find()
    with Store.open(project.store_root) as store:
        before = revisions.require_live(store.catalog, name)
        back = revisions.rollback(project, store, name, to, reason=reason)
        changes = _changes(store, before, RevisionDraft(back, None))
    emit({"live": back, "changes": changes}, lambda _: tables.show_applied(back, True, changes))
    print_message(
        f"endpoints/{name}.yaml is as it was, so the next `clewline endpoints apply {name}` would "
        f"make {before.ref} or newer live again. Change it back in Git as well."
    )


def _draft(project: Project, store: Store, records: SealedRecords, name: str) -> RevisionDraft:
    """Read and resolve a file; models from elsewhere are imported first."""
    spec = read_endpoint(project, name, refuse=False)
    imported = None
    if spec.root is not None and spec.root.imports():
        from clewline.hub.endpoint_imports import import_endpoint_models

        imported = import_endpoint_models(project, store, spec)
    return revisions.resolve(project, records, spec, imported)


def _check(project: Project, store: Store, name: str) -> EndpointCheck:
    from clewline.serve.model_cache.loaded_models import SharedModels
    from clewline.serve.trial import try_graph

    records = SealedRecords(project, store.catalog)
    draft = _draft(project, store, records, name)
    trial = try_graph(SharedModels(project), draft, f"endpoints/{name}.yaml")
    live = revisions.sealed_live_revision(records, name)
    is_live = live is not None and revisions.content(live) == revisions.content(draft.revision)
    return EndpointCheck(
        endpoint=name,
        live=None if live is None else live.ref,
        next=live.ref if live is not None and is_live else draft.revision.ref,
        models=draft.revision.models,
        graph=draft.revision.graph,
        changes=_changes(store, live, draft),
        trial=trial,
    )


def _changes(store: Store, live: Revision | None, draft: RevisionDraft) -> list[RevisionChange]:
    """List what differs from the live revision."""
    if draft.code is None:
        return revisions.stored_changes(store.blobs, live, draft.revision)
    before = file_digests(store.blobs, None if live is None else live.code)
    return revisions.revision_changes(live, draft.revision, before, draft.code.digests())


def _tried_drafts(project: Project, store: Store, names: Iterable[str]) -> list[RevisionDraft]:
    """Resolve all files and try those that change; a file that cannot answer stops all of them."""
    from clewline.serve.model_cache.loaded_models import SharedModels
    from clewline.serve.trial import try_graph

    models, records = SharedModels(project), SealedRecords(project, store.catalog)
    drafts: list[RevisionDraft] = []
    refused: list[InvalidEndpoint] = []
    for name in names:
        try:
            draft = _draft(project, store, records, name)
            live = revisions.sealed_live_revision(records, name)
            if live is None or revisions.content(live) != revisions.content(draft.revision):
                try_graph(models, draft, f"endpoints/{name}.yaml")
            drafts.append(draft)
        except InvalidEndpoint as error:
            refused.append(error)
    if len(refused) == 1 and not drafts:
        raise refused[0]
    if refused:
        messages = "\n".join(error.message for error in refused)
        raise InvalidConfig(
            f"{format_count(len(refused), 'file')} of {len(refused) + len(drafts)} cannot be "
            f"applied, so none was:\n{messages}",
            "Fix them, or name the others: clewline endpoints apply NAME ….",
        ) from refused[0]
    return drafts
