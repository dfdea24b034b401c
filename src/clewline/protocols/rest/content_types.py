"""What a request to predict sends and what it wants back: media types, and their formats."""

from __future__ import annotations

import re
from typing import NamedTuple

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
"""Content types of answers; the first is for callers that do not mind."""

PLAIN = frozenset({b"*/*", JSON_TYPE, b"application/*"})
"""What `Accept` says of callers that want JSON."""
_COLUMNS = re.compile(rb'\s*\{\s*"columns"\s*:\s*\{')
_ENTITIES = re.compile(rb'\s*\{\s*"entities"\s*:')


class NotAcceptable(Exception):
    """The caller takes none of what is written here."""


class _Peek(msgspec.Struct):
    columns: msgspec.Raw = msgspec.Raw(b"")


_peek = msgspec.json.Decoder(_Peek).decode


class Sent(NamedTuple):
    """The format of a body, and what is to be known beside it."""

    format: str
    detail: str


def sent(request: HttpRequest) -> Sent:
    """
    Tell the format of a body by its head.

    Raises:
        UnknownFormat: The content type is not read here.
    """
    header = request.headers.get(b"content-type", b"")
    if header == JSON_TYPE:
        return _JSON
    kind, _, parameters = header.partition(b";")
    kind = kind.strip().lower()
    format = READ.get(kind)
    if format is None:
        shown = printable_text(kind.decode("latin-1")) or "missing"
        known = ", ".join(known.decode() for known in READ)
        raise UnknownFormat(f"The content type is {shown}.", f"Send the rows as one of {known}.")
    if format == JSON:
        return _JSON
    charset = _charset(parameters) if format == CSV else "utf-8"
    entities = request.query.get("entities") if b"?" in request.target else None
    return Sent(format, write_details(FormatDetails(charset, entities)))


def format_of_json(body: bytes) -> str:
    """
    Tell rows of JSON from columns.

    No field's value is an object, so that `columns` with one is never a row, not
    even of a model with a field of this name.
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


def wanted(request: HttpRequest) -> bytes:
    """
    Choose the content type of an answer by `Accept`.

    Raises:
        NotAcceptable: None that is written here is taken.
    """
    header = request.headers.get(b"accept")
    if header is None or header in PLAIN:
        return JSON_TYPE
    best, chosen = 0.0, None
    for part in header.lower().split(b","):
        kind, _, parameters = part.partition(b";")
        quality = _quality(parameters)
        offered = _offered(kind.strip())
        if offered is not None and quality > best:
            best, chosen = quality, offered
    if chosen is None:
        raise NotAcceptable(header)
    return chosen


_JSON = Sent(JSON, "")


def _offered(kind: bytes) -> bytes | None:
    if kind in WRITTEN:
        return kind
    if kind in PLAIN:
        return JSON_TYPE
    return CSV_TYPE if kind == b"text/*" else None


def _quality(parameters: bytes) -> float:
    for parameter in parameters.split(b";"):
        name, _, value = parameter.strip().partition(b"=")
        if name == b"q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _charset(parameters: bytes) -> str:
    for parameter in parameters.split(b";"):
        name, _, value = parameter.strip().partition(b"=")
        if name.lower() == b"charset":
            return require_charset(value.decode("latin-1"))
    return "utf-8"
