"""Compiled models, executed by ONNX Runtime."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import msgspec

from clewline.errors import IntegrityError
from clewline.model.runtime.encoding import KEY, Encoder, Encoding
from clewline.model.runtime.outputs import Outputs, join_outputs, take_rows
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

MODEL = "model.onnx"
LARGE = 1 << 20  # bytes


class OnnxRuntime:
    """Loads `model.onnx`: one thread, no arena, so that thousands of models share a machine."""

    name = "onnx"

    def load(self, files: Mapping[str, bytes], signature: Signature) -> OnnxPredictor:
        """
        Load a compiled model.

        Raises:
            IntegrityError: The file is missing, or is not a model that we compiled.
        """
        if MODEL not in files:
            raise IntegrityError(f"The package has no {MODEL}.", "Register the model again.")
        session = open_session(files[MODEL])
        stated = session.get_modelmeta().custom_metadata_map.get(KEY)
        if stated is None:
            raise IntegrityError(
                f"{MODEL} does not state how fields become its inputs.", "Register the model again."
            )
        return OnnxPredictor(session, msgspec.json.decode(stated, type=Encoding), signature)


class OnnxPredictor:
    """A compiled model behind the contract of `Predictor`; takes several calls at once."""

    def __init__(self, session: Any, encoding: Encoding, signature: Signature) -> None:
        self._run = session.run
        self._names = [output.name for output in session.get_outputs()]
        self._outputs = tuple(self._names)
        self._size = encoding.rows_per_call
        self._encoder = Encoder(encoding, signature)

    def predict(self, columns: Columns) -> Outputs:
        """
        Answer rows.

        Raises:
            InvalidInput: A level that the model's own encoder was told to refuse.
        """
        if self._size is None or len(columns) <= self._size:
            return self._answer(columns)
        starts = range(0, len(columns), self._size)
        return join_outputs(
            [self._answer(take_rows(columns, slice(i, i + self._size))) for i in starts]
        )

    def close(self) -> None:
        """Free the session."""
        self._run = _closed

    def _answer(self, columns: Columns) -> Outputs:
        found = self._run(self._names, self._encoder.inputs(columns))
        return Outputs(**dict(zip(self._outputs, found, strict=True)))


def open_session(model: bytes) -> Any:
    """Open a session with one thread and no arena."""
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
        raise IntegrityError(
            f"{MODEL} cannot be loaded: {error}.", "Register the model again."
        ) from error
    if len(model) > LARGE:
        _give_back_memory()
    return session


def _give_back_memory() -> None:
    """
    Return freed memory to the system, where the C library can be told to.

    Reading a file of 20 MB leaves 280 MB freed inside the process and held by glibc.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _closed(*_: Any) -> Any:
    raise RuntimeError("The predictor was closed.")
