"""`/openapi.json`: the routes, with rows and answers typed by the signatures of live endpoints."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from heapq import nsmallest
from importlib.metadata import version
from typing import Any

import msgspec

from clewline.protocols.http.error_responses import STATUS
from clewline.protocols.http.route import RouteGroup
from clewline.protocols.rest.content_types import (
    CSV_TYPE,
    JSON_TYPE,
    NDJSON_TYPE,
    READ,
    WRITTEN,
)
from clewline.serve.conformal_sets import option_of
from clewline.serve.json_reader import MAX_ROWS
from clewline.serve.loaded_revision import LoadedRevision
from clewline.serve.served_endpoint import ServedEndpoint
from clewline.signature import timestamps
from clewline.signature.field import Output, Signature, label_name
from clewline.signature.field_rules import FieldRule

Schema = dict[str, Any]

TYPED_ENDPOINTS = 64
"""Endpoints that the document of the server types; each has a document of its own."""
KEPT_DOCUMENTS = 16
"""Documents that are kept written, so that they are not built for every request."""

TAGS = {
    "predict": "Predictions.",
    "endpoints": "The endpoints of this server.",
    "predictions": "The predictions that were answered.",
    "health": "The server itself.",
}
REFUSALS = {
    "400": "The body does not match its content type, holds no rows, or a header is wrong.",
    "401": "There is no token, or it is not valid.",
    "403": "The token has no role that allows this, or a page of another site sent this.",
    "404": "There is no such endpoint, or an operator has unloaded it.",
    "406": "No format in Accept can be written.",
    "409": "The Idempotency-Key was sent with another body before.",
    "413": "The body is too large, or has too many rows.",
    "415": "The content type or encoding of the body cannot be read.",
    "421": "The request asks for a host that is not this server.",
    "422": "Rows do not fit the signature; every bad row and field is named.",
    "429": "Too many wrong tokens came from this address.",
    "500": "A node of the endpoint raised, or a file of the server is damaged.",
    "501": "There is no such kind of explanation, or it cannot explain this prediction.",
    "503": "The queue is full; Retry-After says when to try again.",
    "504": "The time that the caller allowed is over.",
    "507": "The disk is full; nothing is answered that cannot be logged.",
}
ACCESS = ("401", "403", "421", "429")
"""Statuses that every route may answer."""
PREDICT = tuple(status for status in REFUSALS if status != "501")

_MOVE = ("404", "500", "503", "507")
_EXPLAIN = ("400", "404", "413", "422", "500", "501", "503", "504", "507")
_ROUTES = (
    ("endpoints", "get", "/v1/endpoints", "List the endpoints.", ()),
    ("endpoints", "get", "/v1/endpoints/{name}", "Show one endpoint.", ("404",)),
    ("endpoints", "get", "/v1/endpoints/{name}/openapi.json", "Describe one endpoint.", _MOVE),
    ("endpoints", "post", "/v1/endpoints/{name}/load", "Let an endpoint answer again.", _MOVE),
    ("endpoints", "post", "/v1/endpoints/{name}/unload", "Stop an endpoint's answers.", _MOVE),
    ("predictions", "get", "/v1/predictions", "List predictions.", ("400", "404", "500")),
    ("predictions", "get", "/v1/predictions/{id}", "Show one and its lineage.", ("404", "500")),
    ("predictions", "post", "/v1/predictions/{id}/explain", "Explain one.", _EXPLAIN),
    (
        "predictions",
        "get",
        "/v1/predictions/{id}/explanations",
        "List its stored explanations.",
        ("404", "500"),
    ),
    ("health", "get", "/health/live", "Return 200 while the process lives.", ()),
    ("health", "get", "/health/ready", "Return 200 if every endpoint answers.", ("503",)),
    ("health", "get", "/metrics", "Return the metrics for Prometheus.", ("500",)),
    ("health", "get", "/openapi.json", "Return this document.", ()),
)


class OpenApiDocuments:
    """
    The documents of a server, each built once for the revisions that it describes; on any thread.

    Args:
        groups: The routes of other protocols.
    """

    def __init__(self, groups: Sequence[RouteGroup] = ()) -> None:
        self._groups = groups
        self._built: dict[tuple[str, ...], bytes] = {}
        self._lock = threading.Lock()  # over what was built

    def document(self, endpoints: Iterable[ServedEndpoint]) -> bytes:
        """Return the document of some endpoints, as JSON."""
        typed = _typed(endpoints)
        key = tuple(loaded.ref for loaded in typed)
        with self._lock:
            built = self._built.get(key)
        if built is None:
            built = msgspec.json.encode(document(typed, self._groups))
            with self._lock:
                while len(self._built) >= KEPT_DOCUMENTS:
                    del self._built[next(iter(self._built))]
                self._built[key] = built
        return built


def document(typed: Iterable[LoadedRevision], groups: Sequence[RouteGroup] = ()) -> Schema:
    """
    Describe the server as it is now.

    Args:
        typed: The predict routes of these are typed by their signatures; those of others are
            described by the one route with `{name}`.
        groups: The routes of other protocols.
    """
    paths: Schema = {}
    for tag, method, path, summary, statuses in _ROUTES:
        kind = "text/plain" if path == "/metrics" else "application/json"
        content = {kind: {"schema": {"type": "string" if kind == "text/plain" else "object"}}}
        responses = {"200": {"description": summary, "content": content}, **_refused(statuses)}
        paths[path] = {method: _operation(tag, summary, path, responses)}
    paths["/v1/predictions"]["get"]["parameters"] += _PAGE
    explain = paths["/v1/predictions/{id}/explain"]["post"]
    explain["parameters"].append(_TIMEOUT)
    explain["requestBody"] = {"content": {"application/json": {"schema": _EXPLAIN_BODY}}}
    for group in groups:
        for route in group.routes:
            responses = {"200": {"description": route.summary}, "default": OTHER_ERROR}
            operation = _operation(group.tag, route.summary, route.path, responses)
            if route.method == "post":
                body = {"application/json": {"schema": {"type": "object"}}}
                operation["requestBody"] = {"content": body}
            paths.setdefault(route.path, {})[route.method] = operation
    schemas: Schema = {"error": ERROR, "problem": PROBLEM, "flag": FLAG}
    schemas |= {"row": {"type": "object"}, "prediction": _ANY_PREDICTION}
    paths["/v1/endpoints/{name}/predict"] = {"post": _predict(None)}
    for loaded in typed:
        name = loaded.revision.endpoint
        schemas[f"{name}.row"] = row(loaded.signature, loaded.checker.rules)
        schemas[f"{name}.columns"] = columns(loaded.signature, loaded.checker.rules)
        schemas[f"{name}.prediction"] = prediction(
            loaded.signature.output, is_conformal=option_of(loaded.revision) is not None
        )
        paths[f"/v1/endpoints/{name}/predict"] = {"post": _predict(name)}
    tags = TAGS | {group.tag: group.about for group in groups}
    return {
        "openapi": "3.1.0",
        "info": {"title": "clewline", "version": version("clewline")},
        "security": [{}, {"token": []}],  # on loopback none is required
        "tags": [{"name": tag, "description": text} for tag, text in tags.items()],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def columns(signature: Signature, rules: Iterable[FieldRule]) -> Schema:
    """Describe rows as columns, one a field."""
    fields = row(signature, rules)
    lists = {name: _rows(field) for name, field in fields["properties"].items()}
    return fields | {"properties": lists}


def row(signature: Signature, rules: Iterable[FieldRule]) -> Schema:
    """Describe one row. Accepted limits are required; observed ones are only described."""
    described = {rule.field.name: _field(rule) for rule in rules}
    fields = {field.name: described[field.name] for field in signature.fields}
    return _object(fields, additionalProperties=False)


def prediction(output: Output, *, is_conformal: bool = False) -> Schema:
    """Describe one prediction; `is_conformal` if it has a set of labels or an interval."""
    properties = dict(_ANY_PREDICTION["properties"])
    if output.task == "tensor":
        value: Schema = {"type": ["number", "boolean", "null"]}
        properties["value"] = _nested(value, output.shape or ())
    elif output.labels is None:
        properties["value"] = {"type": "number"}
    else:
        properties["label"] = {"enum": list(output.labels)}
        if output.has_probabilities:
            shares = {label_name(label): {"type": "number"} for label in output.labels}
            properties["probabilities"] = _object(shares)
    if is_conformal and output.labels is not None:
        properties["set"] = _array({"enum": list(output.labels)})
    elif is_conformal:
        properties["interval"] = _array({"type": "number"}, minItems=2, maxItems=2)
    return _object(properties, {"flags": _array(_ref("flag"))})


def _typed(endpoints: Iterable[ServedEndpoint]) -> list[LoadedRevision]:
    """Return what is loaded of the first endpoints; it may be unloaded meanwhile."""
    serving = [serving.loaded for each in endpoints if (serving := each.serving) is not None]
    return nsmallest(TYPED_ENDPOINTS, serving, key=lambda loaded: loaded.revision.endpoint)


def _field(rule: FieldRule) -> Schema:
    field = rule.field
    schema = dict(_KINDS[field.kind])
    if field.kind == "tensor":
        schema = _nested(schema, field.shape or ())
    if field.nullable:
        schema["type"] = [schema["type"], "null"]
    if rule.bounds and field.kind != "datetime":  # JSON Schema bounds numbers alone
        schema["minimum"], schema["maximum"] = rule.bounds
    if rule.levels:
        schema["enum"] = [*rule.levels, *([None] if field.nullable else [])]
    if notes := " ".join(_notes(rule)):
        schema["description"] = notes
    return schema


def _notes(rule: FieldRule) -> Iterator[str]:
    field = rule.field
    if field.unit:
        yield f"Unit: {field.unit}."
    if rule.bounds and field.kind == "datetime":
        low, high = map(timestamps.format_microseconds, rule.bounds)
        yield f"Refused outside {low} to {high}."
    if field.bounds and not rule.bounds:
        yield f"Flagged outside {' to '.join(field.bound_texts())}."
    if field.levels and not rule.levels:
        yield f"Training data had: {', '.join(field.levels[:50])}."


def _predict(name: str | None) -> Schema:
    """Describe the route to predict of an endpoint; None: the one route of all."""
    prefix = "" if name is None else f"{name}."
    revision = {"type": "string", "examples": [f"{name or 'income'}#1"]}
    answer = _object({"revision": revision, "predictions": _array(_ref(f"{prefix}prediction"))})
    described = {
        "description": "Every row answered, in order.",
        "content": _content(WRITTEN, answer),
    }
    entities = {"entities": _array({"type": "string"}, type=["array", "null"], minItems=1)}
    shapes = [_object({"rows": _rows(_ref(f"{prefix}row"))}, entities, additionalProperties=False)]
    if name is not None:
        by_column = {"columns": _ref(f"{prefix}columns")}
        shapes.append(_object(by_column, entities, additionalProperties=False))
        shapes.append(_ref(f"{prefix}row"))
    path = f"/v1/endpoints/{name or '{name}'}/predict"
    summary = f"Predict with the endpoint {name}." if name else "Predict with an endpoint."
    operation = _operation("predict", summary, path, {"200": described, **_refused(PREDICT)})
    operation["operationId"] = f"predict_{name}" if name else "predict"
    operation["parameters"] += _HEADERS
    body = _content(READ, {"anyOf": shapes} if name else {"type": "object"})
    operation["requestBody"] = {"required": True, "content": body}
    return operation


def _content(types: Iterable[bytes], as_json: Schema) -> Schema:
    """Describe a body by its content types: JSON, text, or bytes."""
    schemas = {JSON_TYPE: as_json, NDJSON_TYPE: _TEXT, CSV_TYPE: _TEXT}
    return {kind.decode(): {"schema": schemas.get(kind, _BYTES)} for kind in types}


def _operation(tag: str, summary: str, path: str, responses: Schema) -> Schema:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", path)
    ]
    return {"tags": [tag], "summary": summary, "parameters": parameters, "responses": responses}


def _refused(statuses: Sequence[str]) -> Schema:
    content = {"application/json": {"schema": _ref("error")}}
    every = sorted({*statuses, *ACCESS})
    return {status: {"description": REFUSALS[status], "content": content} for status in every}


def _object(required: Schema, optional: Schema | None = None, **more: Any) -> Schema:
    properties = {**required, **(optional or {})}
    return {"type": "object", "required": list(required), "properties": properties, **more}


def _array(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def _rows(items: Schema) -> Schema:
    return _array(items, minItems=1, maxItems=MAX_ROWS)


def _nested(items: Schema, shape: Sequence[int]) -> Schema:
    for size in reversed(shape):
        items = _array(items, minItems=size, maxItems=size)
    return items


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _parameter(place: str, name: str, description: str, **schema: Any) -> Schema:
    return {"name": name, "in": place, "schema": schema, "description": description}


_TEXT: Schema = {"type": "string"}
_BYTES: Schema = {"type": "string", "format": "binary"}
_UUID: Schema = {"type": "string", "format": "uuid"}
_KINDS: dict[str, Schema] = {
    "number": {"type": "number"},
    # Larger ones are accepted if float64 holds them, which a schema cannot say.
    "integer": {"type": "integer", "minimum": -(2**53), "maximum": 2**53},
    "boolean": {"type": "boolean"},
    "category": {"type": "string"},
    "text": {"type": "string"},
    "datetime": {"type": "string", "format": "date-time"},
    "tensor": {"type": "number"},
}
_ANY_PREDICTION = _object({"id": _UUID, "model": {"type": "string", "examples": ["income@3"]}})
OTHER_ERROR = {"description": "An error, in the protocol's own shape."}
ERROR = _object(
    {
        "error": _object(
            {"code": {"type": "string", "enum": sorted(STATUS)}, "message": {"type": "string"}},
            {"fields": _array(_ref("problem")), "ids": _array(_UUID)},
        )
    }
)
PROBLEM = _object(
    {
        "row": {"type": "integer", "minimum": 0},
        "field": {"type": ["string", "null"]},
        "value": {},
        "expected": {"type": "string"},
    }
)
FLAG = _object(
    {
        "field": {"type": "string"},
        "value": {},
        "flag": {"type": "string", "enum": ["outside bounds", "unseen level"]},
    },
    {
        "bounds": {"type": "array", "minItems": 2, "maxItems": 2},
        "levels": _array({"type": "string"}),
    },
)
_PAGE = [
    _parameter("query", "endpoint", "Only predictions of this endpoint.", type="string"),
    _parameter(
        "query", "limit", "Maximum number of predictions.", type="integer", minimum=1, maximum=1000
    ),
    _parameter("query", "before", "Only predictions older than this id.", **_UUID),
    _parameter("query", "tried", "Only tried rows, or only the others.", type="boolean"),
]
_EXPLAIN_BODY = _object(
    {},
    {
        "kind": {"type": "string", "examples": ["anchors"]},
        "options": {"type": "object", "description": "Options of the kind."},
        "fresh": {"type": "boolean", "description": "Whether to compute it though it is stored."},
    },
    additionalProperties=False,
)
_TIMEOUT = _parameter(
    "header",
    "Timeout-Ms",
    "How long the caller waits.",
    type="number",
    exclusiveMinimum=0,
    maximum=86_400_000,
)
_HEADERS = [
    _parameter(
        "header",
        "Idempotency-Key",
        "A retry with the same key and body gets the first answer.",
        type="string",
        minLength=1,
        maxLength=255,
    ),
    _TIMEOUT,
    _parameter(
        "header",
        "Clewline-Tried",
        "Whether the rows were made up to see the answer, so that statistics leave them out.",
        type="boolean",
    ),
    _parameter("query", "entities", "The column of a table with the entities.", type="string"),
]
