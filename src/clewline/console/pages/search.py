"""Search: from an id, a name, a digest or a path to its page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import quote

from clewline.console.page import PageAnswer, PageRequest, PageRoute, Redirect, View
from clewline.console.rendering import page_address
from clewline.errors import ClewlineError
from clewline.serve.log.reader import get_prediction
from clewline.store.records import LiveRevision, ModelVersion, Run
from clewline.store.ref import resolve

MOST = 30
"""Names that are shown when nothing has just this one."""


class SearchPage:
    """From an id, a name, a digest or a path to its page."""

    name = "search"
    title = "Search"
    place = None

    def routes(self) -> Sequence[PageRoute]:
        """Return its address."""
        return (PageRoute("/search", search),)


def search(request: PageRequest) -> PageAnswer:
    """Go to the one thing of that name, or list those whose names hold the words."""
    text = request.query.get("q", "").strip()
    if not text:
        return View("search.html", title="Search", values={"text": "", "found": []})
    try:
        return Redirect(_address_of(request, text))
    except ClewlineError:
        found = list(_with_words(request, text.lower()))
    if len(found) == 1:
        return Redirect(found[0][1])
    values = {"text": text, "found": found[:MOST], "more": max(0, len(found) - MOST)}
    return View("search.html", title="Search", values=values, status=200 if found else 404)


def _address_of(request: PageRequest, text: str) -> str:
    """
    Return the address of what a reference names.

    Raises:
        NotFound, UsageError: It names nothing.
    """
    catalog = request.store.catalog
    if catalog.get(LiveRevision, text) is not None:
        return f"/endpoints/{quote(text, safe='')}"
    if catalog.find(ModelVersion, limit=1, name=text):
        return f"/models/{quote(text, safe='')}"
    if "-" in text and len(text) == 36:
        return page_address("prediction", get_prediction(request.project.log, text).id)
    found = resolve(catalog, text)
    return page_address(found.kind, found.id)


def _with_words(request: PageRequest, text: str) -> Iterator[tuple[str, str, str]]:
    """Yield kind, address and name of what has the text in its name."""
    catalog = request.store.catalog
    for page in request.pages:
        if page.place is not None and text in page.title.lower():
            yield "page", page.routes()[0].path, page.title
    endpoints = [live.endpoint for live in catalog.find(LiveRevision, limit=None)]
    models = {version.name for version in catalog.find(ModelVersion, limit=None)}
    pipelines = {run.pipeline for run in catalog.find(Run, order="-started", limit=500)}
    for kind, names, address in (
        ("endpoint", endpoints, "/endpoints/"),
        ("model", models, "/models/"),
        ("pipeline", pipelines, "/runs?pipeline="),
    ):
        for name in sorted(name for name in names if text in name.lower()):
            yield kind, address + quote(name, safe=""), name
