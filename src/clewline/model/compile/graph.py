"""Writing ONNX graphs."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from clewline.model.compile.form import NotLowered
from clewline.model.compile.track import Code, Number, Op, Track
from clewline.model.runtime.encoding import KEY, Encoding, TextCodes
from clewline.model.runtime.sklearn import label_order
from clewline.signature.field import Signature

OPSET, IR_VERSION = 21, 10


class Graph:
    """A graph under construction: each call appends a node and names what it gives."""

    def __init__(self, ml_opset: int, others: dict[str, int] | None = None) -> None:
        self._opsets = {"": OPSET, "ai.onnx.ml": ml_opset} | (others or {})
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: dict[str, onnx.ValueInfoProto] = {}
        self.outputs: list[onnx.ValueInfoProto] = []

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
        """Declare what a node gives as an output, under its own name."""
        maker = next(node for node in reversed(self.nodes) if value in node.output)
        maker.output[list(maker.output).index(value)] = name
        for node in self.nodes:
            node.input[:] = [name if read == value else read for read in node.input]
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def inline(self, model: onnx.ModelProto, feed: dict[str, str]) -> list[str]:
        """Put another model's graph into this one; gives the names of its outputs."""
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

    def model(self, encoding: Encoding) -> bytes:
        """Give the finished model, its encoding stated in the metadata."""
        graph = helper.make_graph(
            self.nodes, "clewline", list(self.inputs.values()), self.outputs, self.initializers
        )
        opsets = [helper.make_opsetid(*entry) for entry in self._opsets.items()]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        helper.set_model_props(model, {KEY: msgspec.json.encode(encoding).decode()})
        found: bytes = model.SerializeToString(deterministic=True)
        return found


def encoding_of(
    tracks: list[Track],
    signature: Signature,
    levels: list[tuple[str, ...]],
    rows_per_call: int | None,
) -> Encoding:
    """State the inputs that some columns need."""
    codes = []
    for field in code_fields(tracks):
        refused = {
            code for t in tracks if isinstance(t, Code) and t.field == field for code in t.refused
        }
        name = signature.textual[field].name
        codes.append(TextCodes(name, levels[field], tuple(sorted(refused))))
    numbers = any(isinstance(track, Number) for track in tracks)
    names = tuple(field.name for field in signature.numeric) if numbers else ()
    return Encoding(names, tuple(codes), rows_per_call)


def code_fields(tracks: list[Track]) -> list[int]:
    """Give the text fields that some columns read, in order: the rows of the input `codes`."""
    return sorted({track.field for track in tracks if isinstance(track, Code)})


def matrix(graph: Graph, tracks: list[Track], signature: Signature, codes: dict[int, str]) -> str:
    """Compute columns from the inputs and the split codes: float64 of shape (n, columns)."""
    pieces = []
    for _, run in groupby(tracks, _kind):
        columns = list(run)
        if isinstance(columns[0], Code):
            pieces.append(_table(graph, [c for c in columns if isinstance(c, Code)], codes))
        else:
            numbers = [column for column in columns if isinstance(column, Number)]
            pieces.append(_numbers(graph, numbers, len(signature.numeric)))
    return graph.add("Concat", *pieces, axis=1) if len(pieces) > 1 else pieces[0]


def emit_answers(
    graph: Graph,
    signature: Signature,
    classes: Any = (),
    *,
    values: str | None = None,
    choices: str | None = None,
    shares: str | None = None,
) -> None:
    """Declare the outputs, a classifier's in the order of the signature's labels."""
    if values is not None:
        flat = graph.add("Reshape", values, graph.constant(np.array([-1])))
        graph.output("values", flat, TensorProto.DOUBLE, [None])
        return
    order = label_order(classes, signature.output)
    if order != list(range(len(order))):
        places = graph.constant(np.argsort(order))
        choices = choices and graph.add("Gather", places, choices, axis=0)
        shares = shares and graph.add("Gather", shares, graph.constant(np.array(order)), axis=1)
    if choices is not None:
        graph.output("choices", choices, TensorProto.INT64, [None])
    if shares is not None:
        graph.output("probabilities", shares, TensorProto.DOUBLE, [None, len(order)])


def _kind(track: Track) -> Any:
    """Columns of the same kind that stand together are computed together."""
    if isinstance(track, Code):
        return ("code", track.field)
    if isinstance(track, Number):
        return tuple(op.kind if op.kind != "lookup" else op for op in track.ops)
    raise NotLowered(track.reason)


def split_codes(graph: Graph, fields: list[int]) -> dict[int, str]:
    """Cut the codes, which come field after field, into one vector a field."""
    if not fields:
        return {}
    codes = graph.input("codes", TensorProto.INT64, [None])
    if len(fields) == 1:
        return {fields[0]: codes}
    names = [f"row{index}" for index in range(len(fields))]
    graph.nodes.append(helper.make_node("Split", [codes], names, axis=0, num_outputs=len(fields)))
    return dict(zip(fields, names, strict=True))


def _table(graph: Graph, columns: list[Code], codes: dict[int, str]) -> str:
    if not all(column.encoded for column in columns):
        raise NotLowered("a text reaches the estimator without an encoder")
    table = np.column_stack([column.values for column in columns])
    return graph.add("Gather", graph.constant(table), codes[columns[0].field], axis=0)


def _numbers(graph: Graph, columns: list[Number], width: int) -> str:
    value = graph.input("numbers", TensorProto.DOUBLE, [None, width])
    fields = [column.field for column in columns]
    if fields != list(range(width)):
        value = graph.add("Gather", value, graph.constant(np.array(fields)), axis=1)
    for position in range(len(columns[0].ops)):
        value = _emit(graph, value, [column.ops[position] for column in columns])
    return value


def _emit(graph: Graph, x: str, ops: list[Op]) -> str:
    kind = ops[0].kind
    match kind:
        case "sub" | "add" | "mul" | "div":
            values = np.array([[op.value for op in ops]], dtype=np.float64)
            return graph.add(kind.capitalize(), x, graph.constant(values))
        case "fill":
            values = np.array([[op.value for op in ops]], dtype=np.float64)
            return graph.add("Where", graph.add("IsNaN", x), graph.constant(values), x)
        case "clip":
            return _emit_clip(graph, x, ops)
        case "float32":
            return _float64(graph, graph.add("Cast", x, to=TensorProto.FLOAT))
        case "isnan":
            return _float64(graph, graph.add("IsNaN", x))
        case "unzero":
            null, zero = graph.constant(np.array(np.nan)), graph.constant(np.array(0.0))
            return graph.add("Where", graph.add("Equal", x, zero), null, x)
        case "lookup":
            return _emit_lookup(graph, x, ops[0].value)


def _float64(graph: Graph, x: str) -> str:
    return graph.add("Cast", x, to=TensorProto.DOUBLE)


def _emit_clip(graph: Graph, x: str, ops: list[Op]) -> str:
    limits = np.array([op.value for op in ops], dtype=np.float64)
    raised = graph.add("Max", x, graph.constant(limits[None, :, 0]))
    return graph.add("Min", raised, graph.constant(limits[None, :, 1]))


def _emit_lookup(graph: Graph, x: str, table: Any) -> str:
    null, unseen = (graph.constant(np.array(value)) for value in (table.null, table.unseen))
    out = graph.add("Where", graph.add("IsNaN", x), null, unseen)
    for key, value in zip(table.keys, table.values, strict=True):
        same = graph.add("Equal", x, graph.constant(np.array(key)))
        out = graph.add("Where", same, graph.constant(np.array(value)), out)
    return out
