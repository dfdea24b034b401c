"""Predictions: searched for, and each with its line, its explanations and its replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from clewline.console.jobs import JobResult, command_work
from clewline.console.page import PageAnswer, PageRequest, PageRoute, Redirect, View
from clewline.console.rendering import line_address, page_address
from clewline.console.table import Column, Table, TableRows
from clewline.errors import ClewlineError, InvalidInput
from clewline.explain.explain_prediction import read_explanation
from clewline.explain.explanation_text import explanation_lines
from clewline.explainer_kinds import kinds
from clewline.formatting import format_count, format_time_ms
from clewline.html.charts import Bar, draw_bars
from clewline.html.lineage_drawing import draw_lineage
from clewline.html.markup import Markup, element
from clewline.html.page import show_badge, show_chart
from clewline.model.registry import Registry
from clewline.serve.lineage_text import answer_text, choice_text, shadow_text
from clewline.serve.prediction_lineage import PredictionDetails, read_prediction, why_prediction
from clewline.serve.prediction_search import (
    PredictionFilter,
    read_prediction_filter,
    search_predictions,
)
from clewline.signature.field import Field
from clewline.store.ids import id_time_s
from clewline.store.records import ExplanationRecord, LiveRevision

FILTERS = ("id", "endpoint", "since", "until", "label", "arm", "model", "entity", "flagged",
           "tried", "where")  # fmt: skip
FIELDS_IN_A_ROW = 6
DRAWN_KINDS = ("attributions", "what-if")


class PredictionsPage:
    """Predictions: searched for, and each with its line."""

    name = "predictions"
    title = "Predictions"
    place = 30

    def routes(self) -> Sequence[PageRoute]:
        """Return the search, the page of one prediction, and what can be asked of it."""
        return (
            PageRoute("/predictions", list_predictions),
            PageRoute("/predictions/{prediction}", show_prediction),
            PageRoute("/predictions/{prediction}/explain", explain, "POST", "review"),
            PageRoute("/predictions/{prediction}/replay", replay, "POST", "review"),
        )


# The search


def list_predictions(request: PageRequest) -> PageAnswer:
    """List the predictions that match, newest first."""
    wanted = read_prediction_filter({name: request.query.get(name, "") for name in FILTERS})
    looked: list[str] = []

    def source(cursor: str | None, limit: int, _: str) -> TableRows:
        found = search_predictions(request.project.log, wanted, limit=limit, before=cursor)
        if found.next is not None and len(found.items) < limit:
            count = format_count(found.looked_at, "prediction")
            looked.append(f"Looked at {count}, back to {format_time_ms(found.reached or 0)}.")
        return TableRows([_row(item) for item in found.items], found.next)

    table = Table(
        "predictions",
        (
            Column("id", "Prediction", "id", link=lambda row: f"/predictions/{row['id']}"),
            Column("time", "Answered", "time"),
            Column("answer", "Answer"),
            Column("endpoint", "Endpoint", link=lambda row: _endpoint_address(row["endpoint"])),
            Column("model", "Model"),
            Column("arm", "Arm"),
            Column("entity", "About"),
            Column("flags", "Flags", show=_flags),
        ),
        source,
        request,
        empty=_empty(wanted),
        caption="Predictions that match, newest first",
    )
    written = table.markup() if "export" not in request.query else table
    endpoints = [live.endpoint for live in request.store.catalog.find(LiveRevision, limit=1000)]
    values = {
        "predictions": table,
        "table": written,
        "looked": looked[0] if looked else "",
        "asked": {name: request.query.get(name, "") for name in FILTERS},
        "endpoints": sorted(endpoints),
        "is_filtered": wanted != PredictionFilter(),
    }
    return View("predictions.html", title="Predictions", values=values)


def _row(item: Any) -> Mapping[str, Any]:
    answer = msgspec.json.decode(item.answer)
    return {
        "id": item.id,
        "time": id_time_s(item.id),
        "answer": answer_text(answer),
        "endpoint": item.batch.endpoint,
        "model": item.route_path.model,
        "arm": item.route_path.arm or None,
        "entity": item.entity,
        "flags": len(answer.get("flags") or ()) or None,
        "tried": item.tried,
    }


def _flags(row: Mapping[str, Any]) -> Any:
    flagged = show_badge("other", format_count(row["flags"], "flag")) if row["flags"] else None
    return [
        flagged,
        " " if flagged else None,
        show_badge("plain", "tried") if row["tried"] else None,
    ]


def _endpoint_address(name: str) -> str:
    return f"/endpoints/{quote(name, safe='')}"


def _empty(wanted: PredictionFilter) -> Any:
    if wanted != PredictionFilter():
        return "No prediction that was looked at is like that. Leave a part of the filter out."
    call = "clewline up"
    return [
        "There are no predictions yet. Start the server with ",
        element("code", call, data_copy=call),
        " and ask an endpoint, or try one by hand.",
    ]


# One prediction


def show_prediction(request: PageRequest) -> PageAnswer:
    """Show a prediction: its row, its answer, its way, its line, and what is said of it."""
    record = read_prediction(request.project, request.path["prediction"])
    line, line_problem = None, ""
    try:
        chart = draw_lineage(why_prediction(request.project, record.id), address=page_address)
        line = show_chart(chart)
    except ClewlineError as error:  # a package or a revision may be gone; the log is not
        line_problem = error.message
    answer: dict[str, Any] = msgspec.json.decode(record.answer)
    row: Any = msgspec.json.decode(record.input)
    stored = request.store.catalog.find(
        ExplanationRecord, prediction=record.id, order="-created", limit=20
    )
    values = {
        "record": record,
        "answer": answer_text(answer),
        "shares": _shares(answer),
        "flags": [_flag_text(flag) for flag in answer.get("flags") or ()],
        "fields": _field_rows(request, record, row if isinstance(row, dict) else {}, answer),
        "choices": [choice_text(choice) for choice in record.choices],
        "shadows": [shadow_text(*each) for each in record.shadows.items()],
        "path": _path_chart(record),
        "line": line,
        "line_problem": line_problem,
        "line_address": line_address(record.id),
        "explanations": [_explanation(each) for each in stored],
        "kinds": [kind for kind in kinds() if kind != "what-if"],
        "may_ask": request.person.may("review"),
        "endpoint_address": _endpoint_address(record.endpoint),
        "raw": msgspec.json.format(bytes(record.answer), indent=2).decode(),
    }
    return View("predictions_one.html", title=f"Prediction {record.id}", values=values)


def _shares(answer: Mapping[str, Any]) -> Markup | None:
    shares = answer.get("probabilities") or {}
    known = [(str(label), share) for label, share in shares.items() if share is not None]
    if not known:
        return None
    most = sorted(known, key=lambda each: -each[1])[:12]
    bars = [
        Bar(label, share, tone="model" if label == str(answer.get("label")) else "plain")
        for label, share in most
    ]
    first, share = most[0]
    sentence = f"{first} is the most probable, with {share:.4g}."
    return show_chart(draw_bars("Probabilities", sentence, bars, what="label", value="probability"))


def _flag_text(flag: Mapping[str, Any]) -> str:
    limits = flag.get("bounds")
    beyond = f" [{limits[0]}, {limits[1]}]" if limits else ""
    return f"{flag.get('field')} is {flag.get('value')}, {flag.get('flag')}{beyond}"


def _field_rows(
    request: PageRequest,
    record: PredictionDetails,
    row: Mapping[str, Any],
    answer: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return the fields of a row with what the signature says of each, where it can be read."""
    flagged = {flag.get("field") for flag in answer.get("flags") or ()}
    known: dict[str, Field] = {}
    if "+" not in record.model and record.model:
        try:
            package = Registry(request.project, request.store).open(record.model)
            known = {field.name: field for field in package.signature.fields}
        except ClewlineError:
            known = {}  # the package is gone or damaged, as the line says
    return [
        {
            "name": name,
            "value": value if isinstance(value, str) else msgspec.json.encode(value).decode(),
            "unit": known[name].unit if name in known else None,
            "limits": _limits(known[name]) if name in known else "",
            "is_flagged": name in flagged,
        }
        for name, value in row.items()
    ]


def _limits(field: Field) -> str:
    if texts := field.bound_texts():
        return f"{texts[0]} to {texts[1]}"
    if field.levels is not None:
        return format_count(len(field.levels), "level")
    return field.kind


def _path_chart(record: PredictionDetails) -> Markup | None:
    """Draw the time of each node; of one node there is nothing to compare."""
    if len(record.path) < 2:
        return None
    bars = [Bar(node, spent_us / 1000) for node, spent_us in record.path]
    slowest = max(record.path, key=lambda each: each[1])
    rows = format_count(record.batch_rows, "row")
    sentence = f"{slowest[0]} took longest: {slowest[1] / 1000:.3g} ms for a batch of {rows}."
    return show_chart(draw_bars("Time of each node", sentence, bars, what="node", value="ms"))


def _explanation(record: ExplanationRecord) -> dict[str, Any]:
    try:
        found = read_explanation(record)
    except ClewlineError as error:
        return {"record": record, "problem": error.message, "chart": None, "lines": ""}
    chart = None
    if record.kind in DRAWN_KINDS:
        from clewline.html.explanation_drawing import draw_attributions, draw_what_if

        draw: Any = draw_attributions if record.kind == "attributions" else draw_what_if
        chart = show_chart(draw(found))
    lines = "\n".join(explanation_lines(found))
    return {"record": record, "problem": "", "chart": chart, "lines": lines}


# What can be asked of it


def explain(request: PageRequest) -> PageAnswer:
    """Explain the prediction, as `clewline explain` does, in a process of its own."""
    prediction, kind = request.path["prediction"], request.form.get("kind", "")
    if kind and kind not in kinds():
        raise InvalidInput(f"There is no kind of explanation {kind!r}.", "Choose one in the list.")
    words = ["explain", prediction, *(["--kind", kind] if kind else [])]
    address = f"/predictions/{quote(prediction, safe='')}#explanations"

    def result(printed: bytes) -> JobResult:
        found = msgspec.json.decode(printed)
        return JobResult(f"{found['kind']}: {found.get('status', 'made')}.", address)

    job = request.jobs.start(
        f"Explain prediction {prediction}",
        command_work(request.project, words, result),
        person=request.person.name,
        key=" ".join(words),
    )
    return Redirect(job.address)


def replay(request: PageRequest) -> PageAnswer:
    """Answer the prediction again, as `clewline replay` does, and say whether it is equal."""
    prediction = request.path["prediction"]
    address = f"/predictions/{quote(prediction, safe='')}"

    def result(printed: bytes) -> JobResult:
        found = msgspec.json.decode(printed)
        if found["equal"]:
            compared = format_count(len(found["compared"]), "value")
            return JobResult(f"Equal, bit for bit: {compared} compared.", address)
        differing = [each["what"] for each in found["compared"] if not each["equal"]]
        return JobResult(f"It differs: {', '.join(differing)}.", address)

    words = ["replay", prediction]
    job = request.jobs.start(
        f"Replay prediction {prediction}",
        command_work(request.project, words, result, answers=(0, 1)),
        person=request.person.name,
        key=" ".join(words),
    )
    return Redirect(job.address)
