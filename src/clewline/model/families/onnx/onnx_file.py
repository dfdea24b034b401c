"""Registering an ONNX file that somebody brings; it is served as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import onnx

from clewline.errors import IntegrityError, InvalidInput, NotSupported
from clewline.model.compile.candidate_forms import MODEL
from clewline.model.compile.equivalence import (
    CompiledModel,
    EquivalenceRecord,
    batch_record,
    same_bits,
)
from clewline.model.families import packaging
from clewline.model.families.family import (
    BACKGROUND,
    READ_BYTES,
    READ_S,
    PackageContents,
    RegistrationInputs,
)
from clewline.model.families.onnx.file_signature import read_signature
from clewline.model.families.onnx.loading import (
    CALL,
    OnnxFileModel,
    load_onnx,
    open_session,
)
from clewline.model.families.profile import background_rows
from clewline.model.isolation.forked_call import ForkFailed, call_in_fork
from clewline.model.runtime.outputs import take_rows
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Domains of the operators that ONNX Runtime has without other libraries."""

SAMPLED = 200
"""Rows that are answered at several batch sizes."""

CALLS = 60
SYNTHETIC_ROWS = 70
NO_ROWS = "no table was given: there is no profile, and the background sample is synthetic"


def convert_file(data: bytes, inputs: RegistrationInputs) -> PackageContents:
    """
    Make the files of a package.

    Args:
        data: The file.
        inputs: A signature, rows, both or neither.

    Raises:
        InvalidInput: The table or the signature does not fit the file.
        NotSupported: The file cannot be served; says why.
    """
    model: Any = parse(data)
    require_whole(model)
    _try_in_fork(data, lambda: open_session(data))
    try:
        session = open_session(data)
    except IntegrityError as error:
        raise NotSupported(
            f"ONNX Runtime cannot load the file: {error.message}",
            "Export it for an operator set that this ONNX Runtime has, with its own operators.",
        ) from error
    signature, call = read_signature(model, session, inputs)
    notes, rows, test = [NO_ROWS], packaging.no_rows(signature), None
    if inputs.train is not None:
        _, _, rows, test, notes = packaging.split_rows(signature, inputs)
    asked = rows if test is None else test
    synthetic = synthetic_columns(signature, np.random.default_rng(0))
    sample = take_rows(asked, slice(0, SAMPLED)) if len(asked) else synthetic
    answer = OnnxFileModel(session, signature, call)
    _try_in_fork(data, lambda: answer(take_rows(sample, slice(0, 1))))
    try:
        answer(take_rows(sample, slice(0, 1)))
        if call.rows_per_call is None and not same_bits(answer, sample, CALLS):
            call = msgspec.structs.replace(call, rows_per_call=1)
    except InvalidInput as error:
        raise NotSupported(
            f"The model cannot answer rows of its own signature: {error.message}",
            "Pass a training table, or a signature with the shapes and levels that it takes.",
        ) from error
    files = {MODEL: data, CALL: msgspec.json.encode(call)}
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    producer = f"{model.producer_name} {model.producer_version}".strip() or "an unnamed program"
    count = len(asked) or SYNTHETIC_ROWS
    equality = EquivalenceRecord(
        verified=False,
        form="the ONNX file",
        reason=f"it was imported unchanged (made by {producer}, operator set {opset})",
        rows=count if len(rows) else 0,
        synthetic_rows=0 if len(rows) else SYNTHETIC_ROWS,
        **batch_record(min(count, SAMPLED), CALLS, call.rows_per_call),
    )
    compiled = CompiledModel(files, "onnx", equality)
    described = packaging.describing_files(signature, compiled, rows, test, inputs)
    if not len(rows):
        described[BACKGROUND] = packaging.json_of(background_rows(signature, synthetic))
    loaded: Any = load_onnx(files, signature)
    evaluated = packaging.LoadedEstimator(loaded, signature)
    return PackageContents(files | described, signature, compiled, notes, evaluated=evaluated)


def _try_in_fork(data: bytes, function: Callable[[], object]) -> None:
    """
    Call a function that runs a foreign file, in a fork with limits on time and memory.

    Raises:
        NotSupported: It goes beyond a limit, or crashes. Other errors are those of the
            same call in this process.
    """

    def attempt() -> bytes:
        try:
            function()
        except Exception as error:
            if isinstance(error, MemoryError) or "alloc" in str(error):  # ONNX Runtime has no class
                raise MemoryError from error
        return b""

    try:
        call_in_fork(attempt, seconds=READ_S, memory_bytes=READ_BYTES + 40 * len(data))
    except ForkFailed as error:
        raise NotSupported(
            f"ONNX Runtime cannot open the file and answer a row: it {error}.",
            "The file is damaged, or too large to be served; export it again.",
        ) from error


def parse(data: bytes) -> Any | None:
    """Read the file as ONNX; None where it is something else."""
    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # protobuf's errors have no common class
        return None
    return model if model.ir_version and (model.graph.node or model.graph.output) else None


def require_whole(model: Any) -> None:
    """
    Refuse a model that is not all in its file.

    Raises:
        NotSupported: It has data in other files, or operators of somebody's own.
    """
    allowed = DOMAINS | {function.domain for function in model.functions}
    tensors = list(model.graph.initializer)
    functions = (node for function in model.functions for node in function.node)
    for node in _nodes([*model.graph.node, *functions]):
        if node.domain not in allowed:
            raise NotSupported(
                f"The operator {node.op_type} is of the domain {node.domain!r}, which needs a "
                "library of its own.",
                "Export the model with the operators of ONNX alone.",
            )
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors]
            for graph in (attribute.g, *attribute.graphs):
                tensors += graph.initializer
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):
        raise NotSupported(
            "The file keeps weights in other files beside it.",
            "Save it as one file: onnx.save(onnx.load(PATH), OTHER, save_as_external_data=False).",
        )


def _nodes(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph.node)


def synthetic_columns(
    signature: Signature, draw: np.random.Generator, count: int = SYNTHETIC_ROWS
) -> Columns:
    """Return synthetic rows that a signature allows."""
    numbers = np.empty((count, len(signature.numeric)))
    for place, field in enumerate(signature.numeric):
        whole = field.kind in ("integer", "boolean", "datetime")
        numbers[:, place] = draw.integers(0, 2, count) if whole else draw.normal(size=count)
    texts = np.empty((count, len(signature.textual)), dtype=object)
    for place, field in enumerate(signature.textual):
        texts[:, place] = draw.choice(np.array(field.levels or ("a", "b"), dtype=object), count)
    tensors = {}
    for field in signature.tensors:
        shape, is_float = (count, *(field.shape or ())), np.dtype(field.dtype).kind == "f"
        drawn: Any = draw.normal(size=shape) if is_float else draw.integers(0, 2, shape)
        tensors[field.name] = drawn.astype(field.dtype)
    return Columns(numbers, texts, tensors)
