"""Loading ONNX models: those that clewline compiled, and those that have a `call.json`."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import FieldProblem, IntegrityError, InvalidInput
from clewline.model.compile.candidate_forms import FEATURES, KEY, MODEL, InputEncoding, TextCodes
from clewline.model.families.family import REGISTER_AGAIN, decode_file, require_files
from clewline.model.runtime.outputs import FunctionPredictor, FunctionTransformer, Outputs
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

LARGE = 1 << 20  # bytes
CALL = "call.json"
"""Beside a model that somebody brought: how it is called."""


class OnnxFileInput(msgspec.Struct, frozen=True, omit_defaults=True):
    """One input: a scalar field, several as the columns of a matrix, or a tensor of its own."""

    name: str
    kind: Literal["column", "matrix", "tensor"]
    dtype: str  # of NumPy; "object" for strings
    fields: tuple[str, ...]
    flat: bool = False  # a column of shape (n,), not (n, 1)


class OnnxFileCall(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How fields become inputs, and outputs answers."""

    inputs: tuple[OnnxFileInput, ...]
    label: str | None = None  # the output that holds the label of each row
    probabilities: str | None = None  # (n, labels), or one dictionary for each row
    value: str | None = None
    tensor: str | None = None
    rows_per_call: int | None = None  # 1 if the batch is fixed, or bits depend on its size


def load_onnx(
    files: Mapping[str, bytes], signature: Signature
) -> FunctionPredictor | FunctionTransformer:
    """
    Load a model from the verified bytes of a package.

    Raises:
        IntegrityError: A file is missing, or is not what it should be.
    """
    require_files(files, MODEL)
    session = open_session(files[MODEL])
    stated = session.get_modelmeta().custom_metadata_map.get(KEY)
    if CALL in files:
        call = decode_file(files, CALL, OnnxFileCall)
        return FunctionPredictor(OnnxFileModel(session, signature, call), call.rows_per_call)
    if stated is None:
        raise IntegrityError(
            f"{MODEL} does not state how fields become its inputs, and there is no {CALL}.",
            REGISTER_AGAIN,
        )
    encoding = msgspec.json.decode(stated, type=InputEncoding)
    run, inputs = session.run, InputEncoder(encoding, signature).inputs
    names = [output.name for output in session.get_outputs()]
    if signature.output.task == "transform":
        if names != [FEATURES]:
            raise IntegrityError(f"{MODEL} is no preprocessing.", REGISTER_AGAIN)

        def change(columns: Columns) -> Columns:
            (found,) = run(names, inputs(columns))
            return Columns(found, np.empty((len(found), 0), dtype=object))

        return FunctionTransformer(change, encoding.rows_per_call)

    def answer(columns: Columns) -> Outputs:
        return Outputs(**dict(zip(names, run(names, inputs(columns)), strict=True)))

    return FunctionPredictor(answer, encoding.rows_per_call)


class InputEncoder:
    """Turns checked rows into the inputs of a compiled model. Any thread may call it."""

    def __init__(self, encoding: InputEncoding, signature: Signature) -> None:
        names = [field.name for field in signature.textual]
        self._texts = encoding.codes
        self._columns = [names.index(text.field) for text in encoding.codes]
        self._lookups = [_Codes(text).__getitem__ for text in encoding.codes]
        self._closed = any(text.refused for text in encoding.codes)
        self._numbers = bool(encoding.numbers)

    def inputs(self, columns: Columns) -> dict[str, NDArray[Any]]:
        """
        Give the inputs by name.

        Raises:
            InvalidInput: A level or null that the estimator itself refuses; names each.
        """
        inputs: dict[str, NDArray[Any]] = {}
        if self._numbers:
            inputs["numbers"] = columns.numbers
        if self._lookups:
            texts = columns.texts.T.tolist()
            found: list[int] = []
            for column, lookup in zip(self._columns, self._lookups, strict=True):
                found += map(lookup, texts[column])
            inputs["codes"] = codes = np.array(found, dtype=np.int64)
            if self._closed:
                self._refuse(codes.reshape(len(self._lookups), -1), texts)
        return inputs

    def _refuse(self, codes: NDArray[np.int64], texts: list[list[str | None]]) -> None:
        problems = []
        for row, column, text in zip(codes, self._columns, self._texts, strict=True):
            for place in np.flatnonzero(np.isin(row, text.refused)).tolist():
                known = ", ".join(map(repr, text.levels[:10]))
                more = ", …" if len(text.levels) > 10 else ""
                expected = f"one of {known}{more}: the model's encoder refuses others"
                problems.append(FieldProblem(place, text.field, texts[column][place], expected))
        if problems:
            raise InvalidInput(
                f"{len(problems)} values are none that the model's own encoder takes.",
                'Send known levels, or train with handle_unknown="ignore".',
                tuple(problems),
            )


class _Codes(dict[str | None, int]):
    """Text or None to code; half the time of `get` with a default for each."""

    def __init__(self, text: TextCodes) -> None:
        super().__init__({level: code for code, level in enumerate(text.levels)})
        self[None] = text.null
        self._unseen = text.unseen

    def __missing__(self, text: str | None) -> int:
        return self._unseen


class OnnxFileModel:
    """Answers rows by a model that somebody brought."""

    def __init__(self, session: Any, signature: Signature, call: OnnxFileCall) -> None:
        self._session, self._signature, self._call = session, signature, call
        self._numbers = {field.name: i for i, field in enumerate(signature.numeric)}
        self._texts = {field.name: i for i, field in enumerate(signature.textual)}
        wanted = (call.label, call.probabilities, call.value, call.tensor)
        self._names = [name for name in wanted if name is not None]

    def __call__(self, columns: Columns) -> Outputs:
        """Answer rows; raises `InvalidInput` if the model itself refuses one."""
        feed = {each.name: self._array(each, columns) for each in self._call.inputs}
        try:
            found = self._session.run(self._names, feed)
        except Exception as error:  # onnxruntime's own errors share no public base class
            first = (str(error).strip().splitlines() or [repr(error)])[0]
            raise InvalidInput(
                f"The model refuses a row: {first}", "Send values that it was trained with."
            ) from error
        return self._outputs(dict(zip(self._names, found, strict=True)), len(columns))

    def _array(self, each: OnnxFileInput, columns: Columns) -> NDArray[Any]:
        if each.kind == "tensor":
            return columns.tensors[each.fields[0]].astype(each.dtype, copy=False)
        places = [self._numbers.get(name, self._texts.get(name, 0)) for name in each.fields]
        source = columns.texts if each.dtype == "object" else columns.numbers
        values = source[:, places].astype(each.dtype)
        return values.reshape(-1) if each.flat else values

    def _outputs(self, found: dict[str, Any], rows: int) -> Outputs:
        call, output = self._call, self._signature.output
        if call.tensor is not None:
            tensor = np.asarray(found[call.tensor]).reshape(rows, *(output.shape or ()))
            return Outputs(tensor=tensor)
        if call.value is not None:
            return Outputs(values=np.asarray(found[call.value], np.float64).reshape(rows))
        labels = list(output.labels or ())
        shares = None
        if call.probabilities is not None:
            shares = found[call.probabilities]
            if isinstance(shares, list):  # one dictionary for each row
                shares = [[row[label] for label in labels] for row in shares]
            shares = np.ascontiguousarray(shares, dtype=np.float64).reshape(rows, len(labels))
        if call.label is None:
            assert shares is not None
            return Outputs(choices=shares.argmax(axis=1).astype(np.int64), probabilities=shares)
        places = {label: place for place, label in enumerate(labels)}
        answers = np.asarray(found[call.label]).reshape(-1).tolist()
        choices = np.array([places[label] for label in answers], dtype=np.int64)
        return Outputs(choices=choices, probabilities=shares)


def open_session(model: bytes) -> Any:
    """
    Open a session with one thread and no arena.

    Raises:
        IntegrityError: ONNX Runtime cannot load the model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors share no public base class
        raise IntegrityError(f"{MODEL} cannot be loaded: {error}.", REGISTER_AGAIN) from error
    if len(model) > LARGE:
        # Reading a file of 20 MB leaves 280 MB freed inside the process and held by glibc.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
    return session
