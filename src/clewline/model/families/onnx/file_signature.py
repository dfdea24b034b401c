"""The signature of an ONNX file: its inputs as fields, its outputs as one answer for each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from clewline.errors import InvalidInput, NotSupported
from clewline.model.families import packaging
from clewline.model.families.family import RegistrationInputs
from clewline.model.families.onnx.loading import OnnxFileCall, OnnxFileInput
from clewline.signature import dataframes
from clewline.signature.field import Field, Kind, Output, Signature

INTS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
DTYPES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "string": "object",
    "bool": "bool",
    **{name: name for name in INTS},
}
"""Element types as ONNX Runtime writes them → NumPy's."""


@dataclass(frozen=True, slots=True)
class DeclaredTensor:
    """One input or output as the file declares it."""

    name: str
    dtype: str | None  # of NumPy; None if it is no tensor
    shape: tuple[Any, ...]  # numbers where they are fixed

    @property
    def inner(self) -> tuple[Any, ...]:
        """The shape of one row."""
        return self.shape[1:]

    @property
    def is_scalar(self) -> bool:
        """Whether each row has one element."""
        return self.inner in ((), (1,))

    @property
    def kind(self) -> str:
        """NumPy's kind of the elements: "f", "i", "u", "b", "O" for strings; "" for no tensor."""
        return np.dtype(self.dtype).kind if self.dtype else ""

    @property
    def is_label(self) -> bool:
        """Whether it may hold the label of each row."""
        return self.dtype in ("int64", "object") and self.is_scalar

    @property
    def is_probabilities(self) -> bool:
        """Whether it may hold probabilities: a matrix, or one dictionary for each row."""
        is_matrix = self.dtype in ("float32", "float64") and len(self.shape) == 2
        return self.dtype is None or (is_matrix and self.shape[1] != 1)


def read_signature(
    model: Any, session: Any, given: RegistrationInputs
) -> tuple[Signature, OnnxFileCall]:
    """
    Read inputs and outputs: the signature of a file, and how it is called.

    Args:
        model: The file, parsed.
        session: The file, loaded.
        given: A table gives names, levels and bounds of scalar fields; a signature gives all.

    Raises:
        InvalidInput: The table or the signature does not fit the inputs.
        NotSupported: An input or output cannot be part of a request or an answer; says which.
    """
    tensors = [_declared(value) for value in session.get_inputs()]
    described: tuple[Field, ...] = ()
    if given.signature is not None:
        described = given.signature.fields
    elif given.train is not None:
        columns = dataframes.open_table(given.train).columns
        described = packaging.fields_of(given.train, [c for c in columns if c != given.target])
    known = {field.name: field for field in described}
    pairs = [_input(tensor, known, alone=len(tensors) == 1) for tensor in tensors]
    fixed = {each.shape[0] for each in tensors if each.shape and isinstance(each.shape[0], int)}
    if sizes := sorted(fixed - {1}):
        raise NotSupported(
            f"The file answers {sizes[0]} rows at once and no other number.",
            "Export it with a dynamic first axis, or with 1 row.",
        )
    outputs = [_declared(value) for value in session.get_outputs()]
    output, parts = _answer(model, outputs, given)
    fields = tuple(field for _, fields in pairs for field in fields)
    inputs = tuple(each for each, _ in pairs)
    call = OnnxFileCall(inputs=inputs, rows_per_call=1 if fixed else None, **parts)
    return Signature(fields=fields, output=output), call


def _declared(value: Any) -> DeclaredTensor:
    inner = value.type.removeprefix("tensor(").removesuffix(")")
    dtype = DTYPES.get(inner) if value.type.startswith("tensor(") else None
    return DeclaredTensor(value.name, dtype, tuple(value.shape or ()))


# ── inputs ──────────────────────────────────────────────────────────────────


def _input(
    tensor: DeclaredTensor, known: dict[str, Field], *, alone: bool
) -> tuple[OnnxFileInput, list[Field]]:
    """Return how an input is filled, and the fields that fill it."""
    name, dtype = tensor.name, tensor.dtype
    if dtype is None or not tensor.shape:
        raise NotSupported(
            f"The input {name!r} is no tensor with a row axis.",
            "Export the model with one row of each input per row of the batch.",
        )
    stated = known.get(name)
    if stated is not None and stated.kind == "tensor":
        return _tensor_input(tensor, dtype, stated)
    if tensor.is_scalar and (stated is not None or not (alone and known)):
        if known and stated is None:
            raise InvalidInput(
                f"The file has an input {name!r}, but there is no such column or field "
                f"among {', '.join(known)}.",
                "Name the columns as the inputs are named.",
            )
        kinds: dict[str, Kind] = {"O": "text", "f": "number", "b": "boolean"}
        field = stated or Field(name=name, kind=kinds.get(tensor.kind, "integer"))
        _require_fit(field, tensor)
        flat = len(tensor.shape) == 1
        return OnnxFileInput(name, "column", dtype, (field.name,), flat), [field]
    if alone and known and len(tensor.inner) == 1:
        fields, width = list(known.values()), tensor.shape[1]
        if isinstance(width, int) and width != len(fields):
            raise InvalidInput(
                f"The input {name!r} has {width} columns, but there are {len(fields)} fields: "
                f"{', '.join(known)}.",
                "Pass a table with the columns that the model takes, in its order, and the target.",
            )
        for field in fields:
            _require_fit(field, tensor)
        return OnnxFileInput(name, "matrix", dtype, tuple(known)), fields
    if dtype == "object":
        raise NotSupported(
            f"The input {name!r} takes strings of shape {tensor.inner} for each row.",
            "Export it with one input of shape (n, 1) for each string.",
        )
    return _tensor_input(tensor, dtype, None)


def _require_fit(field: Field, tensor: DeclaredTensor) -> None:
    is_text = field.kind in ("category", "text")
    takes = "strings" if tensor.kind == "O" else tensor.dtype
    if is_text != (tensor.kind == "O") or (tensor.kind in "iu" and field.kind == "number"):
        raise InvalidInput(
            f"{field.name!r} is a {field.kind}, but the file takes {takes} there.",
            "Cast the column, or state the field in a signature.",
        )
    if field.nullable and tensor.kind != "f":
        raise InvalidInput(
            f"{field.name!r} has nulls, which {takes} cannot hold.",
            "Fill them, in the table and in the requests.",
        )


def _tensor_input(
    tensor: DeclaredTensor, dtype: str, stated: Field | None
) -> tuple[OnnxFileInput, list[Field]]:
    name, inner = tensor.name, tensor.inner
    shape = inner if stated is None else tuple(stated.shape or ())
    fits = len(shape) == len(inner) and all(
        not isinstance(size, int) or size == wanted
        for size, wanted in zip(inner, shape, strict=False)
    )
    if not fits:
        raise InvalidInput(f"A row of the input {name!r} has the shape {inner}, not {shape}.")
    if any(not isinstance(size, int) for size in shape):
        raise NotSupported(
            f"The input {name!r} does not fix the shape {inner} of a row.",
            "State it: --signature FILE with the field's shape, or a table with arrays.",
        )
    field = stated or Field(name=name, kind="tensor", dtype=dtype, shape=shape)
    return OnnxFileInput(name, "tensor", dtype, (field.name,)), [field]


# ── outputs ─────────────────────────────────────────────────────────────────


def _answer(
    model: Any, tensors: list[DeclaredTensor], given: RegistrationInputs
) -> tuple[Output, dict[str, Any]]:
    """Return the output of the signature, and the outputs of the file that it is read from."""
    stated = None if given.signature is None else given.signature.output
    name = given.target or (stated.name if stated else None)
    label = next((each for each in tensors if each.is_label), None)
    shares = next((each for each in tensors if each is not label and each.is_probabilities), None)
    labels = stated.labels if stated else _labels(model, given, label, shares)
    chosen = label or shares
    if labels is not None and chosen is not None:
        output = Output(
            name=name or chosen.name,
            task="binary" if len(labels) == 2 else "multiclass",
            labels=labels,
            has_probabilities=shares is not None,
        )
        return output, {"label": label and label.name, "probabilities": shares and shares.name}
    named = [each for each in tensors if each.name == name]
    if not named and len(tensors) > 1:
        raise NotSupported(
            f"The file has {len(tensors)} outputs ({', '.join(each.name for each in tensors)}), "
            "which are not a label with its probabilities.",
            "Name the one to answer with: the output's name in a signature, or target=.",
        )
    tensor = (named or tensors)[0]
    if tensor.dtype is None or tensor.dtype == "object":
        raise NotSupported(f"The output {tensor.name!r} is no tensor of numbers.")
    if tensor.is_scalar and tensor.kind == "f":
        return Output(name=name or tensor.name, task="regression"), {"value": tensor.name}
    shape = tensor.inner if stated is None or stated.shape is None else stated.shape
    if any(not isinstance(size, int) for size in shape):
        raise NotSupported(
            f"The output {tensor.name!r} does not fix the shape {shape} of a row.",
            "State it in a signature: the output's task, dtype and shape.",
        )
    output = Output(name=name or tensor.name, task="tensor", dtype=tensor.dtype, shape=shape)
    return output, {"tensor": tensor.name}


def _labels(
    model: Any,
    given: RegistrationInputs,
    label: DeclaredTensor | None,
    shares: DeclaredTensor | None,
) -> tuple[Any, ...] | None:
    """Return the labels in the order of the probabilities; None if the file is no classifier."""
    if label is None or shares is None:
        return None
    for node in reversed(model.graph.node):  # the last classifier or dictionary states them
        for each in node.attribute if node.domain == "ai.onnx.ml" else ():
            if each.name in ("classlabels_strings", "classlabels_string") and each.strings:
                return tuple(text.decode() for text in each.strings)
            if each.name in ("classlabels_int64s", "classlabels_ints") and each.ints:
                return tuple(each.ints)
    if given.target is None or given.train is None:
        raise NotSupported(
            f"The file answers labels ({label.name!r}), but does not list them.",
            "Pass the training table and the target, or a signature with the labels.",
        )
    values = dataframes.column_values(given.train, given.target)
    return tuple(sorted({value for value in values if value is not None}))
