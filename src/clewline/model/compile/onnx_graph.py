"""Writing ONNX graphs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from clewline.model.compile.candidate_forms import KEY, InputEncoding, NotConvertible, TextCodes
from clewline.model.compile.lowered_columns import CodeColumn, ColumnOp, LoweredColumn, NumberColumn
from clewline.model.runtime.outputs import label_order
from clewline.signature.field import Signature

OPSET, IR_VERSION = 21, 10


class OnnxGraph:
    """
    A graph under construction: each call appends a node and names its output.

    Args:
        signature: Of the model; its fields are the inputs.
        columns: All columns that the model computes; they say which codes it needs.
        ml_opset: Version of the operators of `ai.onnx.ml`.
        opsets: Versions of other domains' operators.
    """

    def __init__(
        self,
        signature: Signature,
        columns: Sequence[LoweredColumn],
        ml_opset: int,
        opsets: dict[str, int] | None = None,
    ) -> None:
        self._signature = signature
        self._opsets = {"": OPSET, "ai.onnx.ml": ml_opset} | (opsets or {})
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: dict[str, onnx.ValueInfoProto] = {}
        self.outputs: list[onnx.ValueInfoProto] = []
        self._codes: dict[int, str] = {}  # text field → its codes
        if fields := _code_fields(columns):  # codes come field after field, in one vector
            codes = self.input("codes", TensorProto.INT64, [None])
            names = [codes] if len(fields) == 1 else [f"row{i}" for i in range(len(fields))]
            self._codes = dict(zip(fields, names, strict=True))
            if len(fields) > 1:
                node = helper.make_node("Split", [codes], names, axis=0, num_outputs=len(fields))
                self.nodes.append(node)

    def add(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Append a node of one output."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], domain=domain, **attributes))
        return name

    def constant(self, value: NDArray[Any]) -> str:
        """Add a constant."""
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def input(self, name: str, kind: int, shape: list[int | None]) -> str:
        """Declare an input, once."""
        self.inputs.setdefault(name, helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, value: str, kind: int, shape: list[int | None]) -> None:
        """Declare the output of a node as an output of the graph, under a new name."""
        maker = next(node for node in reversed(self.nodes) if value in node.output)
        maker.output[list(maker.output).index(value)] = name
        for node in self.nodes:
            node.input[:] = [name if read == value else read for read in node.input]
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def inline(self, model: onnx.ModelProto, feed: dict[str, str]) -> list[str]:
        """Put another model's graph into this one; return the names of its outputs."""
        inner = onnx.compose.add_prefix(model, f"m{len(self.nodes)}_").graph
        plain = [value.name for value in model.graph.input]
        names = {i.name: feed[p] for i, p in zip(inner.input, plain, strict=True)}
        for node in inner.node:
            renamed = [names.get(name, name) for name in node.input]
            del node.input[:]
            node.input.extend(renamed)
        self.nodes += inner.node
        self.initializers += inner.initializer
        return [value.name for value in inner.output]

    def model(self, encoding: InputEncoding, metadata: dict[str, str] | None = None) -> bytes:
        """Return the finished model; its metadata states the encoding, and what else is given."""
        graph = helper.make_graph(
            self.nodes, "clewline", list(self.inputs.values()), self.outputs, self.initializers
        )
        opsets = [helper.make_opsetid(*entry) for entry in self._opsets.items()]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        stated = {KEY: msgspec.json.encode(encoding).decode(), **(metadata or {})}
        helper.set_model_props(model, stated)
        found: bytes = model.SerializeToString(deterministic=True)
        return found

    def matrix(self, columns: list[LoweredColumn]) -> str:
        """Compute columns from the inputs: float64 of shape (n, columns)."""
        pieces = []
        for _, run in groupby(columns, _kind):
            group: list[Any] = list(run)
            fields = [column.field for column in group]
            if isinstance(group[0], CodeColumn):
                if not all(column.encoded for column in group):
                    raise NotConvertible("a string reaches the estimator without an encoder")
                table = np.column_stack([column.values for column in group])
                pieces.append(
                    self.add("Gather", self.constant(table), self._codes[fields[0]], axis=0)
                )
                continue
            width = len(self._signature.numeric)
            value = self.input("numbers", TensorProto.DOUBLE, [None, width])
            if fields != list(range(width)):
                value = self.add("Gather", value, self.constant(np.array(fields)), axis=1)
            for ops in zip(*(column.ops for column in group), strict=True):
                value = self._apply(value, ops)
            pieces.append(value)
        return self.add("Concat", *pieces, axis=1) if len(pieces) > 1 else pieces[0]

    def lane_wise(self, op: str, value: str, width: int = 1) -> str:
        """
        Apply a function to numbers, shape (n, width), so that a row gives the same bits always.

        ONNX Runtime computes whole vectors by another formula than the rest of the
        array, so each number is repeated until it fills vectors of any width.
        """
        if width > 1:
            value = self.add("Reshape", value, self.constant(np.array([-1, 1])))
        lanes = self.add("Expand", value, self.constant(np.array([1, 8])))
        start, end = (self.constant(np.array([column])) for column in (0, 1))
        axis = self.constant(np.array([1]))
        found = self.add("Slice", self.add(op, lanes), start, end, axis)
        if width > 1:
            found = self.add("Reshape", found, self.constant(np.array([-1, width])))
        return found

    def cast(self, value: str, kind: int = TensorProto.DOUBLE) -> str:
        """Cast to an element type."""
        return self.add("Cast", value, to=kind)

    def answer(
        self,
        classes: Any = (),
        *,
        values: str | None = None,
        choices: str | None = None,
        probabilities: str | None = None,
    ) -> None:
        """Declare the outputs, a classifier's in the order of the signature's labels."""
        if values is not None:
            flat = self.add("Reshape", values, self.constant(np.array([-1])))
            self.output("values", flat, TensorProto.DOUBLE, [None])
            return
        order = label_order(classes, self._signature.output)
        if order != list(range(len(order))):
            places, columns = self.constant(np.argsort(order)), self.constant(np.array(order))
            choices = choices and self.add("Gather", places, choices, axis=0)
            probabilities = probabilities and self.add("Gather", probabilities, columns, axis=1)
        if choices is not None:
            self.output("choices", choices, TensorProto.INT64, [None])
        if probabilities is not None:
            self.output("probabilities", probabilities, TensorProto.DOUBLE, [None, len(order)])

    def _apply(self, x: str, ops: Sequence[ColumnOp]) -> str:
        """Apply one operation to each column of a matrix, all of the same kind."""
        kind = ops[0].kind
        match kind:
            case "sub" | "add" | "mul" | "div":
                return self.add(kind.capitalize(), x, self._row([op.value for op in ops]))
            case "fill":
                return self.add("Where", self.add("IsNaN", x), self._row([o.value for o in ops]), x)
            case "clip":
                low, high = zip(*(op.value for op in ops), strict=True)
                return self.add("Min", self.add("Max", x, self._row(low)), self._row(high))
            case "float32":
                return self.cast(self.cast(x, TensorProto.FLOAT))
            case "isnan":
                return self.cast(self.add("IsNaN", x))
            case "unzero":
                is_zero = self.add("Equal", x, self._number(0.0))
                return self.add("Where", is_zero, self._number(np.nan), x)
            case "lookup":
                table: Any = ops[0].value
                null, unseen = self._number(table.null), self._number(table.unseen)
                out = self.add("Where", self.add("IsNaN", x), null, unseen)
                for key, value in zip(table.keys, table.values, strict=True):
                    same = self.add("Equal", x, self._number(key))
                    out = self.add("Where", same, self._number(value), out)
                return out

    def _row(self, values: Sequence[Any]) -> str:
        return self.constant(np.array([values], dtype=np.float64))

    def _number(self, value: float) -> str:
        return self.constant(np.array(value))


def encoding_of(
    columns: list[LoweredColumn],
    signature: Signature,
    levels: list[tuple[str, ...]],
    rows_per_call: int | None,
) -> InputEncoding:
    """Return the inputs that some columns need."""
    refused: dict[int, set[int]] = {field: set() for field in _code_fields(columns)}
    for column in columns:
        if isinstance(column, CodeColumn):
            refused[column.field] |= column.refused
    codes = tuple(
        TextCodes(signature.textual[field].name, levels[field], tuple(sorted(found)))
        for field, found in refused.items()
    )
    numbers = any(isinstance(column, NumberColumn) for column in columns)
    names = tuple(field.name for field in signature.numeric) if numbers else ()
    return InputEncoding(names, codes, rows_per_call)


def _code_fields(columns: Sequence[LoweredColumn]) -> list[int]:
    """Return the text fields that some columns read, in the order of the input `codes`."""
    return sorted({column.field for column in columns if isinstance(column, CodeColumn)})


def _kind(column: LoweredColumn) -> Any:
    """Return what adjacent columns must share to be computed together."""
    if isinstance(column, CodeColumn):
        return ("code", column.field)
    if isinstance(column, NumberColumn):
        return tuple(op.kind if op.kind != "lookup" else op for op in column.ops)
    raise NotConvertible(column.reason)
