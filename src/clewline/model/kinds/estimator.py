"""Estimators: those of scikit-learn, and those that speak its language."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from clewline.errors import InvalidInput, NotSupported
from clewline.evaluation.boosters import Boosted, estimator_of, library_of
from clewline.evaluation.texts import takes_texts, text_columns
from clewline.model.kinds import tables
from clewline.model.kinds.kind import Contents, Given
from clewline.model.runtime.frames import FrameKind
from clewline.signature import dataframes
from clewline.signature.check import Checker
from clewline.signature.field import Field, Signature
from clewline.signature.infer import infer_signature

UNSTABLE = ("model.skops",)
"""skops writes addresses and times."""


class Estimator:
    """A fitted classifier, regressor or pipeline."""

    name = "estimator"

    def claims(self, model: Any) -> bool:
        """Whatever is an instance and predicts."""
        return hasattr(model, "predict") and not isinstance(model, type)

    def contents(self, model: Any, given: Given) -> Contents:
        """Compile the estimator, or keep it where no compiled form is equal."""
        from clewline.model.compile import compile

        model = estimator_of(model)
        train, target = given.train, _target(given)
        task = _task(model)
        fields = _fields(model, dataframes.open_table(train).columns, target)
        labels = model.classes_.tolist() if task is None else None
        table = tables.chosen(train, [*fields, target])
        signature = _with_texts(
            infer_signature(table, target=target, task=task, labels=labels), model
        )
        signature = tables.with_probabilities(signature, hasattr(model, "predict_proba"))
        checker = Checker(signature)
        seen = tables.chosen(train, fields)
        asked = seen if given.test is None else given.test
        unseen, notes = tables.fitting(checker, tables.chosen(asked, fields))
        frame = _frame(model, train)
        compiled = compile(model, signature, test=unseen, train=seen, frame=frame)
        numbers = checker.table(seen).columns
        answered = None if given.test is None else checker.table(unseen).columns
        files = compiled.files | tables.described(signature, compiled, numbers, answered)
        return Contents(files, signature, compiled, notes, unstable=UNSTABLE)


KIND = Estimator()


def _target(given: Given) -> str:
    if given.train is None:
        raise InvalidInput("No training table is given.", "Pass train=, which it was fitted on.")
    if given.target is None:
        raise InvalidInput("No target is named.", "Pass target=, the column that it predicts.")
    return given.target


def _task(model: Any) -> Literal["regression"] | None:
    """Tell a regressor; a classifier's kind follows from its labels."""
    from sklearn.base import is_classifier, is_regressor

    if isinstance(model, Boosted):
        return "regression" if model.classes_ is None else None
    if isinstance(getattr(model, "classes_", None), list) and library_of(model) is None:
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


def _frame(model: Any, train: Any) -> FrameKind:
    if takes_texts(model):
        return "texts"
    return "numpy" if _names(model) is None else tables.frame_kind(train)


def _with_texts(signature: Signature, model: Any) -> Signature:
    """Take for text what a vectorizer reads, however few different ones were seen."""
    every = [found.name for found in signature.fields] if takes_texts(model) else []
    read = {*every, *text_columns(model)}
    fields = tuple(
        Field(name=found.name, kind="text", nullable=found.nullable)
        if found.name in read and found.kind == "category"
        else found
        for found in signature.fields
    )
    if every and [found.kind for found in fields] != ["text"]:
        raise InvalidInput(
            f"The model takes one column of texts, and the training table has {', '.join(every)} "
            "besides the target.",
            "Pass the table with that column and the target alone.",
        )
    return msgspec.structs.replace(signature, fields=fields)


def _names(model: Any) -> list[str] | None:
    names = getattr(model, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]


def _fields(model: Any, columns: list[str], target: str) -> list[str]:
    """Name the columns that the model takes, in its order."""
    present = [column for column in columns if column != target]
    names = _names(model)
    return _counted(model, present) if names is None else tables.named_fields(names, present)


def _counted(model: Any, present: list[str]) -> list[str]:
    count = getattr(model, "n_features_in_", len(present))
    if count != len(present):
        raise InvalidInput(
            f"The model was fitted on {count} columns, and the training table has {len(present)} "
            "besides the target.",
            "Pass the table that it was fitted on, its columns in the same order.",
        )
    return present
