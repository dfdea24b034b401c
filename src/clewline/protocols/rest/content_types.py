"""The content types of requests to predict and of their answers, and the formats behind them."""

from __future__ import annotations

import re

import msgspec

from clewline.errors import UnknownFormat
from clewline.protocols.http.request import HttpRequest
from clewline.serve.formats.body_format import ARROW, CSV, JSON, JSON_COLUMNS, PARQUET
from clewline.serve.formats.columns import FormatDetails, require_charset, write_details
from clewline.signature.field_rules import printable_text

JSON_TYPE = b"application/json"
NDJSON_TYPE = b"application/x-ndjson"
CSV_TYPE = b"text/csv"
ARROW_TYPE = b"application/vnd.apache.arrow.stream"

READ: dict[bytes, str] = {
    JSON_TYPE: JSON,
    CSV_TYPE: CSV,
    ARROW_TYPE: ARROW,
    b"application/vnd.apache.arrow.file": ARROW,
    b"application/vnd.apache.parquet": PARQUET,
}
"""Content type of a body → its format."""
WRITTEN = (JSON_TYPE, NDJSON_TYPE, CSV_TYPE, ARROW_TYPE)
"""Content types of answers; the first is the default."""

PLAIN = frozenset({b"*/*", JSON_TYPE, b"application/*"})
"""Values of `Accept` that JSON satisfies."""
_COLUMNS = re.compile(rb'\s*\{\s*"columns"\s*:\s*\{')
_ENTITIES = re.compile(rb'\s*\{\s*"entities"\s*:')


class _Peek(msgspec.Struct):
    columns: msgspec.Raw = msgspec.Raw(b"")


_peek = msgspec.json.Decoder(_Peek).decode


def body_format(request: HttpRequest) -> tuple[str, str]:
    """
    Return the name of a body's format, and what the format must know beside the body.

    Raises:
        UnknownFormat: The content type is not supported.
    """
    header = request.headers.get(b"content-type", b"")
    kind, _, parameters = header.partition(b";")
    kind = kind.strip().lower()
    format = READ.get(kind)
    if format is None:
        shown = printable_text(kind.decode("latin-1")) or "missing"
        known = ", ".join(known.decode() for known in READ)
        raise UnknownFormat(f"The content type is {shown}.", f"Send the rows as one of {known}.")
    if format == JSON:
        return JSON, ""
    charset = "utf-8"
    if format == CSV and (stated := _parameter(parameters, b"charset")) is not None:
        charset = require_charset(stated.decode("latin-1"))
    entities = request.query.get("entities") if b"?" in request.target else None
    return format, write_details(FormatDetails(charset, entities))


def format_of_json(body: bytes) -> str:
    """
    Return whether a JSON body has rows or columns, as the name of the format.

    A field's value is never an object, so `{"columns": {…}}` is never a row, not even for a
    model with a field called `columns`.
    """
    if body.startswith(b'{"rows"') or b'"columns"' not in body:
        return JSON
    if _COLUMNS.match(body):
        return JSON_COLUMNS
    if _ENTITIES.match(body):
        try:
            found = bytes(_peek(body).columns).startswith(b"{")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return JSON
        return JSON_COLUMNS if found else JSON
    return JSON


def accepted_type(request: HttpRequest) -> bytes | None:
    """Return the content type of the answer by the `Accept` header; None if we have none of it."""
    header = request.headers.get(b"accept")
    if header is None or header in PLAIN:
        return JSON_TYPE
    best, chosen = 0.0, None
    for part in header.lower().split(b","):
        kind, _, parameters = part.partition(b";")
        kind = kind.strip()
        offered = kind if kind in WRITTEN else JSON_TYPE if kind in PLAIN else None
        offered = CSV_TYPE if kind == b"text/*" else offered
        try:
            quality = float(_parameter(parameters, b"q") or b"1")
        except ValueError:
            quality = 0.0
        if offered is not None and quality > best:
            best, chosen = quality, offered
    return chosen


def _parameter(parameters: bytes, name: bytes) -> bytes | None:
    for parameter in parameters.split(b";"):
        found, _, value = parameter.strip().partition(b"=")
        if found.lower() == name:
            return value
    return None
