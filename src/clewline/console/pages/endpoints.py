"""Endpoints: what they do now, their graphs and revisions, and how to call them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from clewline import config
from clewline.console.live_numbers import live_numbers
from clewline.console.page import (
    Event,
    EventStream,
    PageAnswer,
    PageRequest,
    PageRoute,
    Redirect,
    View,
)
from clewline.console.rendering import line_address, page_address
from clewline.console.table import Column, Table, TableRows, offset_source
from clewline.errors import ClewlineError, InvalidInput
from clewline.html.endpoint_drawing import draw_endpoint
from clewline.html.live_charts import RatePoints, draw_live_chart, live_charts, live_sentence
from clewline.html.markup import Content, element
from clewline.html.page import show_badge, show_chart
from clewline.model.registry_chain import APPLIED, ROLLED_BACK
from clewline.model.sealed_changes import sealed_changes
from clewline.protocols.example_calls import example_calls
from clewline.serve import revision as revisions
from clewline.serve.endpoint_list import EndpointRow, endpoint_rows, listed_endpoints
from clewline.serve.metrics.live_metrics import EndpointRates, MetricsHistory
from clewline.serve.revision import RevisionChange
from clewline.signature.field import Signature
from clewline.store.records import LiveRevision, Revision
from clewline.store.ref import find_revision
from clewline.store.store import Store

LOOK_S = 0.5
"""Between two looks for a new reading, by a stream of events."""
QUIET_S = 15.0
"""Without a reading for so long, a stream says that it is still there."""
REASON = 500
"""Most characters of a reason."""
MOVES_SHOWN = 10
"""Changes of the live revision that a page shows."""


class EndpointsPage:
    """What is served: numbers, graphs, revisions, calls."""

    name = "endpoints"
    title = "Endpoints"
    place = 20

    def routes(self) -> Sequence[PageRoute]:
        """Return the list, the page of one endpoint, its events, and the way back."""
        return (
            PageRoute("/endpoints", list_endpoints),
            PageRoute("/endpoints/{name}", show_endpoint),
            PageRoute("/endpoints/{name}/live", stream_numbers),
            PageRoute("/endpoints/{name}/rollback", roll_back, method="POST", role="operate"),
        )


def list_endpoints(request: PageRequest) -> PageAnswer:
    """List all endpoints with what they do now."""
    names = listed_endpoints(request.project, request.store.catalog)
    history = live_numbers(request.server).history

    def rows(offset: int, limit: int, sort: str) -> list[Mapping[str, Any]]:
        ordered = sorted(names, reverse=sort.startswith("-"))[offset : offset + limit]
        listed = endpoint_rows(request.project, request.store.catalog, ordered)
        return [_list_row(each, history) for each in listed]

    table = Table(
        "endpoints",
        (
            Column("endpoint", "Endpoint", sort=True, link=_endpoint_link),
            Column("state", "State", show=_state),
            Column("revision", "Revision", link=_revision_link),
            Column("models", "Models"),
            Column("requests", "Requests/s", kind="number"),
            Column("p99_ms", "99 % within, ms", kind="number"),
            Column("errors", "Failed/s", kind="number"),
            Column("since", "Live since", kind="time"),
        ),
        offset_source(rows, len(names)),
        request,
        empty=[
            "There are no endpoints. Write ",
            element("code", "endpoints/NAME.yaml"),
            ", then ",
            element("code", "clewline endpoints apply", data_copy="clewline endpoints apply"),
            ".",
        ],
        caption="Endpoints",
        sort="endpoint",
    )
    return View(
        "endpoints.html", title="Endpoints", values={"table": table, "problem": _problem(request)}
    )


def show_endpoint(request: PageRequest) -> PageAnswer:
    """Show an endpoint: its numbers, its graph, its revisions, and calls to copy."""
    name, records = request.path["name"], request.store.catalog
    live = revisions.require_live(records, name)
    state = records.get(LiveRevision, name)
    assert state is not None, "a live revision has a record that says so"
    asked = request.query.get("revision")
    shown = live if asked in (None, str(live.number)) else find_revision(records, f"{name}#{asked}")
    numbers = live_numbers(request.server)
    history = numbers.history
    points = history.of(name)
    counts = history.latest.endpoints.get(name) if history.latest else None
    is_live = shown.number == live.number
    graph = draw_endpoint(shown, counts if is_live else None, address=page_address)
    values = {
        "endpoint": name,
        "live": live,
        "shown": shown,
        "is_live": is_live,
        "is_unloaded": state.unloaded,
        "since": state.moved,
        "problem": _problem(request),
        "answering": counts.revision if counts is not None else None,
        "is_ready": counts.is_ready if counts is not None else None,
        "now": now_texts(_last(points)),
        "charts": [
            (chart.key, show_chart(draw_live_chart(chart, points))) for chart in live_charts(points)
        ],
        "graph": show_chart(graph),
        "table": _revision_table(request, name, live),
        "moves": _moves(request, name),
        "changes": [] if is_live else _changes(request.store, live, shown),
        "yaml": config.write(shown.spec),
        "calls": _calls(request, name) if is_live else {},
        "line": line_address(shown.ref),
        "predictions": f"/predictions?endpoint={quote(name, safe='')}",
        "may_operate": request.person.may("operate"),
        "reason_length": REASON,
    }
    title = name if is_live else shown.ref
    return View("endpoints_one.html", title=title, values=values)


def roll_back(request: PageRequest) -> PageAnswer:
    """Make an earlier revision live again."""
    name, number = request.path["name"], request.form.get("revision", "")
    if not (number.isascii() and number.isdecimal() and len(number) < 16):
        raise InvalidInput(
            f"{number!r} is not the number of a revision.", "Choose one in the list."
        )
    reason = request.form.get("reason", "").strip()[:REASON]
    if not reason:
        raise InvalidInput(
            f"{name}#{number} did not become live, because no reason was given.",
            "Say why, in words.",
        )
    with Store.open(request.project.store_root) as store:
        revisions.rollback(
            request.project, store, name, int(number), reason=reason, person=request.person.name
        )
    return Redirect(f"/endpoints/{quote(name, safe='')}")


def stream_numbers(request: PageRequest) -> PageAnswer:
    """Send what an endpoint does, as it is read."""
    name = request.path["name"]
    revisions.require_live(request.store.catalog, name)
    return EventStream(events_of(request, name))


async def events_of(
    request: PageRequest, name: str, *, look_s: float = LOOK_S
) -> AsyncIterator[Event]:
    """
    Yield all that is known of an endpoint (`history`), then each interval (`point`).

    While the server does not answer, each interval is a `silence` that says why. When an arm is
    new, all is sent again. A reader that was cut off begins with all that is known.
    """
    numbers = live_numbers(request.server)
    sent, arms, told = -1, None, time.monotonic()
    while True:
        history = await asyncio.to_thread(lambda: numbers.history)
        version = history.version
        if version != sent or sent < 0:
            points = history.of(name)
            fresh = points[-(version - sent) :] if 0 <= sent < version else points
            lines = {line.name for chart in live_charts(points) for line in chart.lines}
            is_new = sent < 0 or lines != arms
            sent, arms, told = version, lines, time.monotonic()
            if numbers.problem is not None:
                yield Event("silence", numbers.problem)
            if is_new:
                yield Event("history", encoded(points, points))
            else:
                yield Event("point", encoded(fresh, points))
        elif time.monotonic() - told > QUIET_S:
            told = time.monotonic()
            yield Event("silence" if numbers.problem else "quiet", numbers.problem or "")
        await asyncio.sleep(look_s)


def encoded(sent: RatePoints, all_points: RatePoints) -> str:
    """Write intervals as the script of the page reads them; all charts have their lines."""
    charts = live_charts(all_points)
    last = len(sent)
    return msgspec.json.encode(
        {
            "times": [round(time_s, 1) for time_s, _ in sent],
            "charts": [
                {
                    "key": chart.key,
                    "title": chart.title,
                    "unit": chart.unit,
                    "sentence": live_sentence(chart, all_points),
                    "lines": [
                        {
                            "name": line.name,
                            "tone": line.tone,
                            "dashed": line.dashed,
                            "values": line.values[len(line.values) - last :],
                        }
                        for line in chart.lines
                    ],
                }
                for chart in charts
            ],
            "now": now_texts(_last(all_points)),
        }
    ).decode()


def now_texts(rates: EndpointRates | None) -> dict[str, str]:
    """Write what an endpoint does now; – for what is not known."""
    if rates is None:
        return dict.fromkeys(("requests", "rows", "p50", "p99", "errors", "batch"), "–")

    def ms(seconds: float | None) -> str:
        return "–" if seconds is None else f"{seconds * 1e3:.3g} ms"

    return {
        "requests": f"{rates.requests:.3g}",
        "rows": f"{rates.rows:.3g}",
        "p50": ms(rates.p50_s),
        "p99": ms(rates.p99_s),
        "errors": f"{rates.errors:.3g}",
        "batch": "–" if rates.batch_rows is None else f"{rates.batch_rows:.3g}",
    }


def _last(points: RatePoints) -> EndpointRates | None:
    return points[-1][1] if points else None


def _problem(request: PageRequest) -> str | None:
    if request.server.url is None:
        return "No prediction server runs beside this console, so there are no numbers."
    return live_numbers(request.server).problem


def _list_row(listed: EndpointRow, history: MetricsHistory) -> Mapping[str, Any]:
    rates = _last(history.of(listed.endpoint))
    counts = history.latest.endpoints.get(listed.endpoint) if history.latest else None
    failed = counts is not None and counts.is_ready is False
    p99_s = rates.p99_s if rates else None
    return {
        "endpoint": listed.endpoint,
        "state": "failed" if failed else listed.state,
        "revision": listed.revision,
        "models": ", ".join(dict.fromkeys(listed.models)),
        "requests": rates.requests if rates else None,
        "p99_ms": None if p99_s is None else float(f"{p99_s * 1e3:.3g}"),
        "errors": rates.errors if rates else None,
        "since": listed.since,
    }


def _endpoint_link(row: Mapping[str, Any]) -> str | None:
    return f"/endpoints/{quote(row['endpoint'], safe='')}" if row["revision"] else None


def _revision_link(row: Mapping[str, Any]) -> str | None:
    return page_address("revision", row["revision"]) if row["revision"] else None


def _state(row: Mapping[str, Any]) -> Content:
    state = row["state"]
    return show_badge("good" if state == "live" else "bad" if state == "failed" else "other", state)


def _moves(request: PageRequest, name: str) -> list[Mapping[str, Any]]:
    """List what became live, newest first, by whom and why."""
    found: list[Mapping[str, Any]] = [
        {"revision": ref, "change": change}
        for change in sealed_changes(request.store.catalog, kinds=(APPLIED, ROLLED_BACK))
        for ref in change.refs
        if ref.rpartition("#")[0] == name
    ]
    return found[:MOVES_SHOWN]


def _changes(store: Store, before: Revision | None, after: Revision) -> list[RevisionChange]:
    return revisions.stored_changes(store.blobs, before, after)


def _revision_table(request: PageRequest, name: str, live: Revision) -> Table:
    records = request.store.catalog

    def rows(cursor: str | None, limit: int, sort: str) -> TableRows:
        offset = int(cursor) if cursor and cursor.isdecimal() and len(cursor) < 16 else 0
        found = records.find(
            Revision, order="-number", limit=limit + 1, offset=offset, endpoint=name
        )
        listed = []
        for place, each in enumerate(found[:limit]):
            before = found[place + 1] if place + 1 < len(found) else None
            changes = [] if before is None else _changes(request.store, before, each)
            listed.append(
                {
                    "revision": each.ref,
                    "number": each.number,
                    "state": "live" if each.number == live.number else "",
                    "applied": each.created,
                    "models": ", ".join(dict.fromkeys(each.models.values())),
                    "changes": "; ".join(map(_change_text, changes)) or "the first",
                    "is_first": before is None,
                }
            )
        more = str(offset + limit) if len(found) > limit else None
        return TableRows(listed, more, records.reader.count(Revision, endpoint=name))

    return Table(
        "revisions",
        (
            Column("revision", "Revision", link=_revision_link),
            Column("state", "State", show=lambda row: _state(row) if row["state"] else ""),
            Column("applied", "Applied", kind="time"),
            Column("models", "Models"),
            Column("changes", "Differs from the one before in"),
        ),
        rows,
        request,
        caption=f"Revisions of {name}",
    )


def _change_text(change: RevisionChange) -> str:
    if change.before is None:
        return f"{change.what} is new: {change.after}"
    if change.after is None:
        return f"{change.what} is gone"
    return f"{change.what}: {change.before} → {change.after}"


def _calls(request: PageRequest, name: str) -> dict[str, str]:
    """Ask the server which fields the endpoint takes; empty while it does not answer."""
    url = request.server.url
    if url is None:
        return {}
    where = f"/v1/endpoints/{quote(name, safe='')}"
    try:
        answers = [request.server.get(path) for path in (where, f"{where}/openapi.json")]
    except ClewlineError:
        return {}  # the page says already that the server does not answer
    if any(answer.status != 200 for answer in answers):
        return {}
    described = msgspec.json.decode(answers[0].body, type=_Described)
    if described.signature is None:
        return {}
    # A security requirement without a scheme means that a call needs no token.
    needs_token = {} not in msgspec.json.decode(answers[1].body, type=_Secured).security
    return example_calls(url, name, described.signature.fields, needs_token=needs_token)


class _Described(msgspec.Struct):
    signature: Signature | None = None


class _Secured(msgspec.Struct):
    security: list[dict[str, Any]] = []
