"""Converting a fitted model to the form that is served, and verifying that form."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import ClewlineError, InvalidInput, NotSupported
from clewline.model.compile.candidate_forms import CandidateForm, NotConvertible
from clewline.model.compile.equivalence import (
    AnswerDifference,
    Attempt,
    CompiledModel,
    EquivalenceRecord,
    Predict,
    batch_record,
    difference,
    same_bits,
    versions_of,
)
from clewline.model.compile.synthetic_rows import EXTREMES, count_tried, synthetic_rows
from clewline.model.isolation.forked_call import ForkFailed, call_in_fork
from clewline.model.runtime.frames import (
    FrameKind,
    TableLayout,
    columns_of,
    frame_of,
    layout_of,
    original_frame,
)
from clewline.model.runtime.outputs import (
    Outputs,
    join_outputs,
    predict_function,
    stack_rows,
    take_outputs,
    take_rows,
)
from clewline.model_families import family_named, family_of, import_loading, refusal_errors
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

ONNX_CALLS, OWN_CALLS = 200, 40
"""Calls at each batch size when bits are compared; a call of a library takes milliseconds."""

SAMPLED = 1000
"""Rows, drawn from all, whose bits are compared."""

CONVERSION_S, CONVERSION_BYTES = 120.0, 8 << 30
"""Greatest time of a conversion, in seconds, and the memory that it may take."""

ONE_BY_ONE = 2000
"""Rows that are compared again in calls of one row, if the model is served in such calls."""


@dataclass(frozen=True, slots=True)
class OriginalModel:
    """The model as it was trained, on one thread: what every converted form is compared with."""

    model: Any
    signature: Signature
    layout: TableLayout

    @property
    def family(self) -> Any:
        """The family of the model."""
        return family_of(self.model)

    @property
    def final(self) -> Any:
        """The estimator that decides, without the transformers before it."""
        return self.family.final_and_steps(self.model)[0]

    def answer(self, frame: Any) -> Outputs:
        """Answer a table as the model takes it; what a model warns of is the point here."""
        with warnings.catch_warnings(action="ignore"):
            found: Outputs = self.family.predict(self.model, frame, self.signature)
            return found

    def answer_rows(self, columns: Columns) -> tuple[Outputs | None, Columns]:
        """
        Answer synthetic rows; return the answers, and the rows without those that it refuses.

        An encoder that was told to refuse unseen levels raises on them: such rows have
        no answer to be equal to.
        """
        answers: list[Outputs] = []
        kept: list[NDArray[np.intp]] = []
        left = [np.arange(len(columns))]
        while left:  # halved where rows are refused
            places = left.pop()
            rows = frame_of(take_rows(columns, places), self.signature, self.layout, floats=True)
            try:
                answers.append(self.answer(rows))
                kept.append(places)
            except refusal_errors():
                left += reversed(np.array_split(places, 2)) if len(places) > 1 else []
        if not answers:
            return None, take_rows(columns, slice(0, 0))
        return join_outputs(answers), take_rows(columns, np.concatenate(kept))


@dataclass(frozen=True, slots=True)
class OwnForm:
    """A model as its library stores it, and how it is called."""

    title: str
    runtime: str  # the family that loads it
    files: Callable[[int | None], dict[str, bytes]]  # by the rows of a call, None for any number
    distributions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Comparison:
    """A model that is to be converted, and the rows that forms are compared on."""

    original: OriginalModel
    train: Columns
    test: Columns
    answers: Outputs  # of the original on the test table


def compile_model(
    model: Any, signature: Signature, *, test: Any, train: Any, frame: FrameKind
) -> CompiledModel:
    """
    Convert a fitted model, or keep it in its library's format if no converted form is equal.

    Forms are tried from the fastest to the most general; the first that is verified equal
    to the model on every row of `test` and on synthetic rows is served. If none is,
    the model itself is stored in its own format, and the record says why.

    Args:
        model: A fitted estimator, pipeline, booster or transformer. It is not changed.
        signature: Of the table, its labels those of the model.
        test: pandas or Polars table with the signature's fields, at least one row.
        train: The table that the model was trained on; gives levels and column types.
        frame: What the model takes: "polars", "pandas", "texts" for a list of strings, or
            "numpy" for a matrix with one column for each field.

    Raises:
        InvalidInput: The model's labels are not the signature's, or `test` is empty.
        NotSupported: It can neither be converted nor stored safely.
    """
    if len(test) == 0:
        raise InvalidInput("The test table has no rows.", "Pass rows to compare the model on.")
    family: Any = family_of(model)
    layout = layout_of(train, signature, frame)
    layout = layout.with_levels(family.category_levels(model, layout.levels))
    original = OriginalModel(family.single_threaded(model), signature, layout)
    try:
        answers = original.answer(original_frame(test, signature, frame))
    except refusal_errors() as error:
        raise InvalidInput(
            f"The model refuses the test rows: {error}",
            "Leave such rows out, or train with an encoder that takes levels that it has not seen "
            '(handle_unknown="ignore").',
        ) from error
    rows = columns_of(train, signature), columns_of(test, signature)
    case = _Comparison(original, *rows, answers)
    attempts: list[Attempt] = []
    for form in _candidates(case, attempts):
        found = _verified(case, form, tuple(attempts))
        if isinstance(found, CompiledModel):
            return found
        attempts.append(Attempt(form=form.name, reason=found))
    return _as_it_is(case, tuple(attempts))


def _candidates(case: _Comparison, attempts: list[Attempt]) -> Iterator[CandidateForm]:
    """Yield the forms that the model has; those that it does not have go to `attempts`."""
    for name, build in case.original.family.form_builders(case.original):
        try:
            yield from build(case.original, case.train)
        except NotConvertible as reason:
            attempts.append(Attempt(form=name, reason=str(reason)))


def _verified(
    case: _Comparison, form: CandidateForm, attempts: tuple[Attempt, ...]
) -> CompiledModel | str:
    """Compare a form with the original; return the compiled model, or why it is not equal."""
    signature, family = case.original.signature, family_named(form.runtime)
    synthetic: dict[str, Columns] = {}
    answers = {"test": case.answers}
    declared = case.original.layout.levels
    for kind, rows in synthetic_rows(case.test, signature, form.thresholds, declared).items():
        found, kept = case.original.answer_rows(rows)
        if found is not None:
            synthetic[kind], answers[kind] = kept, found
    extremes = synthetic.get(EXTREMES)
    ordinary = [rows for kind, rows in synthetic.items() if kind != EXTREMES]
    rows = stack_rows([case.test, *ordinary])
    sample = take_rows(rows, _places(len(rows), SAMPLED))
    tried = [sample] if extremes is None else [sample, extremes]
    try:
        files = _convert(form, signature, tried)
        predict = predict_function(family.load(files, signature))
        wanted = join_outputs([answers[kind] for kind in answers if kind != EXTREMES])
        apart = difference(wanted, predict(rows))
        if extremes is not None and apart.reason is None:
            apart = apart.worse_of(difference(answers[EXTREMES], predict(extremes)))
        if apart.reason:
            return apart.reason
        size = None if same_bits(predict, sample, ONNX_CALLS) else 1
        if size is not None:
            files = _convert(form, signature, tried, size)
            predict = predict_function(family.load(files, signature))
            apart = _one_by_one(predict, rows, wanted, apart, ONE_BY_ONE)
            if apart.reason:
                return apart.reason
    except Exception as error:
        return _reason(error)
    kinds = {kind: len(each) for kind, each in synthetic.items()}
    equality = _record(
        case,
        apart,
        attempts,
        verified=True,
        form=form.name,
        executed_by=form.executed_by,
        synthetic_rows=sum(kinds.values()),
        synthetic_kinds=kinds,
        split_thresholds=len(form.thresholds),
        split_thresholds_tried=count_tried(form.thresholds),
        versions=versions_of(*form.distributions),
        **batch_record(min(len(rows), SAMPLED), ONNX_CALLS, size),
    )
    return CompiledModel(files, form.runtime, equality, msgspec.to_builtins(form.encoding(size)))


def _convert(
    form: CandidateForm, signature: Signature, tried: list[Columns], size: int | None = None
) -> dict[str, bytes]:
    """
    Convert a form and let it answer rows, in a fork: either may hang, or crash the process.

    Raises:
        NotConvertible: It did, or failed in another way.
    """
    family = family_named(form.runtime)
    import_loading(family)  # here, or each fork imports it again

    def convert_and_try() -> bytes:
        try:
            files = form.files(rows_per_call=size)
            predict = predict_function(family.load(files, signature))
            for rows in tried:
                predict(rows)
        except Exception as error:
            if isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError):
                raise MemoryError from error
            return msgspec.msgpack.encode(_reason(error))
        return msgspec.msgpack.encode(files)

    try:
        data = call_in_fork(convert_and_try, seconds=CONVERSION_S, memory_bytes=CONVERSION_BYTES)
    except ForkFailed as error:
        raise NotConvertible(f"the conversion {error}") from error
    found = msgspec.msgpack.decode(data, type=dict[str, bytes] | str)
    if isinstance(found, str):
        raise NotConvertible(found)
    return found


def _reason(error: Exception) -> str:
    """Say why a form is not served; a converted graph may fail in any way when it is run."""
    if isinstance(error, NotConvertible):
        return str(error)
    if isinstance(error, ClewlineError):
        return error.message
    return f"it fails when it is run: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [repr(error)])[0].rstrip(".")


def _as_it_is(case: _Comparison, attempts: tuple[Attempt, ...]) -> CompiledModel:
    """
    Store the model itself, and compare it with what is loaded again.

    Raises:
        NotSupported: What is loaded answers otherwise, or fails on calls of fewer rows.
    """
    own: OwnForm = case.original.family.own_form(case.original)
    family, signature = family_named(own.runtime), case.original.signature
    predict = predict_function(family.load(own.files(None), signature))
    apart = difference(case.answers, predict(case.test))
    if apart.reason:
        raise NotSupported(
            f"The model, stored and loaded again, does not answer as it did: {apart.reason}.",
            "Does it hold state outside its library, or work on columns that are not fields?",
        )
    sample = take_rows(case.test, _places(len(case.test), SAMPLED))
    try:
        size = None if same_bits(predict, sample, OWN_CALLS) else 1
        if size is not None:
            predict = predict_function(family.load(own.files(size), signature))
            apart = _one_by_one(predict, case.test, case.answers, apart, OWN_CALLS)
    except Exception as error:  # a library may fail in any way on rows that it answered together
        raise NotSupported(
            f"The model answers the test rows together, but not in smaller calls: "
            f"{_first_line(error)}.",
            "An endpoint is asked single rows; leave out the step that needs several of them.",
        ) from error
    equality = _record(
        case,
        apart,
        attempts,
        verified=False,
        form=own.title,
        reason="; ".join(f"{each.form}: {each.reason}" for each in attempts) or "no ONNX form",
        synthetic_rows=0,
        versions=versions_of(*own.distributions, "numpy"),
        **batch_record(min(len(case.test), SAMPLED), OWN_CALLS, size),
    )
    layout = {"layout": msgspec.to_builtins(case.original.layout)}
    return CompiledModel(own.files(size), own.runtime, equality, layout)


def _record(
    case: _Comparison, apart: AnswerDifference, attempts: tuple[Attempt, ...], **more: Any
) -> EquivalenceRecord:
    return EquivalenceRecord(
        rows=len(case.test),
        flips=apart.flips,
        max_difference=apart.largest,
        identical_rows=apart.identical,
        rows_one_by_one=apart.one_by_one,
        attempts=attempts,
        **more,
    )


def _one_by_one(
    predict: Predict, rows: Columns, answers: Outputs, apart: AnswerDifference, count: int
) -> AnswerDifference:
    """Compare rows once more, in calls of one row as they will be served."""
    places = _places(len(rows), count)
    alone = difference(take_outputs(answers, places), predict(take_rows(rows, places)))
    return apart.worse_of(alone, same_rows=True)


def _places(total: int, count: int) -> NDArray[np.intp]:
    return np.random.default_rng(0).permutation(total)[:count].astype(np.intp)
