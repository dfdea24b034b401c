"""A Python class in the shape of a scikit-learn estimator, for `cl.evaluate`."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidInput, ModelFailed
from clewline.model.families.python_class.loading import call_model
from clewline.model.runtime.outputs import Outputs
from clewline.signature.dataframes import cell_values, open_table
from clewline.signature.field import Output
from clewline.signature.frame_annotation import Frame, frame_of
from clewline.signature.infer import infer_output


def as_estimator(model: Any, table: Any, target: str) -> Any:
    """
    Wrap an object of the project, unless it answers as an estimator does.

    Args:
        model: Has `predict`.
        table: Holds the target, which shows labels or quantities.
        target: The column to be predicted.

    Raises:
        InvalidInput: The target of a model that states what it takes cannot be read.
    """
    if isinstance(model, type) or hasattr(model, "get_params"):
        return model
    if hasattr(model, "feature_names_in_"):
        return model
    labels, states_input = getattr(model, "classes_", None), input_type(model.predict) is not None
    if labels is not None and not states_input:
        return model
    known = None if labels is None else list(labels)
    try:
        task = getattr(model, "task", None)
        output = infer_output(table, target=target, task=task, labels=known)
    except InvalidInput:
        if states_input:
            raise
        return model  # whoever reads the target names what is wrong with it
    return PythonClassEstimator(model, output) if states_input or output.labels else model


class PythonClassEstimator:
    """An object of the project, with the labels or numbers that it answers."""

    def __init__(self, model: Any, output: Output) -> None:
        self._model, self._output = model, output
        self._input = input_type(model.predict)
        self._last: tuple[Any, Outputs] | None = None
        if output.labels is not None:
            self.classes_ = np.array(output.labels, dtype=object)

    def __getattr__(self, name: str) -> Any:
        # Whether there are probabilities is known when the model has answered.
        if name == "predict_proba" and self._last and self._last[1].probabilities is not None:
            return lambda table: self._answer(table).probabilities
        raise AttributeError(name)

    def predict(self, table: Any) -> NDArray[Any]:
        """Return a label or a number for each row, shape (n,)."""
        found = self._answer(table)
        return self.classes_[found.choices] if found.values is None else found.values

    def _answer(self, table: Any) -> Outputs:
        if self._last is not None and self._last[0] is table:
            return self._last[1]
        opened, given = open_table(table), table
        if self._input == "rows":
            columns = zip(*(cell_values(opened[name]) for name in opened.columns), strict=True)
            given = [dict(zip(opened.columns, row, strict=True)) for row in columns]
        elif self._input == "numpy":
            given = opened.to_numpy()
        try:
            found = call_model(
                self._model,
                given,
                self._output,
                len(opened),
                lambda model, method, rows: getattr(model, method)(rows),
            )
        except ModelFailed as error:
            raise InvalidInput(error.message, error.fix) from error
        self._last = table, found
        return found


def input_type(predict: Any) -> Frame | None:
    """
    Return what `predict` takes, by its parameter's annotation; "rows" if that is its name.

    >>> def predict(rows): ...
    >>> input_type(predict)
    'rows'
    """
    if (stated := frame_of(predict)) is not None:
        return stated
    names = [name for name in inspect.signature(predict).parameters if name != "self"]
    return "rows" if names[:1] == ["rows"] else None
