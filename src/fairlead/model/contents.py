"""What goes into a package: a trained estimator, compiled, with its signature and profile."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from fairlead.errors import InvalidInput, NotSupported
from fairlead.model import background, profile
from fairlead.model.package import BACKGROUND, EQUALITY, PROFILE, SIGNATURE
from fairlead.signature import frames
from fairlead.signature.check import Checker
from fairlead.signature.field import Signature
from fairlead.signature.infer import infer
from fairlead.signature.reading import Nearest

if TYPE_CHECKING:
    from fairlead.model.compile.result import Compiled

FrameKind = Literal["polars", "pandas", "numpy"]


@dataclass(frozen=True, slots=True)
class Contents:
    """The files of a package, and what its manifest says of them."""

    files: dict[str, bytes]
    signature: Signature
    compiled: Compiled
    notes: list[str]  # for the person who registers


def make(model: Any, *, train: Any, test: Any | None, target: str) -> Contents:
    """
    Make the files of a package.

    Args:
        model: A fitted scikit-learn classifier, regressor or pipeline.
        train: The table that it was fitted on, with the target.
        test: Rows that it has not seen, with the target or without.
        target: The column that it predicts.

    Raises:
        InvalidInput: A table lacks a column of the model's, or holds what has no kind.
        NotSupported: It is not an estimator, or has no safe form.
    """
    from fairlead.model.compile import compile

    task = _task(model)
    fields = _fields(model, frames.opened(train).columns, target)
    labels = model.classes_.tolist() if task is None else None
    signature = infer(_chosen(train, [*fields, target]), target=target, task=task, labels=labels)
    checker = Checker(signature)
    seen = _chosen(train, fields)
    unseen, notes = _fit(checker, _chosen(seen if test is None else test, fields))
    compiled = compile(model, signature, test=unseen, train=seen, frame=_kind(model, train))
    numbers = checker.table(seen).columns
    answered = None if test is None else checker.table(unseen).columns
    files = compiled.files | _described(signature, compiled, numbers, answered)
    return Contents(files, signature, compiled, notes)


def _described(signature: Signature, compiled: Compiled, train: Any, test: Any) -> dict[str, bytes]:
    from fairlead.model.runtime.registry import load

    predictor = load(compiled.runtime).load(compiled.files, signature)
    try:
        measured = profile.measure(signature, train, predictor, test=test)
    finally:
        predictor.close()
    return {
        SIGNATURE: _json(signature),
        EQUALITY: _json(compiled.equality),
        PROFILE: _json(measured),
        BACKGROUND: _json(background.rows(signature, train)),
    }


def _task(model: Any) -> Literal["regression"] | None:
    """Tell a regressor; a classifier's kind follows from its labels."""
    from sklearn.base import is_classifier, is_regressor

    if isinstance(model, type) or not hasattr(model, "predict"):
        raise NotSupported(
            f"{type(model).__name__} is not a fitted estimator, so it cannot be registered.",
            "Pass a fitted scikit-learn classifier, regressor or pipeline.",
        )
    if isinstance(getattr(model, "classes_", None), list):
        raise NotSupported(
            f"{type(model).__name__} answers several targets at once.",
            "Register one model a target.",
        )
    if is_regressor(model) and _is_fitted(model):
        return "regression"
    if is_classifier(model) and hasattr(model, "classes_"):
        return None
    raise NotSupported(
        f"{type(model).__name__} is neither a regressor nor a classifier that was fitted.",
        "Fit it first; clusterers and transformers cannot be registered.",
    )


def _is_fitted(model: Any) -> bool:
    """Whether an estimator was fitted."""
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(model)
    except NotFittedError:
        return False
    return True


def _fields(model: Any, columns: list[str], target: str) -> list[str]:
    """Name the columns that the model takes, in its order."""
    names = getattr(model, "feature_names_in_", None)
    present = [column for column in columns if column != target]
    if names is None:
        return _counted(model, present)
    fields = [str(name) for name in names]
    for name in fields:
        if name not in present:
            raise InvalidInput(
                f"The model was fitted on a column {name!r}, which the training table has not"
                f"{Nearest(present).hint(name)}.",
                "Pass the table that it was fitted on.",
            )
    return fields


def _counted(model: Any, present: list[str]) -> list[str]:
    count = getattr(model, "n_features_in_", len(present))
    if count != len(present):
        raise InvalidInput(
            f"The model was fitted on {count} columns, and the training table has {len(present)} "
            "besides the target.",
            "Pass the table that it was fitted on, its columns in the same order.",
        )
    return present


def _chosen(table: Any, columns: list[str]) -> Any:
    opened = frames.opened(table)
    for column in columns:
        frames.require(opened, column)
    return opened.select(columns).to_native()


def _fit(checker: Checker, table: Any) -> tuple[Any, list[str]]:
    """Leave out rows that an endpoint would refuse; the training table never showed such."""
    try:
        checker.table(table)
    except InvalidInput as error:
        rows = {problem.row for problem in error.fields}
        opened = frames.opened(table)
        if not rows or len(rows) >= len(opened):
            raise
        first = error.fields[0]
        note = (
            f"{len(rows):,} of {len(opened):,} test rows were left out, as an endpoint refuses "
            f"them: row {first.row}, {first.field} {first.value!r} instead of {first.expected}."
        )
        kept = [row for row in range(len(opened)) if row not in rows]
        return opened[kept, :].to_native(), [note]
    return table, []


def _kind(model: Any, table: Any) -> FrameKind:
    if getattr(model, "feature_names_in_", None) is None:
        return "numpy"
    pandas = sys.modules.get("pandas")
    return "pandas" if pandas is not None and isinstance(table, pandas.DataFrame) else "polars"


def _json(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"
