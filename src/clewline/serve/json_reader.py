"""
From a request's body to rows: `{"rows": [{…}, …], "entities": […]}`, or one bare row.

A small body is read in one go: one msgspec pass, and an exact one when that
refuses or cannot be sure. A large body is read in portions, so that whoever
drives the reading can let others run in between.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from clewline.errors import FieldProblem, InvalidInput, MalformedInput
from clewline.serve.formats.body_format import RequestRows, too_many_rows
from clewline.signature import accepted_limits as accepted_bounds
from clewline.signature import json_rows
from clewline.signature.check import Checker, refused_rows
from clewline.signature.field import Signature
from clewline.signature.field_rules import UnrepresentableNumber, is_encodable
from clewline.signature.row_type import is_matchable

MAX_ROWS = 10_000
SMALL_BYTES = 32 << 10
"""A body up to this size is read at once; that takes well under a millisecond."""
PORTION_ROWS = 256

_SHAPE = 'Send {"rows": [{…}, …]}, or one row as an object.'
_USUAL = b'{"rows":['
_ENVELOPE = re.compile(rb'\s*\{\s*"(?:rows|entities)"\s*:')
_KEYS = (b'"rows"', b'"entities"')
_OBJECTS = re.compile(rb"\[\s*\{")


_intakes: WeakValueDictionary[bytes, JsonReader] = WeakValueDictionary()


def json_reader_of(signature: Signature, accepted: dict[str, Any], max_rows: int) -> JsonReader:
    """
    Give the reader of a signature and what was accepted for it; one for all that have the same.

    Thousands of models are often of one kind; and the types inside lie in cycles,
    which cost a garbage collection when they go.
    """
    key = msgspec.msgpack.encode((signature, accepted, max_rows))
    found = _intakes.get(key)
    if found is None:
        checker = Checker(signature, accepted_bounds.accepted_from_builtins(accepted))
        found = _intakes[key] = JsonReader(checker, max_rows=max_rows)
    return found


class JsonReader:
    """Reads the bodies of requests to endpoints of one signature. Any thread may call it."""

    def __init__(self, checker: Checker, *, max_rows: int = MAX_ROWS) -> None:
        self.checker = self._checker = checker
        self._max_rows = max_rows
        self._fields = {field.name for field in checker.signature.fields}
        self._decode = _envelope_decoder(checker)

    def read(self, body: bytes) -> RequestRows:
        """
        Read a small body.

        Raises:
            MalformedInput: It is not JSON, or holds no rows.
            TooManyRows: It holds more rows than allowed.
            InvalidInput: Rows that the signature refuses; names every one.
        """
        if self._is_envelope(body):
            return self._fast(body) or self._exact(body)
        return RequestRows(self._bare(body))

    def read_large(self, body: bytes) -> Iterator[RequestRows | None]:
        """
        Read a large body: None after each portion of the work, the rows at the end.

        Raises:
            InvalidInput: As `read`.
        """
        if not self._is_envelope(body):
            yield RequestRows(self._bare(body))
            return
        outer = _outer(body)
        entities = _texts(outer)
        yield None
        rows: list[Any] = []
        problems: list[FieldProblem] = []
        count = 0
        elements = _array(outer.rows)
        if len(elements) > self._max_rows:
            raise too_many_rows(self._max_rows)
        yield None
        for portion in _portions(elements):
            try:
                rows += self._checker.decode(portion.text)
            except InvalidInput as error:
                if not error.fields:
                    raise
                problems += [_moved(problem, count) for problem in error.fields]
            count += portion.rows
            yield None
        if problems:
            raise refused_rows(problems, count)
        yield self._whole(rows, entities)

    def pieces(
        self, body: bytes, piece_rows: int, max_rows: int
    ) -> tuple[list[bytes], list[str] | None]:
        """
        Cut a body into JSON arrays of up to `piece_rows` rows, which are not looked into.

        Returns:
            The arrays, and the entities of all rows where the body has them.

        Raises:
            MalformedInput: The body holds no rows, or other than one entity a row.
            TooManyRows: There are more than `max_rows`.
        """
        if not self._is_envelope(body):
            if not body.lstrip(b" \t\r\n").startswith(b"{"):
                self._bare(body)
            return [b"[%b]" % body], None
        outer = _outer(body)
        entities, elements = _texts(outer), _array(outer.rows)
        if len(elements) > max_rows:
            raise too_many_rows(max_rows)
        if entities is not None and len(entities) != len(elements):
            raise _other_entities(len(entities), len(elements))
        return [portion.text for portion in _portions(elements, piece_rows)], entities

    def _is_envelope(self, body: bytes) -> bool:
        if not body.startswith(_USUAL) and _ENVELOPE.match(body) is None:
            return False
        # A model may have a field called `rows`: then the other fields tell the two apart.
        return self._fields.isdisjoint(("rows", "entities")) or not self._is_bare(body)

    def _is_bare(self, body: bytes) -> bool:
        try:
            found = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
            # No field's value is an array of objects: such `rows` are never a row's.
            if _OBJECTS.match(bytes(found.get("rows", b""))):
                return False
            return self._fields <= found.keys()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False

    def _bare(self, body: bytes) -> list[Any]:
        """Read one row; an array is not taken for one."""
        if body.lstrip(b" \t\r\n").startswith(b"{"):
            return self._checker.decode(body)
        json_rows.parse_exactly(body)
        raise MalformedInput(f"The body is no object: {_head(body)}.", _SHAPE)

    def _fast(self, body: bytes) -> RequestRows | None:
        """Read an envelope in one pass; None when that refuses, or cannot be sure."""
        if self._decode is None:
            return None
        try:
            envelope = self._decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        rows, entities = envelope.rows, envelope.entities
        keys, quotes = (1, 2) if entities is None else (2, 4 + 2 * len(entities))
        if not rows or self._checker.suspicious(body, rows, quotes=quotes, keys=keys):
            return None
        return self._whole(rows, entities)

    def _exact(self, body: bytes) -> RequestRows:
        """Read an envelope key by key, and say what is wrong with it if anything is."""
        pairs = json_rows.parse_exactly(body)
        envelope = dict(pairs)
        if len(envelope) < len(pairs) or not envelope.keys() <= {"rows", "entities"}:
            raise _strange_keys([key for key, _ in pairs])
        rows, entities = envelope.get("rows"), envelope.get("entities")
        if not isinstance(rows, list):
            raise MalformedInput("rows is not a list.", _SHAPE)
        if not rows:
            raise _no_rows()
        if len(rows) > self._max_rows:
            raise too_many_rows(self._max_rows)
        if entities is not None and not _are_texts(entities):
            raise _no_texts()
        return self._whole(self._checker.settle(rows), entities)

    def _whole(self, rows: list[Any], entities: list[str] | None) -> RequestRows:
        if len(rows) > self._max_rows:
            raise too_many_rows(self._max_rows)
        if entities is not None and len(entities) != len(rows):
            raise _other_entities(len(entities), len(rows))
        return RequestRows(rows, entities)


def _envelope_decoder(checker: Checker) -> Callable[[bytes], Any] | None:
    """Make the decoder of the fast pass; None where msgspec cannot match a field's name."""
    if not all(is_matchable(field.name) for field in checker.signature.fields):
        return None
    rows: Any = list[checker.row_type]  # type: ignore[name-defined]
    texts: Any = list[str] | None
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = [
        ("rows", rows),
        ("entities", texts, None),
    ]
    envelope = msgspec.defstruct("Envelope", fields, forbid_unknown_fields=True)
    return msgspec.json.Decoder(envelope).decode


class _Outer(msgspec.Struct, forbid_unknown_fields=True):
    rows: msgspec.Raw
    entities: msgspec.Raw = msgspec.Raw(b"null")


_decode_outer = msgspec.json.Decoder(_Outer).decode


def _outer(body: bytes) -> _Outer:
    """Find the two parts of a large envelope, without looking into the rows."""
    try:
        outer = _decode_outer(body)
    except msgspec.ValidationError as error:
        raise MalformedInput(f"The body is not what holds rows: {error}.", _SHAPE) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_json(error) from error
    # msgspec keeps the last of repeated keys; then something long stands outside of both parts.
    rest = len(body) - len(bytes(outer.rows)) - len(bytes(outer.entities))
    if rest > len(b'{"rows":,"entities":}') and any(body.count(key) > 1 for key in _KEYS):
        keys = [key for key, _ in json_rows.parse_exactly(body)]
        if len(keys) > len(set(keys)):
            raise _strange_keys(keys)
    return outer


def _texts(outer: _Outer) -> list[str] | None:
    try:
        return msgspec.json.decode(outer.entities, type=list[str] | None)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _no_texts() from error


def _array(rows: msgspec.Raw) -> list[msgspec.Raw]:
    """Give the elements of `rows`, which must be an array with something in it."""
    data = bytes(rows)
    if not data.startswith(b"["):
        raise MalformedInput(f"rows is not a list, but begins {_head(data)}.", _SHAPE)
    try:
        found = msgspec.json.decode(data, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_json(error) from error
    if not found:
        raise _no_rows()
    return found


@dataclass(frozen=True, slots=True)
class _Portion:
    rows: int
    text: bytes  # a JSON array


def _portions(rows: list[msgspec.Raw], size: int = PORTION_ROWS) -> Iterator[_Portion]:
    """Cut an array into arrays of up to `size` elements."""
    for start in range(0, len(rows), size):
        few = rows[start : start + size]
        yield _Portion(len(few), b"[%b]" % b",".join(map(bytes, few)))


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(map(_is_text, values))


def _is_text(value: Any) -> bool:
    """Tell a text that can be logged from numbers beyond float64 and from lone surrogates."""
    return (
        isinstance(value, str)
        and not isinstance(value, UnrepresentableNumber)
        and is_encodable(value)
    )


def _moved(problem: FieldProblem, rows: int) -> FieldProblem:
    return msgspec.structs.replace(problem, row=problem.row + rows)


def _head(data: bytes) -> str:
    return repr(data[:20].decode("utf-8", "replace"))


def _no_rows() -> MalformedInput:
    return MalformedInput("rows is empty: there is nothing to predict.", "Send one row or more.")


def _other_entities(entities: int, rows: int) -> MalformedInput:
    return MalformedInput(
        f"There are {entities} entities and {rows} rows.",
        "Send one entity a row, or leave entities out.",
    )


def _no_texts() -> MalformedInput:
    return MalformedInput(
        "entities is not a list of texts.", "Send one text a row, or leave it out."
    )


def _not_json(error: Exception) -> MalformedInput:
    return MalformedInput(f"The body is not JSON: {error}.", _SHAPE)


def _strange_keys(keys: list[str]) -> MalformedInput:
    named = ", ".join(repr(key[:50]) for key in keys[:10])
    return MalformedInput(
        f"The body has the keys {named}; it may have rows and entities, each once.", _SHAPE
    )
