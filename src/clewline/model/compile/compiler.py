"""The one call that turns a fitted estimator into what is served."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import IntegrityError, InvalidInput, NotSupported
from clewline.evaluation.boosters import refusals
from clewline.model.compile.form import Form, NotLowered
from clewline.model.compile.hold import (
    BATCH_SIZES,
    TOLERANCE,
    Difference,
    difference,
    in_each,
    same_bits,
)
from clewline.model.compile.made import made_rows, tried
from clewline.model.compile.original import Original, solo
from clewline.model.compile.own import own_form
from clewline.model.compile.result import Attempt, Compiled, Equality
from clewline.model.runtime.frames import FrameKind, columns_of, layout_of, original_frame
from clewline.model.runtime.outputs import (
    Outputs,
    Predictor,
    join_outputs,
    stack_rows,
    take_outputs,
    take_rows,
)
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

ONNX_CALLS, SKLEARN_CALLS = 200, 40
"""Calls at each batch size when bits are compared; a call of scikit-learn takes milliseconds."""

SAMPLED = 1000
"""Rows, drawn from all, whose bits are compared."""

ONE_BY_ONE = 2000
"""Rows that are held again one to a call, where the model is served so."""


def compile(
    model: Any, signature: Signature, *, test: Any, train: Any, frame: FrameKind
) -> Compiled:
    """
    Compile a fitted estimator, or keep it where no form is equal.

    Forms are tried from the fastest to the most general; the first that is held equal
    to the estimator on every row of `test` and on made rows is served. When none is,
    the estimator itself is stored in its own format, and the record says why.

    Args:
        model: A fitted estimator or pipeline. It is not changed.
        signature: Of the table, its labels those of the model.
        test: pandas or Polars table with the signature's fields, at least one row.
        train: The table that the model was trained on; gives levels and column types.
        frame: What the estimator takes: "polars", "pandas", or "numpy" for a matrix
            with one column a field.

    Raises:
        InvalidInput: The model's labels are not the signature's, or `test` is empty.
        NotSupported: It can neither be compiled nor stored safely.
    """
    case = _case(solo(model), signature, test, train, frame)
    attempts: list[Attempt] = []
    for form in _forms(case, attempts):
        held = _held(case, form, tuple(attempts))
        if isinstance(held, Compiled):
            return held
        attempts.append(Attempt(form=form.name, reason=held))
    return _as_it_is(case, tuple(attempts))


@dataclass(frozen=True, slots=True)
class Case:
    """What is to be compiled, and the rows to hold it against."""

    original: Original
    train: Columns
    test: Columns
    answers: Outputs  # of the original on the test table

    @property
    def signature(self) -> Signature:
        return self.original.signature


def _case(model: Any, signature: Signature, test: Any, train: Any, frame: FrameKind) -> Case:
    if len(test) == 0:
        raise InvalidInput("The test table has no rows.", "Pass rows to hold the model against.")
    original = Original(model, signature, layout_of(train, signature, frame))
    try:
        answers = original.table(original_frame(test, signature, frame))
    except refusals() as error:
        raise InvalidInput(
            f"The model refuses the test rows: {error}",
            "Leave such rows out, or train with an encoder that takes levels that it has not seen "
            '(handle_unknown="ignore").',
        ) from error
    return Case(original, columns_of(train, signature), columns_of(test, signature), answers)


def _forms(case: Case, attempts: list[Attempt]) -> Iterator[Form]:
    """Give the forms that the model can be lowered to; those that it cannot go to `attempts`."""
    from clewline.model.compile.forms import FORMS

    for name, build in FORMS:
        try:
            yield from build(case.original, case.train)
        except NotLowered as reason:
            attempts.append(Attempt(form=name, reason=str(reason)))


def _held(case: Case, form: Form, attempts: tuple[Attempt, ...]) -> Compiled | str:
    """Hold a form against the original; gives the compiled model, or why it is not equal."""
    try:
        files = form.files()
        predictor = form.server.load(files, case.signature)
        made, answers = _made(case, form)
        rows = stack_rows([case.test, *made.values()])
        apart = difference(answers, predictor.predict(rows))
    except (NotLowered, IntegrityError, InvalidInput) as error:
        return str(error)
    if apart.reason:
        return apart.reason
    size = None if same_bits(predictor, _sample(rows, SAMPLED), ONNX_CALLS) else 1
    if size is not None:
        files = form.files(rows_per_call=size)
        served = form.server.load(files, case.signature)
        apart = _one_by_one(served, rows, answers, apart, ONE_BY_ONE)
        if apart.reason:
            return apart.reason
    equality = _record(case, form, apart, made, attempts, size)
    return Compiled(files, form.server.name, equality, msgspec.to_builtins(form.encoding(size)))


def _one_by_one(
    served: Predictor, rows: Columns, answers: Outputs, apart: Difference, count: int
) -> Difference:
    """Hold rows once more, one to a call as they will be served; gives the larger difference."""
    places = _places(len(rows), count)
    alone = difference(take_outputs(answers, places), served.predict(take_rows(rows, places)))
    return Difference(
        max(apart.flips, alone.flips),
        max(apart.largest, alone.largest),
        apart.identical,
        apart.rows,
        alone.rows,
    )


def _made(case: Case, form: Form) -> tuple[dict[str, Columns], Outputs]:
    made: dict[str, Columns] = {}
    answers = [case.answers]
    for kind, rows in made_rows(case.test, case.signature, form.thresholds).items():
        found, kept = case.original.rows(rows)
        if found is not None:
            made[kind] = kept
            answers.append(found)
    return made, join_outputs(answers)


def _record(
    case: Case,
    form: Form,
    apart: Difference,
    made: dict[str, Columns],
    attempts: tuple[Attempt, ...],
    size: int | None,
) -> Equality:
    return Equality(
        held=True,
        form=form.name,
        by=form.by,
        rows=len(case.test),
        made_rows=sum(map(len, made.values())),
        made={kind: len(rows) for kind, rows in made.items()},
        split_thresholds=len(form.thresholds),
        split_thresholds_tried=tried(form.thresholds),
        flips=apart.flips,
        max_difference=apart.largest,
        identical_rows=apart.identical,
        tolerance=TOLERANCE,
        **_bits(len(case.test) + sum(map(len, made.values())), ONNX_CALLS, size),
        rows_one_by_one=apart.alone,
        attempts=attempts,
        versions=_versions(*form.distributions),
    )


def _bits(rows: int, calls: int, size: int | None) -> dict[str, Any]:
    """Say at which batch sizes how many rows gave the same bits, or that they did not."""
    if size is not None:
        return {"rows_per_call": size}
    return {
        "batch_sizes": BATCH_SIZES,
        "rows_in_batches": in_each(min(rows, SAMPLED), calls),
    }


def _as_it_is(case: Case, attempts: tuple[Attempt, ...]) -> Compiled:
    """Store the estimator itself, and hold what is loaded again against it."""
    own = own_form(case.original)
    predictor = own.load(None, case.signature)
    apart = difference(case.answers, predictor.predict(case.test))
    if apart.reason:
        raise NotSupported(
            f"The model, stored and loaded again, does not answer as it did: {apart.reason}.",
            "Does it hold state outside scikit-learn, or work on columns that are not fields?",
        )
    size = None if same_bits(predictor, _sample(case.test, SAMPLED), SKLEARN_CALLS) else 1
    if size is not None:
        served = own.load(size, case.signature)
        apart = _one_by_one(served, case.test, case.answers, apart, SKLEARN_CALLS)
    reason = "; ".join(f"{attempt.form}: {attempt.reason}" for attempt in attempts)
    equality = Equality(
        held=False,
        form=own.title,
        reason=reason or "no ONNX form",
        rows=len(case.test),
        made_rows=0,
        flips=apart.flips,
        max_difference=apart.largest,
        identical_rows=apart.identical,
        **_bits(len(case.test), SKLEARN_CALLS, size),
        rows_one_by_one=apart.alone,
        attempts=attempts,
        versions=_versions(*own.distributions, "numpy"),
    )
    layout = msgspec.to_builtins(case.original.layout)
    return Compiled(own.files(size), own.runtime, equality, {"layout": layout})


def _sample(rows: Columns, count: int) -> Columns:
    return take_rows(rows, _places(len(rows), count))


def _places(total: int, count: int) -> NDArray[np.intp]:
    return np.random.default_rng(0).permutation(total)[:count].astype(np.intp)


def _versions(*names: str) -> dict[str, str]:
    return {name: version(name) for name in names}
