"""
From the JSON body of a request to checked rows: `{"rows": [{…}, …], "entities": […]}`.

A small body is read at once: by a fast pass of msgspec, and by an exact pass if the fast one
refuses the body or cannot be sure. A large body is read in portions, so that other requests
can run in between.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from clewline.errors import BodyTooLarge, FieldProblem, InvalidInput, MalformedInput
from clewline.serve.formats.body_format import RequestRows, too_many_rows
from clewline.serve.request.body_queue import Reading
from clewline.signature import json_rows
from clewline.signature.accepted_limits import accepted_from_builtins
from clewline.signature.check import Checker, refused_rows
from clewline.signature.field import Signature
from clewline.signature.field_rules import UnrepresentableNumber, is_encodable
from clewline.signature.row_type import is_matchable

MAX_ROWS = 10_000
SMALL_BYTES = 32 << 10
"""A body up to this size is read at once, in well under a millisecond."""
PORTION_BYTES = 32 << 10
"""Bytes of rows that are read at once. A row may be longer …"""
LARGE_BYTES = 2 * PORTION_BYTES
"""… and is read on a thread if it is longer than this."""
HUGE_BYTES = 1 << 20
"""A body over this size is taken apart on a thread."""
SPARE_VALUES = 1000
"""Keys and values beside its fields that a longer row may have, so that each is named."""

_SHAPE = 'Send {"rows": [{…}, …]}, or one row as an object.'
_SPACE = b" \t\r\n"
_FIRST_KEY = re.compile(rb'\s*\{\s*"(rows|entities)"\s*:\s*')
_NEXT_KEY = re.compile(rb'\s*,\s*"(rows|entities)"\s*:\s*')
_END = re.compile(rb"\s*\}\s*")
_OBJECTS = re.compile(rb"\[\s*\{")
_BETWEEN_OBJECTS = re.compile(rb"\}\s*,\s*\{")
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
        fields = checker.signature.fields
        self._fields = {field.name for field in fields}
        # Each element of a tensor counts, and the array around it.
        self._elements = 2 * sum(prod(f.shape or ()) for f in fields if f.kind == "tensor")
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
            quotes = 2 if entities is None else 4 + 2 * len(entities)
            if rows and not self.checker.suspicious(body, rows, quotes=quotes):
                return self._rows(rows, entities)
        return self._read_exactly(body)

    def read_large(self, body: bytes) -> Reading:
        """
        Read a large body: yield None after each portion of the work, and the rows at the end.

        A row of more than `LARGE_BYTES` is work for a thread.

        Raises:
            MalformedInput, TooManyRows, InvalidInput: As `read`.
            BodyTooLarge: A row has far more values than the fields of the signature.
        """
        open_body = partial(self._open, body, self._max_rows)
        if len(body) > HUGE_BYTES:
            portions, entities = (yield open_body).result()
        else:
            portions, entities = open_body()
        yield None
        rows: list[Any] = []
        problems: list[FieldProblem] = []
        count = 0
        for some in portions:
            if some is None:
                some = (yield partial(next, portions)).result()
            decode = partial(self._decode_portion, some, count)
            try:
                rows += (yield decode).result() if _is_large(some[0]) else decode()
            except InvalidInput as error:
                if not error.fields:
                    raise
                problems += [
                    msgspec.structs.replace(each, row=each.row + count) for each in error.fields
                ]
            count += len(some)
            if count > self._max_rows:
                raise too_many_rows(self._max_rows)
            yield None
            if len(problems) >= json_rows.MOST_PROBLEMS:
                break
        if problems:
            raise refused_rows(problems, count)
        yield self._rows(rows, entities)

    def _open(
        self, body: bytes, max_rows: int
    ) -> tuple[Iterator[list[msgspec.Raw] | None], list[str] | None]:
        """Return the portions of a body as `_portions` cuts them, and its entities."""
        if self._is_envelope(body):
            parts = _envelope_parts(body)
            return _portions(parts, max_rows), _decode_entities(parts, max_rows)
        if not body.lstrip(_SPACE).startswith(b"{"):
            self._read_bare_row(body)
        return iter([[msgspec.Raw(body)]]), None

    def _decode_portion(self, rows: list[msgspec.Raw], first: int) -> list[Any]:
        """Check rows as they came; `first` is the number of the first one."""
        if _is_large(rows[0]):
            self._require_few_values(rows[0], first)
        return self.checker.decode(_array(rows))

    def _require_few_values(self, row: msgspec.Raw, number: int) -> None:
        """Accept a row that has not many more keys, texts and elements than its fields hold."""
        data, fields = bytes(row), len(self.checker.rules)
        most = 2 * fields + self._elements + SPARE_VALUES
        found = json_rows.count_quotes(data) // 2
        if found <= most and (found := json_rows.count_values(data)) > most:
            found = json_rows.count_values(json_rows.without_strings(data))
        if found > most:
            raise BodyTooLarge(
                f"Row {number} has {found} keys and values or more, for {fields} fields.",
                "Send each field of the signature once, and nothing else.",
            )

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
            BodyTooLarge: A row has far more values than the fields of the signature.
        """
        portions, entities = self._open(body, max_rows)
        rows: list[msgspec.Raw] = []
        for some in portions:
            rows += some or ()
            if len(rows) > max_rows:
                raise too_many_rows(max_rows)
        if entities is not None and len(entities) != len(rows):
            raise _wrong_entity_count(len(entities), len(rows))
        for number, row in enumerate(rows):
            if _is_large(row):
                self._require_few_values(row, number)
        starts = range(0, len(rows), piece_rows)
        return [_array(rows[start : start + piece_rows]) for start in starts], entities

    def _is_envelope(self, body: bytes) -> bool:
        if not body.startswith(b'{"rows":[') and _FIRST_KEY.match(body) is None:
            return False
        if self._fields.isdisjoint(("rows", "entities")):
            return True
        if json_rows.count_quotes(body) > 4 * len(self._fields) + 2 * SPARE_VALUES:
            return True  # a row has fewer keys and texts
        # A field is called `rows` or `entities`: the other fields tell a bare row apart.
        try:
            found = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        except _BAD_JSON:
            return True
        # No field's value is an array of objects: such `rows` are never a row's.
        has_rows = _OBJECTS.match(bytes(found.get("rows", b""))) is not None
        return has_rows or not self._fields <= found.keys()

    def _read_bare_row(self, body: bytes) -> list[Any]:
        if body.lstrip(_SPACE).startswith(b"{"):
            return self.checker.decode(body)
        if len(body) <= SMALL_BYTES:
            json_rows.parse_exactly(body)  # says where it is not JSON, if so
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
    entities: msgspec.Raw = msgspec.Raw()


_decode_parts = msgspec.json.Decoder(_EnvelopeParts).decode


def _envelope_parts(body: bytes) -> _EnvelopeParts:
    """Find the two parts of a large envelope, without reading the rows."""
    try:
        parts = _decode_parts(body)
    except msgspec.ValidationError as error:
        raise MalformedInput(f"The body does not have rows: {error}.", _SHAPE) from error
    except _BAD_JSON as error:
        raise _not_json(error) from error
    if not _has_both_once(body, bytes(parts.rows), bytes(parts.entities)):
        raise MalformedInput("The body has rows or entities more than once.", _SHAPE)
    return parts


def _has_both_once(body: bytes, rows: bytes, entities: bytes) -> bool:
    """Return whether an envelope has no key twice: msgspec keeps the last of repeated ones."""
    values = {b"rows": rows, b"entities": entities}
    place, key = 0, _FIRST_KEY.match(body)
    while key is not None and body.startswith(values[key[1]], key.end()):
        place = key.end() + len(values.pop(key[1]))
        key = _NEXT_KEY.match(body, place)
        if key is not None and key[1] not in values:
            return False
    if key is None and _END.fullmatch(body, place) is not None:
        return True
    # A key that is repeated, or is written with escapes: look at what stands beside the values.
    rest = body.replace(rows, b"0", 1)
    if entities:
        rest = rest.replace(entities, b"0", 1)
    rest = rest.translate(None, _SPACE)
    if len(rest) > SMALL_BYTES:
        return False
    pairs = json_rows.parse_exactly(rest)
    return len(dict(pairs)) == len(pairs)


def _decode_entities(parts: _EnvelopeParts, max_rows: int) -> list[str] | None:
    data = bytes(parts.entities) or b"null"
    if json_rows.count_quotes(data) > 4 * max_rows:
        raise MalformedInput(f"There are more than {max_rows} entities.", _SHAPE)
    try:
        return msgspec.json.decode(data, type=list[str] | None)
    except _BAD_JSON as error:
        raise _wrong_entities() from error


class _AnyObject(msgspec.Struct):
    """An object of which nothing is kept."""


_decode_raw_rows = msgspec.json.Decoder(list[msgspec.Raw]).decode
_skip_objects = msgspec.json.Decoder(list[_AnyObject]).decode


def _portions(parts: _EnvelopeParts, max_rows: int) -> Iterator[list[msgspec.Raw] | None]:
    """
    Cut the list `rows` into portions of up to `LARGE_BYTES`, or of one row that is longer.

    Yield None if it takes long to find the next portion.

    A place between two rows is found by its brackets. Within a string or a deeper value, what
    stands before the place is not valid JSON, and the next place is looked for.

    Raises:
        MalformedInput: It is not a list, or is empty.
        TooManyRows: There are more than `max_rows` rows where none can be told from the next.
    """
    data = bytes(parts.rows)
    if not data.startswith(b"["):
        raise MalformedInput(f"rows is not a list: it begins with {_start(data)}.", _SHAPE)
    place, size = 1, PORTION_BYTES
    while True:
        cut = _BETWEEN_OBJECTS.search(data, place + size, place + 2 * size)
        if cut is None and place + 2 * size < len(data):
            yield None
            cut = _BETWEEN_OBJECTS.search(data, place + size)
        end = len(data) - 1 if cut is None else cut.start() + 1
        array = b"[%b]" % data[place:end]
        try:
            if len(array) > LARGE_BYTES and len(_skip_objects(array)) > max_rows:
                raise too_many_rows(max_rows)
            rows = _decode_raw_rows(array)
        except _BAD_JSON as error:
            if isinstance(error, msgspec.ValidationError):
                raise MalformedInput(f"rows has more than objects: {error}.", _SHAPE) from error
            if cut is None:
                raise _not_json(error) from error
            size = 2 * (end - place)
            continue
        if not rows:
            raise _no_rows()
        yield from _regrouped(rows) if len(array) > LARGE_BYTES else (rows,)
        if cut is None:
            return
        place, size = cut.end() - 1, PORTION_BYTES


def _regrouped(rows: list[msgspec.Raw]) -> Iterator[list[msgspec.Raw]]:
    """Group rows of which some are long."""
    group: list[msgspec.Raw] = []
    size = 0
    for row in rows:
        if group and size + len(row) > PORTION_BYTES:
            yield group
            group, size = [], 0
        group.append(row)
        size += len(row)
    yield group


def _is_large(row: msgspec.Raw) -> bool:
    return len(row) > LARGE_BYTES


def _array(rows: list[msgspec.Raw]) -> bytes:
    return b"[%b]" % b",".join(map(bytes, rows))


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
