"""How views become HTML: Jinja2 templates of each page, in the frame that all share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from clewline import formatting
from clewline.console.page import ConsolePage, PageRequest, View
from clewline.console.table import relative_time, short_id
from clewline.html.markup import Markup, element

TEMPLATES = Path(__file__).parent / "templates"


def page_folder(page: ConsolePage) -> Path:
    """Return the folder of a page's module, in which its templates stand."""
    return Path(str(sys.modules[type(page).__module__].__file__)).parent


def render(
    page: ConsolePage | None,
    view: View,
    request: PageRequest,
    navigation: Sequence[Mapping[str, Any]],
    assets: Mapping[str, Any],
) -> str:
    """
    Write a view as a whole page.

    Args:
        page: The page that gave it; None for a view of the frame's own, such as an error.
        view: Its template and values.
        request: What was asked.
        navigation: Title and address of each page that stands there.
        assets: What the frame links to: style and script.
    """
    folder = TEMPLATES if page is None else page_folder(page)
    return (
        _environment(folder)
        .get_template(view.template)
        .render(
            {
                **view.values,
                "title": view.title,
                "request": request,
                "person": request.person,
                "project": request.project,
                "page": page,
                "navigation": navigation,
                "assets": assets,
                "address": request.address,
                "csrf": lambda: element(
                    "input", type="hidden", name="csrf", value=request.csrf_token
                ),
            }
        )
    )


@cache
def _environment(folder: Path) -> Environment:
    environment = Environment(
        loader=FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    functions: dict[str, Callable[..., Any]] = {
        "ago": relative_time,
        "short_id": short_id,
        "link_to": link_to,
        "line_address": line_address,
        "command": command,
        "size": formatting.format_size,
        "duration": formatting.format_duration,
        "count": formatting.format_count,
        "number": formatting.format_number,
    }
    environment.globals.update(functions)
    return environment


def command(text: str) -> Markup:
    """Write a command that a person can copy."""
    return element("code", text, class_="command", data_copy=text)


def line_address(ref: str, direction: str = "why") -> str:
    """Return the address of the line of anything."""
    return f"/line/{quote(ref, safe='')}?direction={direction}"


def link_to(kind: str, ref: str, text: str | None = None) -> Markup:
    """
    Write a link to the page of a record.

    Args:
        kind: As in `store.ref.RecordRef`: prediction, revision, model, run, step, artifact, …
        ref: Its id, such as `income@3`.
        text: What is shown; the id by default.
    """
    shown = text if text is not None else ref if len(ref) <= 40 else f"{ref[:8]}…{ref[-4:]}"
    return element("a", shown, href=page_address(kind, ref), title=ref)


def page_address(kind: str, ref: str) -> str:
    """Return the address of the page that shows a record; its line, where it has no page."""
    name, _, number = ref.rpartition("@" if kind == "model" else "#")
    quoted = quote(ref, safe="")
    if kind == "model" and name:
        return f"/models/{quote(name, safe='')}/{quote(number, safe='')}"
    if kind == "revision" and name:
        return f"/endpoints/{quote(name, safe='')}?revision={quote(number, safe='')}"
    pages = {"prediction": "/predictions/", "run": "/runs/", "artifact": "/artifacts/"}
    if kind in pages:
        return pages[kind] + quoted
    return line_address(ref)
