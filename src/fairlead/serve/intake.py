"""
From a request's body to rows: `{"rows": [{…}, …], "entities": […]}`, or one bare row.

A small body is read in one go. A large one is read in portions, so that whoever
drives the reading can let others run in between.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from fairlead.errors import FieldProblem, InvalidInput, MalformedInput, TooManyRows
from fairlead.signature.check import Checker, refusal

MAX_ROWS = 10_000
SMALL_BYTES = 32 << 10
"""A body up to this size is read at once; that takes well under a millisecond."""
PORTION_ROWS = 128

_SHAPE = 'Send {"rows": [{…}, …]}, or one row as an object.'
_ENVELOPE = re.compile(rb'\s*\{\s*"(?:rows|entities)"\s*:')
_SPACE = re.compile(r"[ \t\n\r]*")
_decoder: Any = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=len)
_scan: Callable[[str, int], tuple[object, int]] = _decoder.scan_once
"""Finds the end of a JSON value, without making numbers of its digits."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one request, each decoded and checked by itself."""

    rows: list[Any]  # of the checker's row type, one or more
    entities: list[str] | None = None  # one a row


class Intake:
    """Reads the bodies of requests to one endpoint."""

    def __init__(self, checker: Checker, *, max_rows: int = MAX_ROWS) -> None:
        self._decode = checker.decode
        self._max_rows = max_rows
        # A model may have a field called `rows`; then only whole objects tell the two shapes apart.
        self._fields = {field.name for field in checker.signature.fields}

    def read(self, body: bytes) -> Rows:
        """
        Read a small body.

        Raises:
            MalformedInput: It is not JSON, or holds no rows.
            TooManyRows: It holds more rows than allowed.
            InvalidInput: Rows that the signature refuses; names every one.
        """
        if not self._is_envelope(body):
            return Rows(self._bare(body))
        envelope = _envelope(body)
        return self._whole(self._decode(_array(envelope.rows)), envelope.entities)

    def read_large(self, body: bytes) -> Iterator[Rows | None]:
        """
        Read a large body: None after each portion of the work, the rows at the end.

        Raises:
            InvalidInput: As `read`.
        """
        if not self._is_envelope(body):
            yield Rows(self._bare(body))
            return
        envelope = _envelope(body)
        yield None
        rows: list[Any] = []
        problems: list[FieldProblem] = []
        count = 0
        for portion in _portions(_text(envelope.rows), self._max_rows):
            try:
                rows += self._decode(portion.text)
            except InvalidInput as error:
                if not error.fields:
                    raise
                problems += [_moved(problem, count) for problem in error.fields]
            count += portion.rows
            yield None
        if problems:
            raise refusal(problems, count)
        yield self._whole(rows, envelope.entities)

    def _bare(self, body: bytes) -> list[Any]:
        """Read one row; whatever is not an object is not taken for one."""
        if not body.lstrip(b" \t\r\n").startswith(b"{"):
            _check_json(body)
            raise MalformedInput(f"The body is not an object, but begins {_head(body)}.", _SHAPE)
        return self._decode(body)

    def _is_envelope(self, body: bytes) -> bool:
        if _ENVELOPE.match(body) is None:
            return False
        return not self._fields & {"rows", "entities"} or not self._is_bare(body)

    def _is_bare(self, body: bytes) -> bool:
        """Tell a bare row of a model that has a field `rows` or `entities`."""
        try:
            return self._fields <= msgspec.json.decode(body, type=dict[str, msgspec.Raw]).keys()
        except msgspec.DecodeError:
            return False

    def _whole(self, rows: list[Any], entities: list[str] | None) -> Rows:
        if len(rows) > self._max_rows:
            raise too_many(self._max_rows)
        if entities is not None and len(entities) != len(rows):
            raise MalformedInput(
                f"There are {len(entities)} entities and {len(rows)} rows.",
                "Send one entity a row, or leave entities out.",
            )
        return Rows(rows, entities)


def too_many(max_rows: int) -> TooManyRows:
    """Give the error for more rows than one request may have."""
    return TooManyRows(
        f"There are more than {max_rows} rows in the request.", "Send them in several requests."
    )


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    rows: msgspec.Raw
    entities: list[str] | None = None


_decode_envelope = msgspec.json.Decoder(_Envelope).decode


def _envelope(body: bytes) -> _Envelope:
    try:
        envelope = _decode_envelope(body)
    except msgspec.ValidationError as error:
        raise MalformedInput(f"The body is not what holds rows: {error}.", _SHAPE) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _not_json(error) from error
    return envelope


def _array(rows: msgspec.Raw) -> bytes:
    """Give the bytes of `rows`, which must be an array."""
    data = bytes(rows)
    if data[:1] != b"[":
        raise MalformedInput(f"rows is not a list, but begins {_head(data)}.", _SHAPE)
    if data[1:].lstrip(b" \t\r\n") == b"]":
        raise MalformedInput("rows is empty: there is nothing to predict.", "Send one row or more.")
    return data


def _check_json(body: bytes) -> None:
    if not body.strip():
        raise MalformedInput("The body is empty.", _SHAPE)
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _not_json(error) from error


def _not_json(error: Exception) -> MalformedInput:
    return MalformedInput(f"The body is not JSON: {error}.", _SHAPE)


def _head(data: bytes) -> str:
    return repr(data[:20].decode("utf-8", "replace"))


def _text(rows: msgspec.Raw) -> str:
    try:
        return _array(rows).decode()
    except UnicodeDecodeError as error:
        raise _not_json(error) from error


@dataclass(frozen=True, slots=True)
class _Portion:
    rows: int
    text: bytes  # a JSON array


def _portions(text: str, max_rows: int) -> Iterator[_Portion]:
    """Cut a JSON array into arrays of up to `PORTION_ROWS` elements."""
    position, count = _skip_space(text, 1), 0
    while text[position] != "]":
        if count >= max_rows:
            raise too_many(max_rows)
        start, first = position, count
        while count - first < min(PORTION_ROWS, max_rows - first):
            end = _end_of_value(text, position)
            count += 1
            position = _skip_space(text, end)
            if text[position] == "]":
                break
            position = _skip_space(text, position + 1)
        yield _Portion(count - first, f"[{text[start:end]}]".encode())


def _end_of_value(text: str, position: int) -> int:
    try:
        return _scan(text, position)[1]
    except (StopIteration, ValueError, RecursionError) as error:
        raise _not_json(error) from error


def _skip_space(text: str, position: int) -> int:
    space = _SPACE.match(text, position)
    assert space is not None
    return space.end()


def _moved(problem: FieldProblem, rows: int) -> FieldProblem:
    return msgspec.structs.replace(problem, row=problem.row + rows)
