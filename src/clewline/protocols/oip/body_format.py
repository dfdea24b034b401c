"""
Inference requests of the Open Inference Protocol as rows.

Two ways to send the rows of a signature are read:

    a tensor a field      named as the field, shape [n] or [n, 1], of a tensor field [n, …]
    one tensor for all    under another name, shape [n, fields], where all fields are numbers,
                          integers or booleans, in the order of the signature

Null is JSON null, NaN in a tensor of floats, or in BYTES the text that the
input's parameter `null` names. `entities` is a parameter of the request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from clewline.errors import FieldProblem, InvalidInput, MalformedInput
from clewline.protocols.oip import tensor_data
from clewline.protocols.oip.infer_request import (
    SHAPE,
    Input,
    Parameters,
    Whole,
    exact,
    header_length,
    quick,
)
from clewline.protocols.oip.one_row import Usual
from clewline.protocols.oip.tensor_data import BYTES, DATATYPES, Misfit
from clewline.protocols.oip.tensor_reader import (
    CONTENT_TYPES,
    NULL,
    UNSURE,
    Column,
    datatype_of,
    fits,
)
from clewline.serve.formats import CheckedRows, too_many_rows
from clewline.signature.check import Checker, refused_rows
from clewline.signature.field import Signature
from clewline.signature.field_rules import is_encodable, printable_text
from clewline.signature.json_rows import NameSuggestions, printable_json

MATRIX_KINDS = frozenset({"number", "integer", "boolean"})
MATRIX = "input"
"""What metadata calls the one tensor for all fields; a request may call it otherwise."""
ENTITIES = "entities"
PLANS = 64
"""Ways to send the rows of one signature that are remembered."""

Key = tuple[tuple[str, str, str | None, str | None], ...]


class OipRequests:
    """Reads a request that is JSON alone."""

    def read_rows(self, body: bytes, detail: str, checker: Checker, max_rows: int) -> CheckedRows:
        """Read and check the rows of a request."""
        return read(body, None, checker, max_rows)

    def rows_as_json(self, body: bytes, detail: str) -> list[bytes]:
        """Write each row as a JSON object of what its tensors hold."""
        return objects(exact(body, None))


class OipBinaryRequests:
    """Reads JSON of `detail` bytes, and the raw tensors that follow it."""

    def read_rows(self, body: bytes, detail: str, checker: Checker, max_rows: int) -> CheckedRows:
        """Read and check the rows of a request."""
        return read(body, header_length(detail, body), checker, max_rows)

    def rows_as_json(self, body: bytes, detail: str) -> list[bytes]:
        """Write each row as a JSON object of what its tensors hold."""
        return objects(exact(body, header_length(detail, body)))


FORMAT = OipRequests()
BINARY_FORMAT = OipBinaryRequests()
OIP = "oip"
"""An inference request in JSON alone."""
OIP_BINARY = "oip-binary"
"""One with raw tensors behind the JSON; the detail is the length of the JSON."""


class Plan:
    """Which tensor of a request holds which field, for requests of one shape."""

    def __init__(self, columns: list[tuple[int, Column]], is_matrix: bool) -> None:
        self.columns = columns  # in the order of a row
        self.is_matrix = is_matrix  # all in one tensor: then the place is that of the field in it
        self.ones = [(place, column.one, column.raw_one) for place, column in columns]
        self.is_simple = not is_matrix and all(c.field.kind != "tensor" for _, c in columns)


class Planner:
    """Makes and keeps the plans of one signature."""

    def __init__(self, checker: Checker) -> None:
        self._rules = checker.rules
        self._fields = [field.name for field in checker.signature.fields]
        self._nearest = NameSuggestions(self._fields)
        self._plans: dict[Key, Plan] = {}
        self._takes_matrix = takes_matrix(checker.signature)
        self.usual = Usual()

    def plan(self, inputs: Sequence[Input]) -> Plan:
        """
        Give the plan for inputs like these.

        Raises:
            InvalidInput: Inputs are missing, unknown, there twice, or of another datatype.
        """
        key = tuple([_key(each) for each in inputs])
        plan = self._plans.get(key)
        if plan is None:
            plan = self._made(key)
            if len(self._plans) < PLANS:
                self._plans[key] = plan
        return plan

    def _made(self, key: Key) -> Plan:
        if self._takes_matrix and len(key) == 1 and key[0][0] not in self._fields:
            self._check_matrix(key[0])
            return Plan(self._columns(lambda name: (self._fields.index(name), key[0])), True)
        self._check(key)
        places = {each[0]: (place, each) for place, each in enumerate(key)}
        return Plan(self._columns(places.__getitem__), False)

    def _columns(self, find: Callable[[str], tuple[int, Any]]) -> list[tuple[int, Column]]:
        found = []
        for rule in self._rules:
            place, (_, datatype, content, null) = find(rule.field.name)
            found.append((place, Column(rule, datatype, content, null)))
        return found

    def _check_matrix(self, tensor: tuple[str, str, str | None, str | None]) -> None:
        name, datatype = tensor[:2]
        problem = _misfit(tensor)
        if problem is None and not all(fits(rule.field, datatype) for rule in self._rules):
            problem = _wrong(name, datatype, "a datatype that every field may have, such as FP64")
        _raise([] if problem is None else [problem])

    def _check(self, key: Key) -> None:
        """Refuse by name whatever is wrong with the inputs as a whole."""
        names = [each[0] for each in key]
        fields = {rule.field.name: rule.field for rule in self._rules}
        problems = []
        for name, field in fields.items():
            if name not in names:
                expected = f"a tensor of {datatype_of(field)}; the input is missing"
                problems.append(FieldProblem(0, name, None, expected))
        for place, each in enumerate(key):
            name, datatype = each[:2]
            if name not in fields:
                expected = f"no such input{self._nearest.hint(name)}"
                problems.append(_wrong(name, datatype, expected))
            elif name in names[:place]:
                problems.append(_wrong(name, datatype, "one input of this name"))
            elif (problem := _misfit(each)) is not None:
                problems.append(problem)
            elif not fits(fields[name], datatype):
                expected = f"a tensor of {datatype_of(fields[name])}"
                problems.append(_wrong(name, datatype, expected))
        _raise(problems)


def takes_matrix(signature: Signature) -> bool:
    """Tell whether one tensor may hold all fields."""
    return all(field.kind in MATRIX_KINDS for field in signature.fields)


def read(body: bytes, header_bytes: int | None, checker: Checker, max_rows: int) -> CheckedRows:
    """Read and check the rows of a request; `header_bytes` is None when it is JSON alone."""
    planner = _planners.get(checker)
    if planner is None:
        planner = _planners[checker] = Planner(checker)
    if (row := planner.usual.read(body, header_bytes)) is not None:
        return CheckedRows([checker.row_type(*row)])
    whole = quick(body, header_bytes)
    if whole is not None and whole.request.inputs:
        _check_content(whole.request.parameters)
        plan = planner.plan(whole.request.inputs)
        if (rows := _quickly(plan, whole, checker, max_rows)) is not None:
            entities = entities_of(whole.request.parameters, len(rows))
            if len(rows) == 1 and plan.is_simple and entities is None:
                planner.usual.learn(plan.columns, whole, header_bytes)
            return CheckedRows(rows, entities)
    whole = exact(body, header_bytes)
    if not whole.request.inputs:
        raise MalformedInput("There are no inputs.", SHAPE)
    _check_content(whole.request.parameters)
    rows = _exactly(planner.plan(whole.request.inputs), whole, checker, max_rows)
    return CheckedRows(rows, entities_of(whole.request.parameters, len(rows)))


def entities_of(parameters: Parameters | None, rows: int) -> list[str] | None:
    """
    Read whom the rows are about: a list of texts, or a text (of one row, or JSON of a list).

    Raises:
        MalformedInput: It is neither, or there is not one a row.
    """
    if not parameters or (said := parameters.get(ENTITIES)) is None:
        return None
    if isinstance(said, str) and said.startswith("["):
        try:
            said = msgspec.json.decode(said)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise _no_entities() from error
    entities = [said] if isinstance(said, str) else said
    if not isinstance(entities, list) or not all(map(_is_text, entities)):
        raise _no_entities()
    if len(entities) != rows:
        raise MalformedInput(
            f"There are {len(entities)} entities and {rows} rows.",
            "Send one entity a row, or leave entities out.",
        )
    return entities


def objects(whole: Whole) -> list[bytes]:
    """Write each row as a JSON object: the name of each tensor, and what it holds for the row."""
    columns = {}
    for place, tensor in enumerate(whole.request.inputs):
        columns[tensor.name] = _rows_of(whole, place)
    names = list(columns)
    return [
        msgspec.json.encode(dict(zip(names, values, strict=True)))
        for values in zip(*columns.values(), strict=True)
    ]


def _check_content(parameters: Parameters | None) -> None:
    """Refuse a content type of the whole request that is not known; each input is a column."""
    content = None if parameters is None else parameters.get("content_type")
    if content is not None and content not in CONTENT_TYPES:
        raise MalformedInput(
            f"The content type {printable_text(repr(content))} is not read here.",
            f"Send one of {', '.join(CONTENT_TYPES)}, or none.",
        )


_planners: WeakKeyDictionary[Checker, Planner] = WeakKeyDictionary()


def _quickly(plan: Plan, whole: Whole, checker: Checker, max_rows: int) -> list[Any] | None:
    """Read rows where everything is plainly right, else None."""
    inputs = whole.request.inputs
    rows = inputs[0].shape[0] if inputs[0].shape else 0
    if not 0 < rows <= max_rows:
        return None
    if plan.is_matrix:
        return _quick_matrix(plan, whole, checker, rows)
    if rows == 1 and plan.is_simple and (row := _quick_row(plan, whole)) is not None:
        return [checker.row_type(*row)]
    columns = []
    for place, column in plan.columns:
        values = column.quick(whole, place, rows)
        if values is None:
            return None
        columns.append(values)
    row_type = checker.row_type
    return [row_type(*row) for row in zip(*columns, strict=True)]


def _quick_row(plan: Plan, whole: Whole) -> list[Any] | None:
    """Read the row of a request that has one."""
    inputs, body, places = whole.request.inputs, whole.body, whole.places
    row = []
    for place, one, raw_one in plan.ones:
        tensor, raw = inputs[place], places[place]
        if tensor.shape != [1] and tensor.shape != [1, 1]:
            return None
        if raw is not None:
            row.append(raw_one(body, raw[0], raw[1]))
        elif type(tensor.data) is list and len(tensor.data) == 1:
            row.append(one(tensor.data[0]))
        else:
            return None
    for value in row:
        if value is UNSURE:
            return None
    return row


def _quick_matrix(plan: Plan, whole: Whole, checker: Checker, rows: int) -> list[Any] | None:
    tensor, raw = whole.request.inputs[0], whole.places[0]
    width = len(plan.columns)
    if tensor.shape != [rows, width]:
        return None
    try:
        elements = _matrix_elements(whole, tensor, raw, rows * width)
    except Misfit:
        return None
    columns = []
    for place, column in plan.columns:
        values = column.settle(elements[place::width])
        if values is None:
            return None
        columns.append(values)
    return [checker.row_type(*row) for row in zip(*columns, strict=True)]


def _matrix_elements(
    whole: Whole, tensor: Input, raw: tuple[int, int] | None, size: int
) -> list[Any]:
    if raw is None:
        return tensor_data.flat(tensor.data, tensor.shape)
    return tensor_data.raw_values(whole.body, *raw, tensor.datatype, size)


def _exactly(plan: Plan, whole: Whole, checker: Checker, max_rows: int) -> list[Any]:
    """Read rows value by value, and name every one that is refused."""
    rows = _count(plan, whole, max_rows)
    problems: list[FieldProblem] = []
    broken: list[FieldProblem] = []
    columns = []
    elements = _exact_matrix(whole, rows, len(plan.columns)) if plan.is_matrix else []
    for place, column in plan.columns:
        if plan.is_matrix:
            columns.append(column.judged(elements[place :: len(plan.columns)], problems))
            continue
        try:
            columns.append(column.exact(whole, place, rows, problems))
        except Misfit as misfit:
            broken.append(_wrong(column.field.name, misfit.found, misfit.expected))
    _raise(broken)
    if problems:
        raise refused_rows(sorted(problems, key=lambda problem: problem.row), rows)
    return [checker.row_type(*row) for row in zip(*columns, strict=True)]


def _exact_matrix(whole: Whole, rows: int, width: int) -> list[Any]:
    tensor, raw = whole.request.inputs[0], whole.places[0]
    try:
        return _matrix_elements(whole, tensor, raw, rows * width)
    except Misfit as misfit:
        raise _misfits([_wrong(tensor.name, misfit.found, misfit.expected)]) from misfit


def _count(plan: Plan, whole: Whole, max_rows: int) -> int:
    """
    Count the rows, in which all tensors agree.

    Raises:
        MalformedInput: There are none.
        TooManyRows: There are more than `max_rows`.
        InvalidInput: A tensor has another shape.
    """
    inputs = whole.request.inputs
    rows = inputs[0].shape[0] if inputs[0].shape else -1
    if rows == 0:
        raise MalformedInput("There are no rows.", "Send at least one.")
    if rows > max_rows:
        raise too_many_rows(max_rows)
    problems = []
    if plan.is_matrix:
        if inputs[0].shape[1:] != [len(plan.columns)] or rows < 0:
            expected = f"the shape [n, {len(plan.columns)}], a column for each field"
            problems.append(_wrong(inputs[0].name, f"shape {inputs[0].shape}"[:200], expected))
    else:
        for place, column in plan.columns:
            shape = inputs[place].shape
            if rows < 0 or not column.fits(shape, rows):
                wanted = [rows if rows > 0 else "n", *column.shape]
                shown = str(wanted).replace("'", "")
                problems.append(_wrong(column.field.name, f"shape {shape}"[:200], f"shape {shown}"))
    _raise(problems)
    return rows


def _key(tensor: Input) -> tuple[str, str, str | None, str | None]:
    parameters = tensor.parameters
    if not parameters:
        return tensor.name, tensor.datatype, None, None
    content, null = parameters.get("content_type"), parameters.get(NULL)
    if not (content is None or isinstance(content, str)) or not (
        null is None or isinstance(null, str)
    ):
        raise _misfits([_wrong(tensor.name, content, f"texts in content_type and {NULL}")])
    return tensor.name, tensor.datatype, content, null


def _misfit(key: tuple[str, str, str | None, str | None]) -> FieldProblem | None:
    """Say what is wrong with a datatype or content type, whatever the field."""
    name, datatype, content, null = key
    if datatype not in DATATYPES:
        return _wrong(name, datatype, f"a datatype of {', '.join(DATATYPES)}")
    if content is not None and content not in CONTENT_TYPES:
        return _wrong(name, content, f"a content type of {', '.join(CONTENT_TYPES)}")
    if datatype != BYTES and (null is not None or content in ("str", "base64", "datetime")):
        return _wrong(name, datatype, f"BYTES, for the content type {content} or for {NULL}")
    return None


def _wrong(name: str, found: Any, expected: str) -> FieldProblem:
    """Make a problem of a tensor as a whole; it stands at its first row."""
    return FieldProblem(0, printable_text(name), printable_json(found), expected)


def _raise(problems: list[FieldProblem]) -> None:
    if problems:
        raise _misfits(problems)


def _misfits(problems: list[FieldProblem]) -> InvalidInput:
    first = problems[0]
    found = "it is missing" if first.value is None else repr(first.value)
    more = f" {len(problems) - 1} more inputs do not fit." if len(problems) > 1 else ""
    return InvalidInput(
        f"The input {first.field!r} does not fit: {found} where this was expected: "
        f"{first.expected}.{more}",
        "GET /v2/models/NAME describes the inputs.",
        tuple(problems),
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and is_encodable(value)


def _no_entities() -> MalformedInput:
    return MalformedInput(
        f"The parameter {ENTITIES} is no list of texts.",
        "Send one text a row, as a list or as the JSON of one.",
    )


def _rows_of(whole: Whole, place: int) -> list[Any]:
    """Give what a tensor holds for each row, as JSON can say it."""
    tensor, raw = whole.request.inputs[place], whole.places[place]
    size = tensor_data.size_of(tensor.shape)
    if raw is None:
        elements = [_sayable(element) for element in tensor_data.flat(tensor.data, tensor.shape)]
    elif tensor.datatype == BYTES:
        found = tensor_data.raw_elements(whole.body, *raw, size)
        elements = [element.decode("utf-8", "backslashreplace") for element in found]
    else:
        elements = tensor_data.raw_values(whole.body, *raw, tensor.datatype, size)
    null = (tensor.parameters or {}).get(NULL)
    elements = [None if element == null else element for element in elements]
    rows, width = tensor.shape[0], size // tensor.shape[0]
    if tensor.shape[1:] in ([], [1]):
        return elements
    return [elements[row * width : (row + 1) * width] for row in range(rows)]


def _sayable(value: Any) -> Any:
    """Give NaN as null, which is what it says here."""
    return None if isinstance(value, str) and type(value) is not str else value
