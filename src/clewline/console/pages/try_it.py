"""Try it: a form of an endpoint's fields, its answer, what moved it, and what would change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from blake3 import blake3

from clewline.console.page import Fragment, PageAnswer, PageRequest, PageRoute, Redirect, View
from clewline.errors import ClewlineError, InvalidInput, NotFound, NotSupported
from clewline.explain.attributions import AttributionExplanation
from clewline.explain.what_if import WhatIfExplanation
from clewline.html.charts import Bar, Scale, draw_bars
from clewline.html.explanation_drawing import draw_attributions, draw_what_if
from clewline.html.markup import Markup, element
from clewline.html.page import show_chart
from clewline.model.registry import Registry
from clewline.serve.example_rows import example_rows
from clewline.signature.field import Field, Signature
from clewline.signature.typed_texts import json_of_texts
from clewline.store.records import LiveRevision
from clewline.store.ref import find_revision

VALUE = "f-"
"""Begins the name of a field's value in the address."""
EXAMPLES = 20
LABELS = 10
"""Labels whose probability is drawn."""
CHOICES = 60
"""Levels that a list to choose from holds; of more, a text field suggests them."""
EXPLAIN_S = 20.0


class TryItPage:
    """Asks an endpoint without writing code."""

    name = "try_it"
    title = "Try it"
    place = 35

    def routes(self) -> Sequence[PageRoute]:
        """Return the addresses of the endpoints, of a form, and of its parts."""
        return (
            PageRoute("/try", choose_endpoint),
            PageRoute("/try/{endpoint}", try_row),
            PageRoute("/try/{endpoint}/curve", show_curve),
            PageRoute("/try/{endpoint}/explanation", show_explanation),
        )


def choose_endpoint(request: PageRequest) -> PageAnswer:
    """List the endpoints; go to the only one."""
    live = request.store.catalog.find(LiveRevision, order="endpoint", limit=1_000)
    if len(live) == 1:
        return Redirect(f"/try/{quote(live[0].endpoint, safe='')}")
    return View("try_it_choose.html", title="Try it", values={"live": live})


def try_row(request: PageRequest) -> PageAnswer:
    """Show the form of an endpoint, and the answer to the row in the address."""
    endpoint = request.path["endpoint"]
    described = _describe(request, endpoint)
    signature = msgspec.convert(described["signature"], Signature)
    for field in signature.fields:
        if field.kind == "tensor":
            raise NotSupported(
                f"{endpoint} reads arrays ({field.name}), which no form holds.",
                "Ask it in Python: `clewline.client`.",
            )
    registry = Registry(request.project, request.store)
    revision = find_revision(request.store.catalog, described["revision"])
    examples = example_rows(registry, revision, signature, limit=EXAMPLES)
    example = _example(request, len(examples))
    filled = {
        field.name: _cell(examples[example].get(field.name)) if examples else ""
        for field in signature.fields
    }
    given = {
        name.removeprefix(VALUE): value
        for name, value in request.query.items()
        if name.startswith(VALUE)
    }
    texts = {name: given.get(name, text) for name, text in filled.items()}
    problems: dict[str, str] = {}
    values: dict[str, Any] = {"answer": None, "message": "", "chart": None, "attributions": None}
    if given:
        try:
            answer = _ask(request, endpoint, described["revision"], signature, texts)
        except InvalidInput as error:
            values["message"] = error.message
            problems = {each.field or "": f"expected {each.expected}" for each in error.fields}
        else:
            values |= {"answer": answer, "chart": _probabilities(answer)}
            if request.query.get("explain") == "yes":
                values["attributions"] = _attributions(request, answer["id"])
    curve = request.query.get("curve", "")
    if values["answer"] and curve:
        values["curve"] = _curve(request, values["answer"]["id"], curve)
    accepted = described.get("accepted") or {}
    return View(
        "try_it.html",
        title=f"Try {endpoint}",
        status=422 if values["message"] else 200,
        values={
            "curve": None,
            **values,
            "endpoint": endpoint,
            "revision": described["revision"],
            "output": signature.output,
            "examples": len(examples),
            "example": example,
            "fields": [
                _shown(place, field, texts[field.name], problems.get(field.name, ""))
                for place, field in enumerate(signature.fields)
            ],
            "accepted": accepted,
            "where": f"/try/{quote(endpoint, safe='')}",
        },
    )


def show_curve(request: PageRequest) -> PageAnswer:
    """Answer with the curve over one field."""
    return Fragment(_curve(request, request.query.get("prediction", ""), request.query["field"]))


def show_explanation(request: PageRequest) -> PageAnswer:
    """Answer with what moved the answer."""
    return Fragment(_attributions(request, request.query.get("prediction", "")))


def _describe(request: PageRequest, endpoint: str) -> dict[str, Any]:
    """Return what the server says of an endpoint, which is loaded first if it is cold."""
    path = f"/v1/endpoints/{quote(endpoint, safe='')}"
    described = request.server.get(path).decoded()
    if "signature" not in described:
        request.server.get(f"{path}/openapi.json").decoded()
        described = request.server.get(path).decoded()
    if "signature" not in described:
        failure = described.get("failure") or {}
        raise NotFound(
            f"{endpoint} has no revision that answers. {failure.get('message', '')}".strip(),
            "`clewline endpoints show` says why.",
        )
    found: dict[str, Any] = described
    return found


def _ask(
    request: PageRequest,
    endpoint: str,
    revision: str,
    signature: Signature,
    texts: Mapping[str, str],
) -> dict[str, Any]:
    """
    Have the endpoint answer a row, logged as tried.

    The same row under the same revision is answered once a day: whoever opens the same address
    gets the same prediction, with its explanations.
    """
    body = json_of_texts(signature.fields, texts)
    key = blake3(f"{revision}\0".encode() + body).hexdigest()[:32]
    answer = request.server.post(
        f"/v1/endpoints/{quote(endpoint, safe='')}/predict",
        body,
        headers={"Clewline-Tried": "true", "Idempotency-Key": f"try-{key}"},
    ).decoded()
    found: dict[str, Any] = answer["predictions"][0]
    return found


def _explain(request: PageRequest, prediction: str, kind: str, options: dict[str, Any]) -> bytes:
    body = msgspec.json.encode({"kind": kind, "options": options})
    path = f"/v1/predictions/{quote(prediction, safe='')}/explain"
    answer = request.server.post(path, body, timeout_s=EXPLAIN_S + 5)
    answer.decoded()
    return answer.body


def _attributions(request: PageRequest, prediction: str) -> Markup:
    try:
        body = _explain(request, prediction, "attributions", {})
    except ClewlineError as error:
        return _why_not(error)
    return show_chart(draw_attributions(msgspec.json.decode(body, type=AttributionExplanation)))


def _curve(request: PageRequest, prediction: str, field: str) -> Markup:
    try:
        body = _explain(request, prediction, "what-if", {"field": field})
    except ClewlineError as error:
        return _why_not(error)
    return show_chart(draw_what_if(msgspec.json.decode(body, type=WhatIfExplanation)))


def _why_not(error: ClewlineError) -> Markup:
    return element("p", f"{error.message} {error.fix or ''}", class_="note", role="status")


def _probabilities(answer: Mapping[str, Any]) -> Markup | None:
    found: dict[str, float] = answer.get("probabilities") or {}
    if not found:
        return None
    best = sorted(found.items(), key=lambda pair: -pair[1])
    label = _cell(answer["label"])
    chart = draw_bars(
        "Probabilities",
        f"{label} has {found.get(label, best[0][1]):.4g}"
        + (f"; the {LABELS} most likely of {len(found)} labels." if len(found) > LABELS else "."),
        [
            Bar(name, value, tone="model" if name == label else "plain")
            for name, value in best[:LABELS]
        ],
        what="label",
        value="probability",
        scale=Scale(0.0, 1.0),
    )
    return show_chart(chart)


def _example(request: PageRequest, count: int) -> int:
    text = request.query.get("example", "1")
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and int(text) > 0):
        raise InvalidInput(f"{text!r} is no example.", f"Choose 1 to {max(count, 1)}.")
    return min(int(text), max(count, 1)) - 1


def _cell(value: Any) -> str:
    """Write a value as a person types it; null is empty."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


def _shown(place: int, field: Field, text: str, problem: str) -> dict[str, Any]:
    """Return a field as the form shows it."""
    bounds = field.bound_texts()
    levels = list(field.levels or ())
    if field.kind == "boolean":
        levels = ["true", "false"]
    slides = field.kind in ("number", "integer") and field.bounds is not None
    return {
        "id": f"field-{place}",
        "name": field.name,
        "kind": field.kind,
        "unit": field.unit,
        "text": text,
        "problem": problem,
        "nullable": field.nullable,
        "levels": levels,
        "is_choice": 0 < len(levels) <= CHOICES,
        "bounds": f"{bounds[0]} to {bounds[1]}" if bounds else "",
        "slides": slides,
        "low": field.bounds[0] if field.bounds and slides else None,
        "high": field.bounds[1] if field.bounds and slides else None,
        "has_curve": field.kind != "text",
    }
