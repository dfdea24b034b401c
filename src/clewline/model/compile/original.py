"""The estimator as it was trained: what every compiled form is held against."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.evaluation.boosters import library_of, refusals
from clewline.model.runtime.frames import Layout, frame_of
from clewline.model.runtime.outputs import Outputs, join_outputs, take_rows
from clewline.model.runtime.sklearn import ask
from clewline.signature.columns import Columns
from clewline.signature.field import Signature


def solo(model: Any) -> Any:
    """
    Copy an estimator so that it works on one thread.

    With more, a forest adds up its trees in the order in which threads finish, and
    the last bits of a probability differ from call to call.
    """
    alone = copy.deepcopy(model)
    given = alone.get_params()
    jobs = {
        name: None if library_of(given.get(name.rpartition("__")[0], alone)) is None else 1
        for name in given
        if name.rpartition("__")[2] == "n_jobs"
    }
    return alone.set_params(**jobs) if jobs else alone


class Original:
    """Answers rows by the estimator itself."""

    def __init__(self, model: Any, signature: Signature, layout: Layout) -> None:
        self.model, self.signature, self.layout = model, signature, layout

    def table(self, frame: Any) -> Outputs:
        """Answer the rows of a table as it was given."""
        with _quiet():
            return ask(self.model, frame, self.signature.output)

    def rows(self, columns: Columns) -> tuple[Outputs | None, Columns]:
        """
        Answer made rows; gives the answers, and the rows without those that it refuses.

        An encoder that was told to refuse unseen levels raises on them: such rows have
        no answer to be equal to.
        """
        answers: list[Outputs] = []
        kept = self._answered(columns, np.arange(len(columns)), answers)
        if not answers:
            return None, take_rows(columns, slice(0, 0))
        return join_outputs(answers), take_rows(columns, np.array(kept, dtype=np.intp))

    def _ask(self, columns: Columns) -> Outputs:
        frame = frame_of(columns, self.signature, self.layout, floats=True)
        with _quiet():
            return ask(self.model, frame, self.signature.output)

    def _answered(
        self, columns: Columns, places: NDArray[np.intp], answers: list[Outputs]
    ) -> list[int]:
        """Collect answers, halving where rows are refused; gives the places that have one."""
        try:
            answers.append(self._ask(take_rows(columns, places)))
            return [int(place) for place in places]
        except refusals():
            if len(places) <= 1:
                return []
        half = len(places) // 2
        first = self._answered(columns, places[:half], answers)
        return first + self._answered(columns, places[half:], answers)


def _quiet() -> warnings.catch_warnings[None]:
    """Unseen levels and made numbers make estimators warn; here they are the point."""
    return warnings.catch_warnings(action="ignore")


def final_and_steps(model: Any) -> tuple[Any, list[Any]]:
    """Take a model apart: the estimator that decides, and the transformers before it."""
    while hasattr(model, "best_estimator_"):
        model = model.best_estimator_
    steps: list[Any] = []
    while type(model).__name__ == "Pipeline":
        parts = [part for _, part in model.steps if part is not None and part != "passthrough"]
        steps += parts[:-1]
        model = parts[-1]
    return model, steps
