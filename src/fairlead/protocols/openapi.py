"""`/openapi.json`: the routes, with rows and answers typed by the signatures of what is live."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Any

from fairlead.protocols.status import STATUS
from fairlead.serve.answers import label_name
from fairlead.serve.endpoints import Endpoint
from fairlead.serve.intake import MAX_ROWS
from fairlead.signature import instant
from fairlead.signature.field import Output, Signature
from fairlead.signature.rules import Rule

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
    "400": "The body is not JSON, or holds no rows.",
    "409": "The Idempotency-Key came with another body.",
    "413": "The body is too large, or has too many rows.",
    "415": "The body is not application/json.",
    "422": "The signature refuses rows; every bad row and field is named.",
    "503": "The queue is full; Retry-After says when to try again.",
    "507": "The disk is full; nothing is answered that cannot be logged.",
}


def document(endpoints: Iterable[Endpoint]) -> Schema:
    """Describe the server as it is now."""
    paths: Schema = dict(_FIXED)
    schemas: Schema = {"error": ERROR, "problem": PROBLEM, "flag": FLAG}
    for endpoint in sorted(endpoints, key=lambda endpoint: endpoint.name):
        if endpoint.serving is None:
            continue
        name, signature = endpoint.name, endpoint.serving.loaded.signature
        schemas[f"{name}.row"] = row(signature, endpoint.serving.loaded.checker.rules)
        schemas[f"{name}.prediction"] = prediction(signature.output)
        paths[f"/v1/endpoints/{name}/predict"] = {"post": _predict(name)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "fairlead", "version": version("fairlead")},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def row(signature: Signature, rules: Iterable[Rule]) -> Schema:
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


def _field(rule: Rule) -> Schema:
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


def _notes(rule: Rule) -> Iterator[str]:
    field = rule.field
    if field.unit:
        yield f"Unit: {field.unit}."
    if rule.bounds and field.kind == "datetime":
        yield f"Refused outside {instant.text(rule.bounds[0])} to {instant.text(rule.bounds[1])}."
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


def _predict(name: str) -> Schema:
    row_schema = {"$ref": f"#/components/schemas/{name}.row"}
    envelope = {
        "type": "object",
        "required": ["rows"],
        "additionalProperties": False,
        "properties": {
            "rows": {"type": "array", "items": row_schema, "minItems": 1, "maxItems": MAX_ROWS},
            "entities": {"type": ["array", "null"], "items": {"type": "string"}, "minItems": 1},
        },
    }
    answer = {
        "type": "object",
        "required": ["revision", "predictions"],
        "properties": {
            "revision": {"type": "string", "examples": [f"{name}#1"]},
            "predictions": {
                "type": "array",
                "items": {"$ref": f"#/components/schemas/{name}.prediction"},
            },
        },
    }
    return {
        "operationId": f"predict_{name}",
        "summary": f"Predict with the endpoint {name}.",
        "parameters": [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "schema": {"type": "string", "minLength": 1, "maxLength": 255},
                "description": "A retry with the same key and body gets the first answer.",
            }
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"oneOf": [envelope, row_schema]}}},
        },
        "responses": {
            "200": _json("Every row answered, in order.", answer),
            **{status: _error(text) for status, text in REFUSALS.items()},
        },
    }


def _json(description: str, schema: Schema) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _error(description: str) -> Schema:
    return _json(description, {"$ref": "#/components/schemas/error"})


def _get(summary: str, *parameters: str, refusals: tuple[str, ...] = ()) -> Schema:
    named = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in parameters
    ]
    responses = {"200": {"description": summary}}
    responses |= {status: _error("There is no such thing.") for status in refusals}
    return {"get": {"summary": summary, "parameters": named, "responses": responses}}


_FIXED: Schema = {
    "/v1/endpoints": _get("The endpoints of this server."),
    "/v1/endpoints/{name}": _get(
        "One endpoint: revision, models, signature.", "name", refusals=("404",)
    ),
    "/v1/predictions/{id}": _get("One prediction and its line.", "id", refusals=("404",)),
    "/health/live": _get("The process is alive."),
    "/health/ready": _get("Every endpoint answers with the revision that it should."),
    "/metrics": _get("Metrics for Prometheus."),
    "/openapi.json": _get("This document."),
}
