"""`/openapi.json`: the routes, with rows and answers typed by the signatures of what is live."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

from clewline.protocols import openapi_paths
from clewline.protocols.error_responses import STATUS
from clewline.serve.json_reader import MAX_ROWS
from clewline.serve.served_endpoint import ServedEndpoint
from clewline.signature import timestamps
from clewline.signature.field import Output, Signature, label_name
from clewline.signature.field_rules import FieldRule

Schema = dict[str, Any]

ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string", "enum": sorted(STATUS)},
                "message": {"type": "string"},
                "fields": {"type": "array", "items": {"$ref": "#/components/schemas/problem"}},
                "ids": {"type": "array", "items": {"type": "string", "format": "uuid"}},
            },
        }
    },
}
PROBLEM: Schema = {
    "type": "object",
    "required": ["row", "field", "value", "expected"],
    "properties": {
        "row": {"type": "integer", "minimum": 0},
        "field": {"type": ["string", "null"]},
        "value": {},
        "expected": {"type": "string"},
    },
}
FLAG: Schema = {
    "type": "object",
    "required": ["field", "value", "flag"],
    "properties": {
        "field": {"type": "string"},
        "value": {},
        "flag": {"type": "string", "enum": ["outside bounds", "unseen level"]},
        "bounds": {"type": "array", "minItems": 2, "maxItems": 2},
        "levels": {"type": "array", "items": {"type": "string"}},
    },
}
REFUSALS = {
    "400": "The body is not what its content type says, holds no rows, or a header is not right.",
    "404": "There is no such endpoint, or an operator has unloaded it.",
    "406": "Nothing that Accept names is written here.",
    "409": "The Idempotency-Key came with another body.",
    "413": "The body is too large, or has too many rows.",
    "415": "The content type or coding of the body is not read here.",
    "422": "The signature refuses rows; every bad row and field is named.",
    "500": "A node of the endpoint raised, or what it needs is damaged.",
    "503": "The queue is full; Retry-After says when to try again.",
    "504": "The time that the caller allowed is over.",
    "507": "The disk is full; nothing is answered that cannot be logged.",
}
EVERYWHERE = {
    "401": "No token, or none that is in force.",
    "403": "The token has no role that allows this.",
    "429": "Too many wrong tokens came from there.",
}
MOST_TYPED = 64
"""Endpoints that the document of the server types; each has a document of its own."""


def document(endpoints: Iterable[ServedEndpoint]) -> Schema:
    """
    Describe the server as it is now.

    The predict route of each loaded endpoint is typed by its signature, of up to
    `MOST_TYPED`; the others are described by the one route with `{name}`.
    """
    paths: Schema = {**_fixed(), **openapi_paths.oip(), **openapi_paths.mlflow()}
    schemas: Schema = {"error": ERROR, "problem": PROBLEM, "flag": FLAG}
    schemas |= {"row": {"type": "object"}, "prediction": _ANY_PREDICTION}
    paths["/v1/endpoints/{name}/predict"] = {
        "parameters": [_path_parameter("name")],
        "post": _predict(None),
    }
    warm = [endpoint for endpoint in endpoints if endpoint.serving is not None]
    for endpoint in sorted(warm, key=lambda endpoint: endpoint.name)[:MOST_TYPED]:
        assert endpoint.serving is not None
        name, loaded = endpoint.name, endpoint.serving.loaded
        schemas[f"{name}.row"] = row(loaded.signature, loaded.checker.rules)
        schemas[f"{name}.columns"] = columns(loaded.signature, loaded.checker.rules)
        schemas[f"{name}.prediction"] = prediction(loaded.signature.output)
        paths[f"/v1/endpoints/{name}/predict"] = {"post": _predict(name)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "clewline", "version": version("clewline")},
        "security": [{}, {"token": []}],  # on loopback none is asked for
        "tags": [{"name": tag, "description": text} for tag, text in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def columns(signature: Signature, rules: Iterable[FieldRule]) -> Schema:
    """Describe rows as columns, one a field."""
    fields = row(signature, rules)
    lists = {
        name: {"type": "array", "items": field, "minItems": 1, "maxItems": MAX_ROWS}
        for name, field in fields["properties"].items()
    }
    return fields | {"properties": lists}


def row(signature: Signature, rules: Iterable[FieldRule]) -> Schema:
    """Describe one row. What a person accepted is required, what was observed is told."""
    described = {rule.field.name: _field(rule) for rule in rules}
    fields = {field.name: described[field.name] for field in signature.fields}
    return {
        "type": "object",
        "required": list(fields),
        "additionalProperties": False,
        "properties": fields,
    }


def prediction(output: Output) -> Schema:
    """Describe one prediction."""
    properties: Schema = {
        "id": {"type": "string", "format": "uuid"},
        "model": {"type": "string", "examples": ["income@3"]},
    }
    if output.task == "tensor":
        properties["value"] = _nested(output.shape or ())
    elif output.labels is None:
        properties["value"] = {"type": ["number", "null"]}
    else:
        shares = {label_name(label): {"type": "number"} for label in output.labels}
        properties["label"] = {"enum": list(output.labels)}
        if output.has_probabilities:
            properties["probabilities"] = {
                "type": "object",
                "required": list(shares),
                "properties": shares,
            }
    required = list(properties)
    properties["flags"] = {"type": "array", "items": {"$ref": "#/components/schemas/flag"}}
    return {"type": "object", "required": required, "properties": properties}


def _nested(shape: tuple[int, ...]) -> Schema:
    schema: Schema = {"type": ["number", "boolean", "null"]}
    for size in reversed(shape):
        schema = {"type": "array", "items": schema, "minItems": size, "maxItems": size}
    return schema


def _field(rule: FieldRule) -> Schema:
    field = rule.field
    schema = dict(_KINDS[field.kind])
    for size in reversed(field.shape or ()) if field.kind == "tensor" else ():
        schema = {"type": "array", "items": schema, "minItems": size, "maxItems": size}
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


_KINDS: dict[str, Schema] = {
    "number": {"type": "number"},
    # Larger ones are taken where float64 holds them, which a schema cannot say.
    "integer": {"type": "integer", "minimum": -(2**53), "maximum": 2**53},
    "boolean": {"type": "boolean"},
    "category": {"type": "string"},
    "text": {"type": "string"},
    "datetime": {"type": "string", "format": "date-time"},
    "tensor": {"type": "number"},
}


def _predict(name: str | None) -> Schema:
    """Describe a route to predict; None: of whatever endpoint."""
    prefix = "" if name is None else f"{name}."
    answer = {
        "type": "object",
        "required": ["revision", "predictions"],
        "properties": {
            "revision": {"type": "string", "examples": [f"{name or 'income'}#1"]},
            "predictions": {"type": "array", "items": _ref(f"{prefix}prediction")},
        },
    }
    responses = {"200": {"description": "Every row answered, in order.", "content": {
        "application/json": {"schema": answer},
        "application/x-ndjson": {"schema": {"type": "string"}},
        "text/csv": {"schema": {"type": "string"}},
        "application/vnd.apache.arrow.stream": {"schema": _BYTES},
    }}}  # fmt: skip
    return {
        "operationId": f"predict_{name}" if name else "predict",
        "tags": ["predict"],
        "summary": f"Predict with the endpoint {name}." if name else "Predict with an endpoint.",
        "parameters": _HEADERS,
        "requestBody": {"required": True, "content": _bodies(name, prefix)},
        "responses": responses | _refused(REFUSALS),
    }


def _bodies(name: str | None, prefix: str) -> Schema:
    entities = {"type": ["array", "null"], "items": {"type": "string"}, "minItems": 1}
    rows = {"type": "array", "items": _ref(f"{prefix}row"), "minItems": 1, "maxItems": MAX_ROWS}
    shapes = [_envelope("rows", rows, entities)]
    if name is not None:
        shapes += [_envelope("columns", _ref(f"{prefix}columns"), entities), _ref(f"{prefix}row")]
    json = {"anyOf": shapes} if name else {"type": "object"}
    return {
        "application/json": {"schema": json},
        "text/csv": {"schema": {"type": "string"}},
        "application/vnd.apache.arrow.stream": {"schema": _BYTES},
        "application/vnd.apache.arrow.file": {"schema": _BYTES},
        "application/vnd.apache.parquet": {"schema": _BYTES},
    }


def _envelope(key: str, of: Schema, entities: Schema) -> Schema:
    return {
        "type": "object",
        "required": [key],
        "additionalProperties": False,
        "properties": {key: of, "entities": entities},
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(description: str, schema: Schema) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _refused(refusals: dict[str, str]) -> Schema:
    every = refusals | EVERYWHERE
    return {status: _json(every[status], _ref("error")) for status in sorted(every)}


def _path_parameter(name: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _query(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _route(
    tag: str,
    summary: str,
    *statuses: str,
    of: str = "",
    query: Sequence[Schema] = (),
    method: str = "get",
    kind: str = "application/json",
) -> Schema:
    """Describe a route beside predict: of what its path is, and how it may refuse."""
    schema: Schema = {"type": "object"} if kind == "application/json" else {"type": "string"}
    refusals = {status: REFUSALS[status] for status in statuses}
    operation = {
        "tags": [tag],
        "summary": summary,
        "parameters": [*([_path_parameter(of)] if of else []), *query],
        "responses": {
            "200": {"description": summary, "content": {kind: {"schema": schema}}},
            **_refused(refusals),
        },
    }
    return {method: operation}


def _fixed() -> Schema:
    page = (
        _query("endpoint", {"type": "string"}, "Only those of this endpoint."),
        _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000}, "How many at most."),
        _query("before", {"type": "string", "format": "uuid"}, "Only older ones than this id."),
    )
    move = ("404", "500", "503", "507")
    return {
        "/v1/endpoints": _route("endpoints", "The endpoints of this server."),
        "/v1/endpoints/{name}": _route(
            "endpoints", "One endpoint: revision, models, signature.", "404", of="name"
        ),
        "/v1/endpoints/{name}/openapi.json": _route(
            "endpoints", "The API, typed for one endpoint.", *move, of="name"
        ),
        "/v1/endpoints/{name}/load": _route(
            "endpoints", "Let an endpoint answer again.", *move, of="name", method="post"
        ),
        "/v1/endpoints/{name}/unload": _route(
            "endpoints", "Let an endpoint answer no more.", *move, of="name", method="post"
        ),
        "/v1/predictions": _route(
            "predictions", "The latest predictions.", "400", "404", "500", query=page
        ),
        "/v1/predictions/{id}": _route(
            "predictions", "One prediction and its line.", "404", "500", of="id"
        ),
        "/health/live": _route("health", "The process is alive."),
        "/health/ready": _route("health", "Every endpoint answers as it should.", "503"),
        "/metrics": _route("health", "Metrics for Prometheus.", "500", kind="text/plain"),
        "/openapi.json": _route("health", "This document."),
    }


_TAGS = {
    "predict": "Predictions.",
    "endpoints": "What is served.",
    "predictions": "What was answered.",
    "health": "The server itself.",
    "Open Inference Protocol": "Every endpoint as a model of version 2 of that protocol.",
    "MLflow": "Every endpoint as a model that MLflow serves.",
}
_BYTES: Schema = {"type": "string", "format": "binary"}
_HEADERS: list[Schema] = [
    {
        "name": "Idempotency-Key",
        "in": "header",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        "description": "A retry with the same key and body gets the first answer.",
    },
    {
        "name": "Timeout-Ms",
        "in": "header",
        "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 86_400_000},
        "description": "How long the caller waits.",
    },
    _query("entities", {"type": "string"}, "The column of a table that says whom rows are about."),
]
_ANY_PREDICTION: Schema = {
    "type": "object",
    "required": ["id", "model"],
    "properties": {"id": {"type": "string", "format": "uuid"}, "model": {"type": "string"}},
}
