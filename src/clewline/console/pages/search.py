"""Search: from an id, a name, a digest or a path to its page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import quote

from clewline.console.page import Fragment, PageAnswer, PageRequest, PageRoute, Redirect, View
from clewline.console.rendering import page_address
from clewline.errors import ClewlineError
from clewline.html.markup import element, isolated, join
from clewline.serve.log.reader import get_prediction
from clewline.store.records import LiveRevision, ModelVersion, Run
from clewline.store.ref import resolve

MOST = 30
"""Names that are shown when nothing has just this one."""
SUGGESTED = 8
"""Names that are shown while somebody types."""


class SearchPage:
    """From an id, a name, a digest or a path to its page."""

    name = "search"
    title = "Search"
    place = None

    def routes(self) -> Sequence[PageRoute]:
        """Return its address, and that of what is shown while somebody types."""
        return (PageRoute("/search", search), PageRoute("/search/suggestions", suggest))


def search(request: PageRequest) -> PageAnswer:
    """Go to the one thing of that name, or list those whose names hold the words."""
    text = request.query.get("q", "").strip()
    if not text:
        return View("search.html", title="Search", values={"text": "", "found": []})
    named = _address_of(request, text)
    if named is not None:
        return Redirect(named)
    found = list(_with_words(request, text.lower()))
    if len(found) == 1:
        return Redirect(found[0][1])
    values = {"text": text, "found": found[:MOST], "more": max(0, len(found) - MOST)}
    return View("search.html", title="Search", values=values, status=200 if found else 404)


def suggest(request: PageRequest) -> PageAnswer:
    """Return the options of the list below the field: what the text names, then what holds it."""
    text = request.query.get("q", "").strip()
    named = _address_of(request, text) if text else None
    found = [("go to", named, text)] if named else []
    for kind, address, name in _with_words(request, text.lower()):
        if len(found) < SUGGESTED and all(address != other for _, other, _ in found):
            found.append((kind, address, name))
    options = [
        element(
            "li",
            isolated(name, 60),
            " ",
            element("small", kind),
            role="option",
            id=f"suggestion-{place}",
            data_address=address,
        )
        for place, (kind, address, name) in enumerate(found)
    ]
    return Fragment(join(options))


def _address_of(request: PageRequest, text: str) -> str | None:
    """Return the address of what a reference names; None if it names nothing, or several."""
    catalog = request.store.catalog
    if catalog.get(LiveRevision, text) is not None:
        return f"/endpoints/{quote(text, safe='')}"
    if catalog.find(ModelVersion, limit=1, name=text):
        return f"/models/{quote(text, safe='')}"
    try:
        if "-" in text and len(text) == 36:
            return page_address("prediction", get_prediction(request.project.log, text).id)
        found = resolve(catalog, text)
    except ClewlineError:
        return None
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
