"""
The body formats `oip` and `oip-binary`: inference requests as rows.

A request may send the rows of a signature in two ways:

    one tensor per field  named as the field, shape [n] or [n, 1], of a tensor field [n, …]
    one tensor for all    under another name, shape [n, fields], if all fields are numbers,
                          integers or booleans, in the order of the signature

Null is JSON null, NaN in a tensor of floats, or in BYTES the string that the parameter `null`
of the input names. `entities` is a parameter of the request.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import msgspec

from clewline.errors import FieldProblem, InvalidInput, MalformedInput
from clewline.protocols.oip import infer_request, tensor_data
from clewline.protocols.oip.infer_request import InferInput, InferRequest, ParsedInferRequest
from clewline.protocols.oip.one_row import OneRowReader
from clewline.protocols.oip.tensor_data import BYTES, DATATYPES, TensorMismatch
from clewline.protocols.oip.tensor_reader import (
    CONTENT_TYPES,
    NULL,
    UNSURE,
    Elements,
    TensorReader,
    datatype_of,
    field_takes,
)
from clewline.serve.formats.body_format import RequestRows, too_many_rows
from clewline.serve.formats.json_formats import is_text
from clewline.signature.check import Checker, refused_rows
from clewline.signature.field import Signature
from clewline.signature.field_rules import printable_text
from clewline.signature.json_rows import NameSuggestions, printable_json

OIP = "oip"
"""An inference request in JSON alone."""
OIP_BINARY = "oip-binary"
"""One with raw tensors behind the JSON; the detail is the length of the JSON."""
TensorKey = tuple[str, str, str | None, str | None]
"""What decides how a tensor is read: name, datatype, content type and null; quick to make."""
MATRIX_KINDS = frozenset({"number", "integer", "boolean"})
MATRIX = "input"
"""The name of the one tensor for all fields in metadata; a request may name it otherwise."""
ENTITIES = "entities"
LAYOUTS = 64
"""Layouts that are remembered for one signature."""


class OipFormat:
    """
    Reads inference requests.

    Args:
        is_binary: Whether raw tensors may follow the JSON; then the detail is its length.
    """

    def __init__(self, *, is_binary: bool) -> None:
        self._is_binary = is_binary

    def read_rows(self, body: bytes, detail: str, checker: Checker, max_rows: int) -> RequestRows:
        """Read and check the rows of a request."""
        reader = _readers.get(checker)
        if reader is None:
            reader = _readers[checker] = InferRequestReader(checker)
        return reader.read(body, self._json_bytes(body, detail), max_rows)

    def rows_as_json(self, body: bytes, detail: str) -> list[bytes]:
        """Return each row as a JSON object: the name of each tensor, and its data for the row."""
        parsed = infer_request.decode_exactly(body, self._json_bytes(body, detail))
        columns = {
            tensor.name: _column_as_json(parsed, place)
            for place, tensor in enumerate(parsed.request.inputs)
        }
        rows = zip(*columns.values(), strict=True)
        return [msgspec.json.encode(dict(zip(columns, row, strict=True))) for row in rows]

    def _json_bytes(self, body: bytes, detail: str) -> int | None:
        return infer_request.json_length(detail, body) if self._is_binary else None


FORMAT = OipFormat(is_binary=False)
BINARY_FORMAT = OipFormat(is_binary=True)


class _TensorLayout(NamedTuple):
    """Which tensor holds which field, for requests with the same tensor keys."""

    readers: list[tuple[int, TensorReader]]  # (place of its tensor, reader) in the order of a row
    is_matrix: bool  # all fields in one tensor: the place is that of the field in it
    one_row: list[tuple[int, Any, Any]]  # place, `one` and `raw_one`; empty if not all are scalars


class InferRequestReader:
    """Reads the requests to endpoints of one signature."""

    def __init__(self, checker: Checker) -> None:
        self._row_type, self._rules = checker.row_type, checker.rules
        self._fields = [field.name for field in checker.signature.fields]
        self._layouts: dict[tuple[TensorKey, ...], _TensorLayout] = {}
        self._takes_matrix = takes_matrix(checker.signature)
        self.one_row = OneRowReader()

    def read(self, body: bytes, json_bytes: int | None, max_rows: int) -> RequestRows:
        """Read and check the rows of a request; `json_bytes` is None if the whole body is JSON."""
        if (row := self.one_row.read(body, json_bytes)) is not None:
            return RequestRows([self._row_type(*row)])
        parsed = infer_request.decode_quickly(body, json_bytes)
        columns, is_plain = None, True
        if parsed is not None and parsed.request.inputs:
            layout = self._layout(parsed.request)
            columns = _quick_row(layout, parsed)
            if columns is None:
                columns = self._columns(layout, parsed, max_rows, exactly=False)
        if parsed is None or columns is None:
            parsed = infer_request.decode_exactly(body, json_bytes)
            if not parsed.request.inputs:
                raise MalformedInput("There are no inputs.", infer_request.SHAPE)
            layout = self._layout(parsed.request)
            columns = self._columns(layout, parsed, max_rows, exactly=True)
            assert columns is not None
            is_plain = False
        rows = list(map(self._row_type, *columns))
        entities = entities_of(parsed.request.parameters, len(rows))
        if is_plain and len(rows) == 1 and entities is None and not layout.is_matrix:
            self.one_row.learn(layout.readers, parsed, json_bytes)
        return RequestRows(rows, entities)

    # ---- which tensor holds which field

    def _layout(self, request: InferRequest) -> _TensorLayout:
        """
        Return the layout of a request.

        Raises:
            MalformedInput: The content type of the request is unknown.
            InvalidInput: Inputs are missing, unknown, repeated, or of another datatype.
        """
        content = None if request.parameters is None else request.parameters.get("content_type")
        if content is not None and content not in CONTENT_TYPES:
            raise MalformedInput(
                f"The content type {printable_text(repr(content))} is not supported.",
                f"Send one of {', '.join(CONTENT_TYPES)}, or none.",
            )
        keys = tuple(map(_tensor_key, request.inputs))
        layout = self._layouts.get(keys)
        if layout is None:
            layout = self._new_layout(keys)
            if len(self._layouts) < LAYOUTS:
                self._layouts[keys] = layout
        return layout

    def _new_layout(self, keys: tuple[TensorKey, ...]) -> _TensorLayout:
        is_matrix = self._takes_matrix and len(keys) == 1 and keys[0][0] not in self._fields
        if is_matrix:
            (key,) = keys
            problem = _key_problem(key)
            if problem is None and not all(field_takes(rule.field, key[1]) for rule in self._rules):
                expected = "a datatype that every field may have, such as FP64"
                problem = _tensor_problem(key[0], key[1], expected)
            _refuse([] if problem is None else [problem])
            places = {name: (place, keys[0]) for place, name in enumerate(self._fields)}
        else:
            self._check_tensors(keys)
            places = {key[0]: (place, key) for place, key in enumerate(keys)}
        readers = []
        for rule in self._rules:
            place, key = places[rule.field.name]
            readers.append((place, TensorReader(rule, *key[1:])))
        is_scalar = not is_matrix and not any(reader.is_tensor for _, reader in readers)
        one_row = [(place, reader.one, reader.raw_one) for place, reader in readers if is_scalar]
        return _TensorLayout(readers, is_matrix, one_row)

    def _check_tensors(self, keys: tuple[TensorKey, ...]) -> None:
        """Refuse by name whatever is wrong with the inputs as a whole."""
        names = {key[0] for key in keys}
        fields = {rule.field.name: rule.field for rule in self._rules}
        problems = [
            FieldProblem(0, name, None, f"a tensor of {datatype_of(field)}; the input is missing")
            for name, field in fields.items()
            if name not in names
        ]
        suggestions = NameSuggestions(fields)
        seen = set[str]()
        for key in keys:
            (name, datatype, *_), expected = key, None
            if name not in fields:
                expected = f"no such input{suggestions.hint(name)}"
            elif name in seen:
                expected = "one input of this name"
            elif (problem := _key_problem(key)) is not None:
                problems.append(problem)
            elif not field_takes(fields[name], datatype):
                expected = f"a tensor of {datatype_of(fields[name])}"
            if expected is not None:
                problems.append(_tensor_problem(name, datatype, expected))
            seen.add(name)
        _refuse(problems)

    # ---- from tensors to columns

    def _columns(
        self, layout: _TensorLayout, parsed: ParsedInferRequest, max_rows: int, *, exactly: bool
    ) -> list[list[Any]] | None:
        """
        Return the values of each field, one per row.

        Args:
            layout: The layout of the request.
            parsed: The request.
            max_rows: The most rows that are accepted.
            exactly: Whether to decide value by value. If not, and any value is not plainly
                right, the result is None.

        Raises:
            MalformedInput: There are no rows.
            TooManyRows: There are more than `max_rows`.
            InvalidInput: Tensors or values are refused; `fields` names each one.
        """
        rows = self._count_rows(layout, parsed, max_rows)
        refused: list[FieldProblem] = []
        broken: list[FieldProblem] = []
        columns: list[list[Any]] = []
        tensor, span, width = parsed.request.inputs[0], parsed.spans[0], len(layout.readers)
        matrix: Elements = []
        try:
            if layout.is_matrix and span is None:
                matrix = tensor_data.flat_elements(tensor.data, tensor.shape)
            elif layout.is_matrix and span is not None:
                matrix = tensor_data.raw_array(parsed.body, span, tensor.datatype, rows * width)
        except TensorMismatch as mismatch:
            broken.append(_tensor_problem(tensor.name, mismatch.found, mismatch.expected))
        for place, reader in () if broken else layout.readers:
            try:
                if layout.is_matrix:
                    elements = matrix[place::width]
                else:
                    elements = reader.elements(parsed, place, rows)
                if exactly:
                    columns.append(reader.exact_values(elements, rows, refused))
                elif (values := reader.quick_values(elements, rows)) is not None:
                    columns.append(values)
                else:
                    return None
            except TensorMismatch as mismatch:
                name = reader.field.name
                broken.append(_tensor_problem(name, mismatch.found, mismatch.expected))
        if broken and not exactly:
            return None
        _refuse(broken)
        if refused:
            raise refused_rows(sorted(refused, key=lambda problem: problem.row), rows)
        return columns

    def _count_rows(self, layout: _TensorLayout, parsed: ParsedInferRequest, max_rows: int) -> int:
        """Count the rows, in which all tensors agree; raises as `_columns`."""
        inputs = parsed.request.inputs
        rows = inputs[0].shape[0] if inputs[0].shape else -1
        if rows == 0:
            raise MalformedInput("There are no rows.", "Send at least one.")
        if rows > max_rows:
            raise too_many_rows(max_rows)
        if layout.is_matrix:
            width = len(layout.readers)
            if inputs[0].shape != [rows, width]:
                expected = f"the shape [n, {width}], a column for each field"
                _refuse([_shape_problem(inputs[0].name, inputs[0].shape, expected)])
            return rows
        problems = []
        for place, reader in layout.readers:
            shape = inputs[place].shape
            if rows < 0 or not reader.fits(shape, rows):
                wanted = ", ".join(map(str, [rows if rows > 0 else "n", *reader.shape]))
                problems.append(_shape_problem(reader.field.name, shape, f"shape [{wanted}]"))
        _refuse(problems)
        return rows


_readers: WeakKeyDictionary[Checker, InferRequestReader] = WeakKeyDictionary()


def _quick_row(layout: _TensorLayout, parsed: ParsedInferRequest) -> list[list[Any]] | None:
    """Read a row of scalars, a tensor each, since NumPy and sets take far longer for one value."""
    columns = []
    for place, one, raw_one in layout.one_row:
        tensor, span = parsed.request.inputs[place], parsed.spans[place]
        if tensor.shape != [1] and tensor.shape != [1, 1]:
            return None
        if span is not None:
            value = raw_one(parsed.body, *span)
        elif type(tensor.data) is list and len(tensor.data) == 1:
            value = one(tensor.data[0])
        else:
            return None
        if value is UNSURE:
            return None
        columns.append([value])
    return columns or None


def takes_matrix(signature: Signature) -> bool:
    """Return whether one tensor may hold all fields."""
    return all(field.kind in MATRIX_KINDS for field in signature.fields)


def entities_of(parameters: dict[str, Any] | None, rows: int) -> list[str] | None:
    """
    Read the entities of the rows: a list of strings, or a string (one entity, or a JSON list).

    Raises:
        MalformedInput: The parameter is neither, or there is not one entity per row.
    """
    if not parameters or (sent := parameters.get(ENTITIES)) is None:
        return None
    if isinstance(sent, str) and sent.startswith("["):
        try:
            sent = msgspec.json.decode(sent)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            sent = None
    entities = [sent] if isinstance(sent, str) else sent
    if not isinstance(entities, list) or not all(map(is_text, entities)):
        raise MalformedInput(
            f"The parameter {ENTITIES} is not a list of strings.",
            "Send one string per row, as a list or as the JSON of one.",
        )
    if len(entities) != rows:
        raise MalformedInput(
            f"There are {len(entities)} entities and {rows} rows.",
            "Send one entity per row, or leave entities out.",
        )
    return entities


def _tensor_key(tensor: InferInput) -> TensorKey:
    if not tensor.parameters:
        return tensor.name, tensor.datatype, None, None
    content, null = tensor.parameters.get("content_type"), tensor.parameters.get(NULL)
    if not isinstance(content, str | None) or not isinstance(null, str | None):
        expected = f"strings in content_type and {NULL}"
        _refuse([_tensor_problem(tensor.name, content, expected)])
    return tensor.name, tensor.datatype, content, null


def _key_problem(key: TensorKey) -> FieldProblem | None:
    """Return what is wrong with a datatype or content type, whatever the field."""
    name, datatype, content, null = key
    if datatype not in DATATYPES:
        return _tensor_problem(name, datatype, f"a datatype of {', '.join(DATATYPES)}")
    if content is not None and content not in CONTENT_TYPES:
        return _tensor_problem(name, content, f"a content type of {', '.join(CONTENT_TYPES)}")
    if datatype != BYTES and (null is not None or content in ("str", "base64", "datetime")):
        expected = f"BYTES, for the content type {content} or for {NULL}"
        return _tensor_problem(name, datatype, expected)
    return None


def _tensor_problem(name: str, found: Any, expected: str) -> FieldProblem:
    """Return a problem of a tensor as a whole; it stands at its first row."""
    return FieldProblem(0, printable_text(name), printable_json(found), expected)


def _shape_problem(name: str, shape: Sequence[int], expected: str) -> FieldProblem:
    return _tensor_problem(name, f"shape {shape}"[:200], expected)


def _refuse(problems: list[FieldProblem]) -> None:
    """Raise `InvalidInput` if inputs do not fit."""
    if not problems:
        return
    first = problems[0]
    found = "it is missing" if first.value is None else repr(first.value)
    more = f" {len(problems) - 1} more inputs do not fit." if len(problems) > 1 else ""
    raise InvalidInput(
        f"The input {first.field!r} does not fit: {found} where this was expected: "
        f"{first.expected}.{more}",
        "GET /v2/models/NAME describes the inputs.",
        tuple(problems),
    )


def _column_as_json(parsed: ParsedInferRequest, place: int) -> list[Any]:
    """Return the data of a tensor for each row, as JSON can hold it; NaN is null."""
    tensor, span = parsed.request.inputs[place], parsed.spans[place]
    size = prod(tensor.shape)
    if span is None:
        elements = [
            None if isinstance(each, str) and type(each) is not str else each
            for each in tensor_data.flat_elements(tensor.data, tensor.shape)
        ]
    elif tensor.datatype == BYTES:
        strings = tensor_data.raw_strings(parsed.body, span, size)
        elements = [each.decode("utf-8", "backslashreplace") for each in strings]
    else:
        elements = tensor_data.values_of(
            tensor_data.raw_array(parsed.body, span, tensor.datatype, size), tensor.datatype
        )
    null = (tensor.parameters or {}).get(NULL)
    elements = [None if element == null else element for element in elements]
    rows, width = tensor.shape[0], size // tensor.shape[0]
    if tensor.shape[1:] in ([], [1]):
        return elements
    return [elements[row * width : (row + 1) * width] for row in range(rows)]
