"""A Python class that predicts tables or rows, asked as an estimator is."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidInput, ModelFailed
from clewline.flow.code import origin
from clewline.flow.code.frame_annotation import Frame, frame_of
from clewline.signature import dataframes, model_answers
from clewline.signature.field import Output
from clewline.signature.infer import infer_output


def askable(model: Any, table: Any, target: str) -> Any:
    """
    Give a model that `trial` can ask.

    Args:
        model: Anything with `predict`; an estimator is given back as it is.
        table: Holds the target, and tells labels from quantities.
        target: The column to be predicted.
    """
    if hasattr(model, "get_params") or origin.of_type(type(model)) != "own":
        return model
    if not hasattr(model, "predict") or hasattr(model, "feature_names_in_"):
        return model
    labels, says = getattr(model, "classes_", None), taken_by(model.predict) is not None
    if labels is not None and not says:
        return model  # it speaks as an estimator does
    stated = None if labels is None else list(labels)
    task = getattr(model, "task", None)
    try:
        output = infer_output(table, target=target, task=task, labels=stated)
    except InvalidInput:
        if says:
            raise
        return model  # what is wrong with the target is told where it is read
    return PythonModel(model, output) if says or output.labels else model


class PythonModel:
    """An object of the project's own, with the labels and numbers that it answers."""

    def __init__(self, model: Any, output: Output) -> None:
        self._model, self._output = model, output
        self._frame = taken_by(model.predict)
        self._last: tuple[Any, model_answers.ModelAnswers] | None = None
        if output.labels is not None:
            self.classes_ = np.array(output.labels, dtype=object)

    def __getattr__(self, name: str) -> Any:
        # Whether there are probabilities is known when the model has answered.
        if name == "predict_proba" and self._last and self._last[1].probabilities is not None:
            return lambda table: self._asked(table).probabilities
        raise AttributeError(name)

    def predict(self, table: Any) -> NDArray[Any]:
        """Give a label or a number to each row."""
        found = self._asked(table)
        values: NDArray[Any] | None = found.values
        return self.classes_[found.choices] if values is None else values

    def _asked(self, table: Any) -> model_answers.ModelAnswers:
        if self._last is None or self._last[0] is not table:
            self._last = table, self._answers(table)
        return self._last[1]

    def _answers(self, table: Any) -> model_answers.ModelAnswers:
        given, rows, who = self._given(table), len(table), type(self._model).__name__
        order = tuple(getattr(self._model, "classes_", ()))
        try:
            said = self._model.predict(given)
            found = model_answers.read_answers(said, self._output, rows, who=who, labels=order)
            if found.choices is None or found.probabilities is not None:
                return found
            if not hasattr(self._model, "predict_proba"):
                return found
            shares = self._model.predict_proba(given)
            shares = model_answers.read_probabilities(
                shares, self._output, rows, who=who, labels=order
            )
        except ModelFailed as error:
            raise InvalidInput(error.message, error.fix) from error
        return model_answers.ModelAnswers(found.choices, shares)

    def _given(self, table: Any) -> Any:
        """Give the table as `predict` takes it."""
        if self._frame == "rows":
            opened = dataframes.open_table(table)
            columns = [dataframes.cell_values(opened[name]) for name in opened.columns]
            return [
                dict(zip(opened.columns, row, strict=True)) for row in zip(*columns, strict=True)
            ]
        return dataframes.open_table(table).to_numpy() if self._frame == "numpy" else table


def taken_by(predict: Any) -> Frame | None:
    """
    Tell what `predict` takes: as its parameter is annotated, else rows where it is named so.

    >>> def predict(rows): ...
    >>> taken_by(predict)
    'rows'
    """
    stated = frame_of(predict)
    if stated is not None:
        return stated
    named = [each for each in inspect.signature(predict).parameters if each != "self"]
    return "rows" if named[:1] == ["rows"] else None
