"""`fairlead endpoints`: list, show, check, apply and roll back what is served."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
from cyclopts import App

from fairlead.cli.output import console, emit, message
from fairlead.errors import NotFound
from fairlead.project import Project, find
from fairlead.serve import revision as revisions
from fairlead.serve import spec as specs
from fairlead.store.phrases import when
from fairlead.store.records import LiveRevision, Revision
from fairlead.store.store import Store

if TYPE_CHECKING:
    from fairlead.serve.loaded import LoadedRevision

app = App(name="endpoints", help="List, show, check and apply endpoints.")


class Listed(msgspec.Struct, frozen=True):
    """An endpoint in a list."""

    endpoint: str
    revision: str | None  # the live one
    models: list[str]
    file: bool  # whether endpoints/NAME.yaml is there


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """What a dry run of a revision on its background rows gave."""

    endpoint: str
    live: str | None
    next: str  # the revision that apply would make, or the live one
    models: dict[str, str]
    rows: int
    refused_rows: int  # by what a person has accepted
    flagged_rows: int
    row_ms: float  # one row by itself, median
    many_row_ms: float  # a row among as many as there are


@app.command(name="list")
def list_() -> None:
    """List endpoints: what has a file, and what is live."""
    project = find()
    with Store.open(project.store_root, write=False) as store:
        live = {found.endpoint for found in store.catalog.find(LiveRevision, limit=None)}
        files = set(specs.names(project))
        listed = [_listed(store, name, name in files) for name in sorted(live | files)]
    emit(listed, _print_list)


@app.command
def show(name: str, /, *, limit: int = 20) -> None:
    """
    Show an endpoint: its live revision, and those before.

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
        history = store.catalog.find(Revision, order="-number", limit=limit, endpoint=name)
    emit({"live": live, "revisions": history}, lambda _: _print_endpoint(live, history))


@app.command
def check(name: str, /) -> None:
    """
    Try an endpoint's file on the background rows of its model, without making it live.

    Parameters
    ----------
    name
        Of the endpoint.
    """
    project = find()
    spec = specs.read(project, name)
    with Store.open(project.store_root, write=False) as store:
        tried = _try(project, store, spec)
    emit(tried, _print_tried)


@app.command
def apply(*names: str) -> None:
    """
    Make endpoint files live; a server that is up swaps without losing a request.

    Parameters
    ----------
    names
        Of the endpoints; all that have a file when none is named.
    """
    project = find()
    wanted = names or tuple(specs.names(project))
    if not wanted:
        raise NotFound(f"{project.endpoints} has no files.", "Write NAME.yaml there.")
    read = [specs.read(project, name) for name in wanted]
    with Store.open(project.store_root) as store:
        for spec in read:
            _try(project, store, spec)  # nothing goes live that cannot answer
        applied = [revisions.apply(project, store, spec) for spec in read]
    shown = [{"revision": found.revision, "is_new": found.is_new} for found in applied]
    emit(shown, lambda _: _print_applied(applied))


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
        back = revisions.rollback(store, name, to)
    emit(
        {"live": back}, lambda _: console().print(f"{revisions.ref(back)} is live: {_models(back)}")
    )


def _listed(store: Store, name: str, has_file: bool) -> Listed:
    live = revisions.live_revision(store.catalog, name)
    if live is None:
        return Listed(name, None, [], has_file)
    return Listed(name, revisions.ref(live), list(live.models.values()), has_file)


def _try(project: Project, store: Store, spec: specs.EndpointSpec) -> Tried:
    from fairlead.serve.loaded import LoadedRevision
    from fairlead.serve.pool import ModelPool

    draft, _ = revisions.resolve(project, store.catalog, spec)
    live = revisions.live_revision(store.catalog, spec.endpoint)
    loaded = LoadedRevision.load(draft, ModelPool(project))
    try:
        figures = _measure(loaded)
    finally:
        loaded.close()
    same = live is not None and revisions.content(live) == revisions.content(draft)
    return Tried(
        endpoint=spec.endpoint,
        live=None if live is None else revisions.ref(live),
        next=revisions.ref(live if live is not None and same else draft),
        models=draft.models,
        **figures,
    )


def _measure(loaded: LoadedRevision) -> dict[str, Any]:
    rows, refused = loaded.background()
    checked = loaded.checker.columns(rows)
    alone = sorted(_seconds(loaded, [row]) for row in rows[:50])
    return {
        "rows": len(rows),
        "refused_rows": refused,
        "flagged_rows": len({row for row, _ in checked.flags}),
        "row_ms": round(alone[len(alone) // 2] * 1000, 4) if alone else 0.0,
        "many_row_ms": round(_seconds(loaded, rows) * 1000 / len(rows), 4) if rows else 0.0,
    }


def _seconds(loaded: LoadedRevision, rows: list[Any]) -> float:
    start = time.perf_counter()
    loaded.answer(rows, [None] * len(rows))
    return time.perf_counter() - start


def _models(revision: Revision) -> str:
    return ", ".join(revision.models.values())


def _print_list(listed: list[Listed]) -> None:
    if not listed:
        message(
            "There are no endpoints. Write endpoints/NAME.yaml, then `fairlead endpoints apply`."
        )
        return
    width = max(len(item.endpoint) for item in listed)
    for item in listed:
        state = f"{item.revision}  {', '.join(item.models)}" if item.revision else "not applied"
        note = "" if item.file else "  (its file is gone)"
        console().print(f"{item.endpoint:<{width}}  {state}{note}")


def _print_endpoint(live: Revision, history: list[Revision]) -> None:
    out = console()
    out.print(
        f"{revisions.ref(live)} is live: {_models(live)}, logged by {revisions.durability(live)}"
    )
    for name, digest in live.packages.items():
        out.print(f"  package {name}  {digest}")
    if live.accepted.get("fields"):
        out.print(f"  accepted bounds: {', '.join(live.accepted['fields'])}")
    for item in history:
        out.print(f"  {revisions.ref(item)}  {when(item.created)}  {_models(item)}")


def _print_tried(tried: Tried) -> None:
    out = console()
    models = ", ".join(tried.models.values())
    if tried.next == tried.live:
        out.print(f"{tried.live} is live already: {models}")
    else:
        live = f"{tried.live} is live now" if tried.live else "nothing is live yet"
        out.print(f"{tried.endpoint}: apply makes {tried.next} of {models}; {live}")
    out.print(
        f"  {tried.rows} background rows answered, {tried.flagged_rows} flagged, "
        f"{tried.refused_rows} refused by accepted bounds"
    )
    out.print(f"  {tried.row_ms:.2f} ms a row alone, {tried.many_row_ms:.3f} ms among {tried.rows}")


def _print_applied(applied: list[revisions.Applied]) -> None:
    for item in applied:
        ref, models = revisions.ref(item.revision), _models(item.revision)
        console().print(
            f"{ref} is live: {models}" if item.is_new else f"{ref} was live already: {models}"
        )
