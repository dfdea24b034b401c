"""What an ONNX file takes and gives: its inputs as fields, its outputs as one answer a row."""

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

DTYPES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "string": "object",
    "bool": "bool",
    **{name: name for name in ("int8", "int16", "int32", "int64")},
    **{name: name for name in ("uint8", "uint16", "uint32", "uint64")},
}
"""Element types as ONNX Runtime writes them → NumPy's."""


@dataclass(frozen=True, slots=True)
class DeclaredTensor:
    """One input or output as the file declares it."""

    name: str
    dtype: str | None  # of NumPy; None for what is no tensor
    shape: tuple[Any, ...]  # numbers where they are fixed


def read_signature(
    model: Any, session: Any, given: RegistrationInputs
) -> tuple[Signature, OnnxFileCall]:
    """
    Read inputs and outputs: the signature of a file, and how it is called.

    Args:
        model: The file, parsed.
        session: The file, loaded.
        given: A table gives names, levels and bounds of scalar fields; a signature all.

    Raises:
        InvalidInput: The table or the signature does not fit the inputs.
        NotSupported: An input or output is none that a request can say; says which.
    """
    slots = [_slot(value) for value in session.get_inputs()]
    inputs, fields = _inputs(slots, given)
    size = _rows_per_call(slots)
    output, parts = _answer(model, [_slot(value) for value in session.get_outputs()], given)
    signature = Signature(fields=tuple(fields), output=output)
    return signature, OnnxFileCall(inputs=tuple(inputs), rows_per_call=size, **parts)


def _slot(value: Any) -> DeclaredTensor:
    inner = value.type.removeprefix("tensor(").removesuffix(")")
    dtype = DTYPES.get(inner) if value.type.startswith("tensor(") else None
    return DeclaredTensor(value.name, dtype, tuple(value.shape or ()))


def _rows_per_call(slots: list[DeclaredTensor]) -> int | None:
    """Give 1 where the file fixes its batch to that; more than 1 row a call cannot be cut."""
    fixed = {slot.shape[0] for slot in slots if slot.shape and isinstance(slot.shape[0], int)}
    if strange := sorted(fixed - {1}):
        raise NotSupported(
            f"The file answers {strange[0]} rows at once and no other number.",
            "Export it with a dynamic first axis, or with 1 row.",
        )
    return 1 if fixed else None


# ── inputs ──────────────────────────────────────────────────────────────────


def _inputs(
    slots: list[DeclaredTensor], given: RegistrationInputs
) -> tuple[list[OnnxFileInput], list[Field]]:
    known = _known_fields(slots, given)
    inputs, fields = [], []
    for slot in slots:
        made, used = _input(slot, known, alone=len(slots) == 1)
        inputs.append(made)
        fields += used
    return inputs, fields


def _known_fields(slots: list[DeclaredTensor], given: RegistrationInputs) -> dict[str, Field]:
    """Give the fields that a signature or a table tells of."""
    if given.signature is not None:
        return {found.name: found for found in given.signature.fields}
    if given.train is None:
        return {}
    columns = [name for name in dataframes.open_table(given.train).columns if name != given.target]
    return {found.name: found for found in packaging.fields_of(given.train, columns)}


def _input(
    slot: DeclaredTensor, known: dict[str, Field], *, alone: bool
) -> tuple[OnnxFileInput, list[Field]]:
    if slot.dtype is None or not slot.shape:
        raise NotSupported(
            f"The input {slot.name!r} is no tensor with a row axis.",
            "Export the model with one row of each input per row of the batch.",
        )
    inner = slot.shape[1:]
    if slot.name in known and known[slot.name].kind == "tensor":
        return _tensor(slot, known[slot.name])
    if inner in ((), (1,)) and (slot.name in known or not (alone and known)):
        return _column(slot, known)
    if alone and known and len(inner) == 1:
        return _matrix(slot, known)
    if slot.dtype == "object":
        raise NotSupported(
            f"The input {slot.name!r} takes texts of shape {inner} a row.",
            "Export it with one input of shape (n, 1) for each text.",
        )
    return _tensor(slot, None)


def _column(slot: DeclaredTensor, known: dict[str, Field]) -> tuple[OnnxFileInput, list[Field]]:
    assert slot.dtype is not None
    stated = known.get(slot.name)
    if known and stated is None:
        raise InvalidInput(
            f"The file has an input {slot.name!r}, and there is no such column or field "
            f"among {', '.join(known)}.",
            "Name the columns as the inputs are named.",
        )
    found = stated or Field(name=slot.name, kind=_kind(slot.dtype))
    _must_fit(found, slot.dtype)
    flat = len(slot.shape) == 1
    return OnnxFileInput(slot.name, "column", slot.dtype, (found.name,), flat), [found]


def _kind(dtype: str) -> Kind:
    if dtype == "object":
        return "text"
    return {"f": "number", "b": "boolean"}.get(np.dtype(dtype).kind, "integer")  # type: ignore[return-value]


def _must_fit(found: Field, dtype: str) -> None:
    is_text = found.kind in ("category", "text")
    whole = dtype != "object" and np.dtype(dtype).kind in "iu"
    if is_text != (dtype == "object") or (whole and found.kind == "number"):
        raise InvalidInput(
            f"{found.name!r} is a {found.kind}, and the file takes {_called(dtype)} there.",
            "Cast the column, or state the field in a signature.",
        )
    if found.nullable and (dtype == "object" or np.dtype(dtype).kind != "f"):
        raise InvalidInput(
            f"{found.name!r} has nulls, which the file's {_called(dtype)} cannot say.",
            "Fill them, in the table and in the requests.",
        )


def _called(dtype: str) -> str:
    return "texts" if dtype == "object" else dtype


def _matrix(slot: DeclaredTensor, known: dict[str, Field]) -> tuple[OnnxFileInput, list[Field]]:
    """The one input of the file takes every field, as columns of a matrix."""
    assert slot.dtype is not None
    fields, width = list(known.values()), slot.shape[1]
    if isinstance(width, int) and width != len(fields):
        raise InvalidInput(
            f"The input {slot.name!r} has {width} columns, and there are {len(fields)} fields: "
            f"{', '.join(known)}.",
            "Pass a table with the columns that the model takes, in its order, and the target.",
        )
    for found in fields:
        _must_fit(found, slot.dtype)
    return OnnxFileInput(slot.name, "matrix", slot.dtype, tuple(known)), fields


def _tensor(slot: DeclaredTensor, stated: Field | None) -> tuple[OnnxFileInput, list[Field]]:
    assert slot.dtype is not None
    inner = slot.shape[1:]
    shape = tuple(inner) if stated is None else tuple(stated.shape or ())
    fits = len(shape) == len(inner) and all(
        not isinstance(size, int) or size == wanted
        for size, wanted in zip(inner, shape, strict=False)
    )
    if not fits:
        raise InvalidInput(f"The input {slot.name!r} is of shape {inner}, not {shape}, a row.")
    if any(not isinstance(size, int) for size in shape):
        raise NotSupported(
            f"The input {slot.name!r} leaves open its shape {inner} a row.",
            "State it: --signature FILE with the field's shape, or a table with arrays.",
        )
    found = stated or Field(name=slot.name, kind="tensor", dtype=slot.dtype, shape=shape)
    return OnnxFileInput(slot.name, "tensor", slot.dtype, (found.name,)), [found]


# ── outputs ─────────────────────────────────────────────────────────────────


def _answer(
    model: Any, slots: list[DeclaredTensor], given: RegistrationInputs
) -> tuple[Output, dict[str, Any]]:
    """Tell labels with probabilities, values, and tensors of any shape apart."""
    stated = None if given.signature is None else given.signature.output
    name = given.target or (stated.name if stated else None)
    label = next((slot for slot in slots if _is_label(slot)), None)
    shares = next((slot for slot in slots if slot is not label and _is_shares(slot)), None)
    labels = _labels(model, stated, given, label, shares)
    if labels is not None and (label is not None or shares is not None):
        output = Output(
            name=name or (label or shares).name,  # type: ignore[union-attr]
            task="binary" if len(labels) == 2 else "multiclass",
            labels=labels,
            has_probabilities=shares is not None,
        )
        return output, {
            "label": label and label.name,
            "probabilities": shares and shares.name,
        }
    slot = _one(slots, name)
    if slot.dtype is None or slot.dtype == "object":
        raise NotSupported(f"The output {slot.name!r} is no tensor of numbers.")
    if slot.shape[1:] in ((), (1,)) and np.dtype(slot.dtype).kind == "f":
        return Output(name=name or slot.name, task="regression"), {"value": slot.name}
    return _tensor_output(slot, stated, name)


def _is_label(slot: DeclaredTensor) -> bool:
    return slot.dtype in ("int64", "object") and slot.shape[1:] in ((), (1,))


def _is_shares(slot: DeclaredTensor) -> bool:
    matrix = slot.dtype in ("float32", "float64") and len(slot.shape) == 2
    return slot.dtype is None or (matrix and slot.shape[1] != 1)


def _labels(
    model: Any,
    stated: Output | None,
    given: RegistrationInputs,
    label: DeclaredTensor | None,
    shares: DeclaredTensor | None,
) -> tuple[Any, ...] | None:
    """Give the labels in the order of the probabilities; None where the file is no classifier."""
    if stated is not None:
        return stated.labels
    if label is None or shares is None:
        return None
    if told := _told_labels(model):
        return told
    if given.target is None or given.train is None:
        raise NotSupported(
            f"The file answers labels ({label.name!r}) and does not say which there are.",
            "Pass the training table and target=, or a signature with the labels.",
        )
    return tuple(
        sorted({v for v in dataframes.column_values(given.train, given.target) if v is not None})
    )


def _told_labels(model: Any) -> tuple[Any, ...] | None:
    """Give the labels that the last classifier or dictionary of the graph knows."""
    for node in reversed(model.graph.node):
        if node.domain != "ai.onnx.ml":
            continue
        for attribute in node.attribute:
            if (
                attribute.name in ("classlabels_strings", "classlabels_string")
                and attribute.strings
            ):
                return tuple(text.decode() for text in attribute.strings)
            if attribute.name in ("classlabels_int64s", "classlabels_ints") and attribute.ints:
                return tuple(attribute.ints)
    return None


def _one(slots: list[DeclaredTensor], name: str | None) -> DeclaredTensor:
    named = [slot for slot in slots if slot.name == name]
    if named or len(slots) == 1:
        return (named or slots)[0]
    raise NotSupported(
        f"The file has {len(slots)} outputs ({', '.join(slot.name for slot in slots)}), which are "
        "not a label with its probabilities.",
        "Name the one to answer with: the output's name in a signature, or target=.",
    )


def _tensor_output(
    slot: DeclaredTensor, stated: Output | None, name: str | None
) -> tuple[Output, dict[str, Any]]:
    shape = slot.shape[1:] if stated is None or stated.shape is None else stated.shape
    if any(not isinstance(size, int) for size in shape):
        raise NotSupported(
            f"The output {slot.name!r} leaves open its shape {shape} a row.",
            "State it in a signature: the output's task, dtype and shape.",
        )
    output = Output(
        name=name or slot.name, task="tensor", dtype=slot.dtype, shape=tuple(map(int, shape))
    )
    return output, {"tensor": slot.name}
