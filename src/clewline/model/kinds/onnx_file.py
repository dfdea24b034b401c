"""An ONNX file that somebody brings, served as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray

from clewline.errors import IntegrityError, InvalidInput, NotSupported
from clewline.model import background
from clewline.model.compile.hold import BATCH_SIZES, in_each, same_bits
from clewline.model.compile.result import Compiled, Equality
from clewline.model.kinds import tables
from clewline.model.kinds.kind import Contents, Given
from clewline.model.kinds.onnx_shape import Plan, planned
from clewline.model.package import BACKGROUND
from clewline.model.runtime.onnx import MODEL, open_session
from clewline.model.runtime.onnx_file import CALL, OnnxFilePredictor, OnnxFileRuntime
from clewline.model.runtime.outputs import take_rows
from clewline.signature.check import Checker
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Of operators that ONNX Runtime has without libraries of somebody's."""

ASKED = 200
"""Rows that are answered at several batch sizes."""

CALLS = 60

NO_ROWS = "no table was given: there is no profile, and the background sample is made up"


def contents_of(data: bytes, given: Given, model: Any) -> Contents:
    """
    Make the files of a package.

    Args:
        data: The file.
        given: A signature, rows, both or neither.
        model: The file, parsed.

    Raises:
        InvalidInput: The table or the signature does not fit the file.
        NotSupported: It is no ONNX file that we can serve; says why.
    """
    check(model)
    try:
        session = open_session(data)
    except IntegrityError as error:
        raise NotSupported(
            f"ONNX Runtime cannot load the file: {error.message}",
            "Export it for an operator set that this ONNX Runtime has, with its own operators.",
        ) from error
    plan = planned(model, session, given)
    rows, notes = _rows(plan.signature, given)
    call = _settled(session, plan, _sample(rows, plan.signature))
    files = {MODEL: data, CALL: msgspec.json.encode(call)}
    compiled = Compiled(files, "onnx-file", _equality(model, rows, call.rows_per_call))
    described = tables.described(plan.signature, compiled, rows.train, rows.test)
    if not len(rows.train):
        made_rows = made(plan.signature, np.random.default_rng(0))
        described[BACKGROUND] = tables.json_of(background.rows(plan.signature, made_rows))
    asked = Answering(OnnxFileRuntime().load(files, plan.signature), plan.signature)
    return Contents(files | described, plan.signature, compiled, [*plan.notes, *notes], asked=asked)


def parsed(data: bytes) -> Any | None:
    """Read the file as ONNX; None where it is something else."""
    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # protobuf's errors have no common class
        return None
    return model if model.ir_version and (model.graph.node or model.graph.output) else None


def check(model: Any) -> None:
    """
    Refuse a model that is not all in its file.

    Raises:
        NotSupported: It has data in other files, or operators of somebody's own.
    """
    allowed = DOMAINS | {function.domain for function in model.functions}
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in _nodes(nodes):
            if node.domain not in allowed:
                raise NotSupported(
                    f"The operator {node.op_type} is of the domain {node.domain!r}, which needs a "
                    "library of its own.",
                    "Export the model with the operators of ONNX alone.",
                )
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model)):
        raise NotSupported(
            "The file keeps weights in other files beside it.",
            "Save it as one file: onnx.save(onnx.load(PATH), OTHER, save_as_external_data=False).",
        )


def _nodes(nodes: Any) -> Any:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph.node)


def _tensors(model: Any) -> Any:
    yield from model.graph.initializer
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in _nodes(nodes):
            for attribute in node.attribute:
                yield attribute.t
                yield from attribute.tensors
                for inner in (attribute.g, *attribute.graphs):
                    yield from inner.initializer


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that the model is asked about."""

    train: Columns  # none where no table was given
    test: Columns | None


def _rows(signature: Signature, given: Given) -> tuple[Rows, list[str]]:
    if given.train is None:
        return Rows(_none(signature), None), [NO_ROWS]
    names = [field.name for field in signature.fields]
    checker = Checker(signature)
    train, notes = tables.fitting(checker, tables.chosen(given.train, names))
    seen = checker.table(train).columns
    if given.test is None:
        return Rows(seen, None), notes
    test, more = tables.fitting(checker, tables.chosen(given.test, names))
    return Rows(seen, checker.table(test).columns), [*notes, *more]


def _none(signature: Signature) -> Columns:
    tensors = {f.name: np.zeros((0, *(f.shape or ())), f.dtype) for f in signature.tensors}
    texts = np.empty((0, len(signature.textual)), dtype=object)
    return Columns(np.zeros((0, len(signature.numeric))), texts, tensors)


def _sample(rows: Rows, signature: Signature) -> Columns:
    """Give rows to try: of the tables, or made where there are none."""
    source = rows.train if rows.test is None else rows.test
    if len(source):
        return take_rows(source, slice(0, ASKED))
    return made(signature, np.random.default_rng(0))


def made(signature: Signature, draw: np.random.Generator, count: int = 70) -> Columns:
    """Make rows that a signature allows."""
    numbers = np.empty((count, len(signature.numeric)))
    for place, field in enumerate(signature.numeric):
        whole = field.kind in ("integer", "boolean", "datetime")
        numbers[:, place] = draw.integers(0, 2, count) if whole else draw.normal(size=count)
    texts = np.empty((count, len(signature.textual)), dtype=object)
    for place, field in enumerate(signature.textual):
        texts[:, place] = draw.choice(np.array(field.levels or ("a", "b"), dtype=object), count)
    tensors = {field.name: _tensor(field, draw, count) for field in signature.tensors}
    return Columns(numbers, texts, tensors)


def _tensor(field: Any, draw: np.random.Generator, count: int) -> NDArray[Any]:
    shape = (count, *field.shape)
    if np.dtype(field.dtype).kind == "f":
        return draw.normal(size=shape).astype(field.dtype)
    return draw.integers(0, 2, shape).astype(field.dtype)


def _settled(session: Any, plan: Plan, rows: Columns) -> Any:
    """Give the call under which a row has the same bits whoever shares its batch."""
    call = plan.call
    predictor = OnnxFilePredictor(session, plan.signature, call)
    try:
        predictor.predict(take_rows(rows, slice(0, 1)))
        if call.rows_per_call is None and not same_bits(predictor, rows, CALLS):
            return msgspec.structs.replace(call, rows_per_call=1)
    except InvalidInput as error:
        raise NotSupported(
            f"The model cannot answer rows of its own signature: {error.message}",
            "Pass a training table, or a signature with the shapes and levels that it takes.",
        ) from error
    return call


def _equality(model: Any, rows: Rows, size: int | None) -> Equality:
    asked = len(rows.train if rows.test is None else rows.test) or 70
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    made_by = f"{model.producer_name} {model.producer_version}".strip() or "an unnamed program"
    bits: dict[str, Any] = (
        {"rows_per_call": size}
        if size is not None
        else {"batch_sizes": BATCH_SIZES, "rows_in_batches": in_each(min(asked, ASKED), CALLS)}
    )
    return Equality(
        held=False,
        form="the ONNX file",
        reason=f"it was brought as it is (by {made_by}, operator set {opset})",
        rows=asked if len(rows.train) else 0,
        made_rows=0 if len(rows.train) else 70,
        **bits,
    )


class Answering:
    """A loaded model as an estimator, so that it is evaluated as it will be served."""

    def __init__(self, predictor: OnnxFilePredictor, signature: Signature) -> None:
        self._predictor, self._checker = predictor, Checker(signature)
        self.feature_names_in_ = [field.name for field in signature.fields]
        labels = signature.output.labels
        self.classes_ = None if labels is None else np.array(labels)
        if predictor.tells_probabilities:
            self.predict_proba = self._shares

    def predict(self, table: Any) -> NDArray[Any]:
        """Give the value or the label of each row."""
        found = self._predictor.predict(self._checker.table(table).columns)
        if self.classes_ is None:
            assert found.values is not None
            return found.values
        assert found.choices is not None
        return np.asarray(self.classes_[found.choices])

    def _shares(self, table: Any) -> NDArray[np.float64]:
        found = self._predictor.predict(self._checker.table(table).columns).probabilities
        assert found is not None
        return found
