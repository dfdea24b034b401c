"""The first page: what needs a person now, what endpoints do, and what changed last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from clewline.console.live_numbers import live_numbers
from clewline.console.page import PageAnswer, PageRequest, PageRoute, View
from clewline.console.rendering import page_address
from clewline.formatting import format_duration, format_number, format_size
from clewline.html.charts import Tone
from clewline.html.markup import Markup
from clewline.html.sparklines import draw_sparkline
from clewline.serve.endpoint_list import EndpointRow, endpoint_rows, listed_endpoints
from clewline.serve.metrics.live_metrics import EndpointRates
from clewline.serve.overview import (
    Attention,
    FlaggedShare,
    find_attention,
    flagged_shares,
    recent_changes,
)

SHOWN = 24
"""Endpoints that are drawn; the page of endpoints lists all."""
DRAWN = 120
"""Newest readings that a line shows."""

VERBS = {
    "ran": "Run of",
    "registered": "Registered",
    "promoted": "Promoted to",
    "applied": "Applied",
    "live": "Live again",
}

Points = Sequence[tuple[float, EndpointRates | None]]


@dataclass(frozen=True, slots=True)
class Measure:
    """A number of an endpoint, and how it went."""

    title: str
    now: str
    note: str
    line: Markup | None = None
    is_bad: bool = False


@dataclass(frozen=True, slots=True)
class Glance:
    """An endpoint at a glance."""

    row: EndpointRow
    address: str
    state: str
    tone: Tone
    measures: Sequence[Measure]


class HomePage:
    """What needs a person now, what endpoints do, and what changed last."""

    name = "home"
    title = "Home"
    place = 10

    def routes(self) -> Sequence[PageRoute]:
        """Return its address."""
        return (PageRoute("/", show_home),)


def show_home(request: PageRequest) -> PageAnswer:
    """Show the project at a glance."""
    numbers = live_numbers(request.server)
    history = numbers.history
    records = request.store.catalog
    counts = history.latest.endpoints if history.latest else {}
    flags = flagged_shares(request.project.log)
    names = listed_endpoints(request.project, records)

    def urgency(name: str) -> tuple[bool, float, str]:
        known = counts.get(name)
        return (
            known is None or known.is_ready is not False,
            -(sum(known.requests.values()) if known else 0.0),
            name,
        )

    shown = sorted(names, key=urgency)[:SHOWN]
    glances = [
        _glance(
            row,
            history.of(row.endpoint)[-DRAWN:],
            flags.get(row.endpoint),
            is_failed=(known := counts.get(row.endpoint)) is not None and known.is_ready is False,
        )
        for row in endpoint_rows(request.project, records, shown)
    ]
    problem = numbers.problem
    if request.server.url is None:
        problem = "No prediction server runs beside this console, so there are no live numbers."
    values = {
        "attention": [
            (each, *attention_text(each))
            for each in find_attention(request.project, request.store, history.latest)
        ],
        "glances": glances,
        "others": len(names) - len(shown),
        "changes": [
            (each, VERBS[each.what], page_address(each.kind, each.ref))
            for each in recent_changes(request.store)
        ],
        "problem": problem,
    }
    return View("home.html", title=request.project.name, values=values)


def attention_text(found: Attention) -> tuple[str, str, str, str]:
    """Return a title, a sentence, the address that leads on, and a command (or nothing)."""
    values = found.values
    match found.code:
        case "finding":
            sentence = f"{values['what']} {values['fix']}".replace("`", "")
            return values["title"].capitalize(), sentence, "", "clewline doctor"
        case "failed_endpoint":
            revision = values["revision"]
            name = revision.rpartition("#")[0]
            sentence = f"{revision} does not answer: a worker could not load it, or crashed on it."
            command = f"clewline endpoints rollback {name}"
            return "Failed revision", sentence, page_address("revision", revision), command
        case "missing_workers":
            sentence = f"{values['ready']:.0f} of {values['workers']:.0f} workers answer."
            return "Missing workers", sentence, "/endpoints", ""
        case "ending_certificate":
            left = values["left_s"]
            ends = f"ends in {format_duration(left)}" if left > 0 else "has ended"
            return "Certificate", f"The certificate of the server {ends}.", "", ""
        case "full_disk":
            free, total = (format_size(values[key]) for key in ("free_bytes", "total_bytes"))
            sentence = f"{free} of {total} are free where {values['path']} is. "
            return "Full disk", sentence + "Predictions that cannot be logged are refused.", "", ""
        case "failed_run" | "interrupted_run":
            run, error = values["run"], values["error"]
            why = error.get("message") or error.get("type") or "its process has died"
            is_failed = found.code == "failed_run"
            sentence = f"The last run of {values['pipeline']} did not end: {why}"
            command = f"clewline runs show {run}"
            title = "Failed run" if is_failed else "Interrupted run"
            return title, sentence, page_address("run", run), command


def _glance(
    row: EndpointRow, points: Points, flags: FlaggedShare | None, *, is_failed: bool
) -> Glance:
    state = "failed" if is_failed else row.state
    address = f"/endpoints/{quote(row.endpoint, safe='')}" if row.revision else "/endpoints"
    tone: Tone = "good" if state == "live" else "bad" if state == "failed" else "other"
    return Glance(row, address, state, tone, _measures(points, flags))


def _measures(points: Points, flags: FlaggedShare | None) -> list[Measure]:
    span = format_duration(points[-1][0] - points[0][0]) if len(points) > 1 else ""

    def measure(
        title: str, unit: str, tone: Tone, read: Callable[[EndpointRates], float | None]
    ) -> Measure:
        values = [None if rates is None else read(rates) for _, rates in points]
        known = [value for value in values if value is not None]
        if not known:
            return Measure(title, "–", unit)
        last = values[-1]
        now = "–" if last is None else format_number(float(f"{last:.3g}"))
        most = format_number(float(f"{max(known):.3g}"))
        sentence = f"{title}, {unit}: now {now}, at most {most} in the last {span or 'moment'}."
        line = draw_sparkline(values, sentence, tone if max(known) > 0 else "plain")
        return Measure(
            title, now, f"{unit}, at most {most}", line, is_bad=tone == "bad" and max(known) > 0
        )

    share = Measure("Flagged", "–", "of the newest rows")
    if flags is not None:
        now = f"{100 * flags.flagged / flags.rows:.3g} %"
        share = Measure("Flagged", now, f"of the newest {flags.rows:,} rows")
    return [
        measure("Requests", "a second", "model", lambda rates: rates.requests),
        measure(
            "Slowest 1 %", "ms", "other", lambda rates: rates.p99_s and float(rates.p99_s * 1e3)
        ),
        measure("Failed", "a second", "bad", lambda rates: rates.errors + rates.failed_rows),
        share,
    ]
