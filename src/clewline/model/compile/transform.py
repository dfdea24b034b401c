"""Fitted preprocessing as what is served: lowered to ONNX and held equal, or kept as it is."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import msgspec
import numpy as np
from onnx import TensorProto

from clewline.errors import IntegrityError, InvalidInput, NotSupported
from clewline.model.compile.form import NotLowered
from clewline.model.compile.graph import Graph, code_fields, encoding_of, matrix, split_codes
from clewline.model.compile.hold import BATCH_SIZES, TOLERANCE, in_each, same_bits
from clewline.model.compile.lowering import in_order, levels_of, lower, tracks_of
from clewline.model.compile.made import made_rows
from clewline.model.compile.original import Original
from clewline.model.compile.own import own_form
from clewline.model.compile.result import Attempt, Compiled, Equality
from clewline.model.runtime.frames import Layout, frame_of
from clewline.model.runtime.onnx import MODEL
from clewline.model.runtime.outputs import Outputs, stack_rows, take_rows
from clewline.model.runtime.transform import (
    FEATURES,
    FittedTransformer,
    OnnxTransformRuntime,
    SklearnTransformRuntime,
    transformed,
)
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

ML_OPSET = 3
ROWS, CALLS = 1000, 20
LOWERED = "lowered preprocessing"


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted transformer, and rows to hold its forms against."""

    model: Any
    signature: Signature
    layout: Layout
    train: Columns
    rows: Columns  # of the test table
    made: dict[str, Columns]  # kind → rows that it takes
    wanted: Columns  # what it gives to `rows`, then to those that were made


def compile_transform(
    model: Any, signature: Signature, layout: Layout, *, train: Columns, test: Columns
) -> Compiled:
    """
    Compile fitted preprocessing to ONNX, or keep it where it cannot be lowered or is not equal.

    Args:
        model: A fitted transformer, or a pipeline of such.
        signature: Of what it takes; the output's fields are what it gives.
        layout: Column types of the table that it was fitted on.
        train: Rows of that table; they give levels.
        test: Rows that forms are held against.

    Raises:
        NotSupported: It can neither be compiled nor stored safely.
    """
    fitted = _fitted(model, signature, layout, train, test)
    try:
        return _held(fitted, None)
    except (NotLowered, IntegrityError, InvalidInput) as reason:
        return _as_it_is(fitted, Attempt(form=LOWERED, reason=str(reason)))


def _fitted(
    model: Any, signature: Signature, layout: Layout, train: Columns, test: Columns
) -> Fitted:
    def asked(rows: Columns) -> Columns:
        return transformed(model, frame_of(rows, signature, layout, floats=True), signature)

    wanted, made = [asked(test)], {}
    for kind, rows in made_rows(test, signature, []).items():
        try:
            wanted.append(asked(rows))
        except InvalidInput:
            continue  # it refuses such rows, so there is nothing to be equal to
        made[kind] = rows
    return Fitted(model, signature, layout, train, test, made, stack_rows(wanted))


def _held(fitted: Fitted, size: int | None) -> Compiled:
    """Lower it, and hold what is loaded against the original; raises why that cannot be."""
    data, encoding = _lowered(fitted, size)
    loaded = OnnxTransformRuntime().load({MODEL: data}, fitted.signature)
    apart = _apart(
        fitted.wanted, loaded.transform(stack_rows([fitted.rows, *fitted.made.values()]))
    )
    if apart > TOLERANCE:
        raise NotLowered(f"numbers differ by up to {apart:.2g}")
    if size is None and not _same_bits(loaded, fitted.rows):
        return _held(fitted, 1)
    versions = ("onnx", "onnxruntime", "scikit-learn", "numpy")
    equality = _record(fitted, LOWERED, apart, size, versions, held=True)
    return Compiled({MODEL: data}, OnnxTransformRuntime.name, equality, encoding)


def _lowered(fitted: Fitted, size: int | None) -> tuple[bytes, dict[str, Any]]:
    signature = fitted.signature
    if signature.transformed.textual:
        raise NotLowered("it gives texts")
    levels = levels_of(signature, fitted.train, [fitted.model])
    tracks = tracks_of(signature, fitted.layout, levels)
    tracks = lower(fitted.model, in_order(tracks, signature, fitted.model))
    encoding = encoding_of(tracks, signature, levels, size)
    graph = Graph(ML_OPSET)
    codes = split_codes(graph, code_fields(tracks))
    features = graph.add("Identity", matrix(graph, tracks, signature, codes))
    graph.output(FEATURES, features, TensorProto.DOUBLE, [None, len(tracks)])
    return graph.model(encoding), msgspec.to_builtins(encoding)


def _as_it_is(fitted: Fitted, why: Attempt) -> Compiled:
    """Store the transformer itself, and hold what is loaded again against it."""
    own = own_form(Original(fitted.model, fitted.signature, fitted.layout))
    for size in (None, 1):
        loaded = SklearnTransformRuntime().load(own.files(size), fitted.signature)
        apart = _apart(
            fitted.wanted, loaded.transform(stack_rows([fitted.rows, *fitted.made.values()]))
        )
        if apart > TOLERANCE:
            raise NotSupported(
                f"The preprocessing, stored and loaded again, does not give what it gave: numbers "
                f"differ by up to {apart:.2g}.",
                "Does it hold state outside scikit-learn, or work on columns that are not fields?",
            )
        if _same_bits(loaded, fitted.rows):
            break
    equality = _record(
        fitted, own.title, apart, size, ("scikit-learn", "skops", "numpy"), held=False, why=why
    )
    layout = msgspec.to_builtins(fitted.layout)
    return Compiled(own.files(size), SklearnTransformRuntime.name, equality, {"layout": layout})


def _apart(wanted: Columns, found: Columns) -> float:
    """Largest difference of a number, relative to the largest of its column where that is > 1."""
    if wanted.numbers.shape != found.numbers.shape or (wanted.texts != found.texts).any():
        return float("inf")
    one, other = wanted.numbers, found.numbers
    scale = np.maximum(1.0, np.nan_to_num(np.abs(one), posinf=1.0).max(axis=0, initial=0.0))
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    gaps = np.where(same, 0.0, np.abs(one - other) / scale)
    return float(np.where(np.isnan(gaps), np.inf, gaps).max(initial=0.0))


def _same_bits(loaded: FittedTransformer, rows: Columns) -> bool:
    return same_bits(_Numbers(loaded), take_rows(rows, slice(0, ROWS)), CALLS)


class _Numbers:
    """What a transformer gives, as answers, so that bits are compared as those of a model."""

    def __init__(self, transformer: FittedTransformer) -> None:
        self._transformer = transformer

    def predict(self, columns: Columns) -> Outputs:
        return Outputs(values=self._transformer.transform(columns).numbers)

    def close(self) -> None:
        self._transformer.close()


def _record(
    fitted: Fitted,
    form: str,
    apart: float,
    size: int | None,
    libraries: tuple[str, ...],
    *,
    held: bool,
    why: Attempt | None = None,
) -> Equality:
    rows, made = len(fitted.rows), {kind: len(each) for kind, each in fitted.made.items()}
    whole = size is None
    return Equality(
        held=held,
        form=form,
        reason=f"{why.form}: {why.reason}" if why else None,
        rows=rows,
        made_rows=sum(made.values()),
        made=made,
        max_difference=apart,
        tolerance=TOLERANCE,
        batch_sizes=BATCH_SIZES if whole else (),
        rows_in_batches=in_each(min(rows, ROWS), CALLS) if whole else (),
        rows_per_call=size,
        attempts=(why,) if why else (),
        versions={name: version(name) for name in libraries},
    )
