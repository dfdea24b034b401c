"""
From the JSON body of a request to checked rows: `{"rows": [{…}, …], "entities": […]}`.

A small body is read at once: by a fast pass of msgspec, and by an exact pass if the fast one
refuses the body or cannot be sure. A large body is read in portions, so that other requests
can run in between.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from clewline.errors import FieldProblem, InvalidInput, MalformedInput
from clewline.serve.formats.body_format import RequestRows, too_many_rows
from clewline.signature import json_rows
from clewline.signature.accepted_limits import accepted_from_builtins
from clewline.signature.check import Checker, refused_rows
from clewline.signature.field import Signature
from clewline.signature.field_rules import UnrepresentableNumber, is_encodable
from clewline.signature.row_type import is_matchable

MAX_ROWS = 10_000
SMALL_BYTES = 32 << 10
"""A body up to this size is read at once, in well under a millisecond."""
PORTION_ROWS = 256

_SHAPE = 'Send {"rows": [{…}, …]}, or one row as an object.'
_ENVELOPE = re.compile(rb'\s*\{\s*"(?:rows|entities)"\s*:')
_OBJECTS = re.compile(rb"\[\s*\{")
_BAD_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


_readers: WeakValueDictionary[bytes, JsonReader] = WeakValueDictionary()


def json_reader_of(signature: Signature, accepted: dict[str, Any], max_rows: int) -> JsonReader:
    """
    Return the reader for a signature and its accepted limits; equal ones share a reader.

    Thousands of models are often of one kind, and the types of a reader are in reference
    cycles, which cost a garbage collection when they go.
    """
    key = msgspec.msgpack.encode((signature, accepted, max_rows))
    found = _readers.get(key)
    if found is None:
        checker = Checker(signature, accepted_from_builtins(accepted))
        found = _readers[key] = JsonReader(checker, max_rows=max_rows)
    return found


class JsonReader:
    """Reads the bodies of requests to endpoints with one signature. Any thread may call it."""

    def __init__(self, checker: Checker, *, max_rows: int = MAX_ROWS) -> None:
        self.checker = checker
        self._max_rows = max_rows
        self._fields = {field.name for field in checker.signature.fields}
        # The decoder of the fast pass; None if msgspec cannot match a field's name.
        self._decode: Callable[[bytes], Any] | None = None
        if all(map(is_matchable, self._fields)):
            rows: Any = list[checker.row_type]  # type: ignore[name-defined]
            entities: tuple[str, Any, None] = ("entities", list[str] | None, None)
            envelope = msgspec.defstruct(
                "Envelope", [("rows", rows), entities], forbid_unknown_fields=True
            )
            self._decode = msgspec.json.Decoder(envelope).decode

    def read(self, body: bytes) -> RequestRows:
        """
        Read a small body.

        Raises:
            MalformedInput: The body is not JSON, or has no rows.
            TooManyRows: It has more rows than allowed.
            InvalidInput: The signature refuses rows; the error names every one.
        """
        if not self._is_envelope(body):
            return RequestRows(self._read_bare_row(body))
        if self._decode is not None:
            try:
                envelope = self._decode(body)
            except _BAD_JSON:
                return self._read_exactly(body)
            rows, entities = envelope.rows, envelope.entities
            keys, quotes = (1, 2) if entities is None else (2, 4 + 2 * len(entities))
            if rows and not self.checker.suspicious(body, rows, quotes=quotes, keys=keys):
                return self._rows(rows, entities)
        return self._read_exactly(body)

    def read_large(self, body: bytes) -> Iterator[RequestRows | None]:
        """
        Read a large body: yield None after each portion of the work, and the rows at the end.

        Raises:
            MalformedInput, TooManyRows, InvalidInput: As `read`.
        """
        if not self._is_envelope(body):
            yield RequestRows(self._read_bare_row(body))
            return
        parts = _envelope_parts(body)
        entities = _decode_entities(parts)
        yield None
        rows: list[Any] = []
        problems: list[FieldProblem] = []
        count = 0
        elements = _decode_elements(parts)
        if len(elements) > self._max_rows:
            raise too_many_rows(self._max_rows)
        yield None
        for size, array in _portions(elements, PORTION_ROWS):
            try:
                rows += self.checker.decode(array)
            except InvalidInput as error:
                if not error.fields:
                    raise
                problems += [
                    msgspec.structs.replace(each, row=each.row + count) for each in error.fields
                ]
            count += size
            yield None
        if problems:
            raise refused_rows(problems, count)
        yield self._rows(rows, entities)

    def pieces(
        self, body: bytes, piece_rows: int, max_rows: int
    ) -> tuple[list[bytes], list[str] | None]:
        """
        Cut a body into JSON arrays of up to `piece_rows` rows, without checking the rows.

        Returns:
            The arrays, and the entities of all rows if the body has them.

        Raises:
            MalformedInput: The body has no rows, or not one entity for each row.
            TooManyRows: There are more than `max_rows` rows.
        """
        if not self._is_envelope(body):
            if not body.lstrip(b" \t\r\n").startswith(b"{"):
                self._read_bare_row(body)
            return [b"[%b]" % body], None
        parts = _envelope_parts(body)
        entities, elements = _decode_entities(parts), _decode_elements(parts)
        if len(elements) > max_rows:
            raise too_many_rows(max_rows)
        if entities is not None and len(entities) != len(elements):
            raise _wrong_entity_count(len(entities), len(elements))
        return [array for _, array in _portions(elements, piece_rows)], entities

    def _is_envelope(self, body: bytes) -> bool:
        if not body.startswith(b'{"rows":[') and _ENVELOPE.match(body) is None:
            return False
        if self._fields.isdisjoint(("rows", "entities")):
            return True
        # A field is called `rows` or `entities`: the other fields tell a bare row apart.
        try:
            found = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        except _BAD_JSON:
            return True
        # No field's value is an array of objects: such `rows` are never a row's.
        has_rows = _OBJECTS.match(bytes(found.get("rows", b""))) is not None
        return has_rows or not self._fields <= found.keys()

    def _read_bare_row(self, body: bytes) -> list[Any]:
        if body.lstrip(b" \t\r\n").startswith(b"{"):
            return self.checker.decode(body)
        json_rows.parse_exactly(body)
        raise MalformedInput(f"The body is not an object: {_start(body)}.", _SHAPE)

    def _read_exactly(self, body: bytes) -> RequestRows:
        """Read an envelope key by key, to find and name every mistake in it."""
        pairs = json_rows.parse_exactly(body)
        envelope = dict(pairs)
        if len(envelope) < len(pairs) or not envelope.keys() <= {"rows", "entities"}:
            raise _wrong_keys([key for key, _ in pairs])
        rows, entities = envelope.get("rows"), envelope.get("entities")
        if not isinstance(rows, list):
            raise MalformedInput("rows is not a list.", _SHAPE)
        if not rows:
            raise _no_rows()
        if len(rows) > self._max_rows:
            raise too_many_rows(self._max_rows)
        if entities is not None and not (
            isinstance(entities, list) and all(map(_is_loggable_string, entities))
        ):
            raise _wrong_entities()
        return self._rows(self.checker.settle(rows), entities)

    def _rows(self, rows: list[Any], entities: list[str] | None) -> RequestRows:
        if len(rows) > self._max_rows:
            raise too_many_rows(self._max_rows)
        if entities is not None and len(entities) != len(rows):
            raise _wrong_entity_count(len(entities), len(rows))
        return RequestRows(rows, entities)


class _EnvelopeParts(msgspec.Struct, forbid_unknown_fields=True):
    rows: msgspec.Raw
    entities: msgspec.Raw = msgspec.Raw(b"null")


_decode_parts = msgspec.json.Decoder(_EnvelopeParts).decode


def _envelope_parts(body: bytes) -> _EnvelopeParts:
    """Find the two parts of a large envelope, without reading the rows."""
    try:
        parts = _decode_parts(body)
    except msgspec.ValidationError as error:
        raise MalformedInput(f"The body does not have rows: {error}.", _SHAPE) from error
    except _BAD_JSON as error:
        raise _not_json(error) from error
    # msgspec keeps the last of repeated keys; then there is much text outside of both parts.
    rest = len(body) - len(bytes(parts.rows)) - len(bytes(parts.entities))
    if (
        rest > len(b'{"rows":,"entities":}')
        and max(body.count(b'"rows"'), body.count(b'"entities"')) > 1
    ):
        keys = [key for key, _ in json_rows.parse_exactly(body)]
        if len(keys) > len(set(keys)):
            raise _wrong_keys(keys)
    return parts


def _decode_entities(parts: _EnvelopeParts) -> list[str] | None:
    try:
        return msgspec.json.decode(parts.entities, type=list[str] | None)
    except _BAD_JSON as error:
        raise _wrong_entities() from error


def _decode_elements(parts: _EnvelopeParts) -> list[msgspec.Raw]:
    """Return the elements of `rows`, at least one, without reading them."""
    data = bytes(parts.rows)
    if not data.startswith(b"["):
        raise MalformedInput(f"rows is not a list: it begins with {_start(data)}.", _SHAPE)
    try:
        found = msgspec.json.decode(data, type=list[msgspec.Raw])
    except _BAD_JSON as error:
        raise _not_json(error) from error
    if not found:
        raise _no_rows()
    return found


def _portions(rows: list[msgspec.Raw], size: int) -> Iterator[tuple[int, bytes]]:
    """Cut rows into JSON arrays of up to `size` rows; yield the number of rows and the array."""
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        yield len(some), b"[%b]" % b",".join(map(bytes, some))


def _is_loggable_string(value: Any) -> bool:
    """Return False for numbers beyond float64, which are read as strings, and lone surrogates."""
    return (
        isinstance(value, str)
        and not isinstance(value, UnrepresentableNumber)
        and is_encodable(value)
    )


def _start(data: bytes) -> str:
    return repr(data[:20].decode("utf-8", "replace"))


def _no_rows() -> MalformedInput:
    return MalformedInput("rows is empty: there is nothing to predict.", "Send one row or more.")


def _wrong_entity_count(entities: int, rows: int) -> MalformedInput:
    return MalformedInput(
        f"There are {entities} entities, but {rows} rows.",
        "Send one entity for each row, or leave entities out.",
    )


def _wrong_entities() -> MalformedInput:
    return MalformedInput(
        "entities is not a list of strings.", "Send one string for each row, or leave it out."
    )


def _not_json(error: Exception) -> MalformedInput:
    return MalformedInput(f"The body is not JSON: {error}.", _SHAPE)


def _wrong_keys(keys: list[str]) -> MalformedInput:
    named = ", ".join(repr(key[:50]) for key in keys[:10])
    return MalformedInput(
        f"The body has the keys {named}; it may have rows and entities, each once.", _SHAPE
    )
