"""Python classes with `predict(table)` or `predict(rows)`."""

from __future__ import annotations

import sys
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidInput, ModelFailed, NotSupported
from clewline.evaluation.python import taken_by as stated
from clewline.flow.code import origin
from clewline.flow.code.frame_annotation import Frame
from clewline.model.kinds import tables
from clewline.model.kinds.kind import Contents, Given
from clewline.signature.check import Checker
from clewline.signature.field import Field, Signature
from clewline.signature.infer import infer_signature

if TYPE_CHECKING:
    from clewline.model.runtime.frames import Column, Layout
    from clewline.model.runtime.outputs import Outputs, Predictor
    from clewline.model.runtime.python_spec import Spec


class PythonClass:
    """A class of the project, or an object of one, that is no estimator of scikit-learn's."""

    name = "python"

    def claims(self, model: Any) -> bool:
        """A first-party class with `predict`; estimators are compiled instead."""
        cls = model if isinstance(model, type) else type(model)
        if not callable(getattr(cls, "predict", None)) or origin.of_type(cls) != "own":
            return False
        sklearn = sys.modules.get("sklearn.base")
        return sklearn is None or not issubclass(cls, sklearn.BaseEstimator)

    def contents(self, model: Any, given: Given) -> Contents:
        """Package the code and the files, and hold what is loaded again against the object."""
        from clewline.model.compile.result import Compiled
        from clewline.model.pythonic.gather import gather
        from clewline.model.pythonic.hold import ROWS, hold
        from clewline.model.runtime.outputs import take_rows

        tables.require_train(given)
        signature = given.signature or _inferred(model, given)
        names = [field.name for field in signature.fields]
        checker, seen = Checker(signature), tables.chosen(given.train, names)
        asked = seen if given.test is None else given.test
        unseen, notes = tables.fitting(checker, tables.chosen(asked, names))
        frame = taken_by(model, seen)
        layout = _layout(seen, signature, frame)
        spec, files = gather(
            model,
            files={name: Path(path) for name, path in (given.options.get("files") or {}).items()},
            arguments=given.options.get("arguments") or {},
            frame=frame,
            layout=layout,
        )
        rows = checker.table(unseen).columns
        few = take_rows(rows, slice(0, ROWS))
        held = hold(spec, files, signature, few, _answers(model, few, signature, frame, layout))
        signature = tables.with_probabilities(signature, held.scores)
        compiled = Compiled(held.files, "python", held.equality, _told(spec))
        numbers = checker.table(seen).columns
        told = tables.described(signature, compiled, numbers, None if given.test is None else rows)
        asked_of = Asked(held.files, signature, scores=held.scores)
        return Contents(held.files | told, signature, compiled, notes, asked=asked_of)


KIND = PythonClass()


def _told(spec: Spec) -> dict[str, Any]:
    """Say in the manifest what the class is made of."""
    return {
        "class": spec.name,
        "module": spec.module,
        "frame": spec.frame,
        "files": sorted(spec.files),
        "requirements": spec.requirements,
    }


def taken_by(model: Any, table: Any) -> Frame:
    """
    Tell what `predict` takes: as its parameter is annotated, else rows where it is named so.

    Otherwise it is given tables like the one it is registered with.
    """
    return stated(model.predict) or tables.frame_kind(table)


def _inferred(model: Any, given: Given) -> Signature:
    if given.target is None:
        raise InvalidInput(
            "No target is named.", "Pass target=, the column that it predicts, or signature=."
        )
    labels = getattr(model, "classes_", None)
    task = getattr(model, "task", None)
    ordered = None if labels is None else list(labels)
    return infer_signature(given.train, target=given.target, task=task, labels=ordered)


def _answers(
    model: Any, rows: Any, signature: Signature, frame: Frame, layout: Layout
) -> Outputs | None:
    """Ask the object itself; a class has not been made yet."""
    from clewline.model.runtime.python import ask
    from clewline.model.runtime.python_rows import taken

    if isinstance(model, type):
        return None
    try:
        return ask(model, taken(rows, signature, frame, layout), signature.output, len(rows))
    except ModelFailed as error:
        reason = f" ({error.__cause__})" if error.__cause__ else ""
        raise NotSupported(
            f"It cannot be registered: {error.message}{reason}",
            "Mend the class, so that it answers its own training rows.",
        ) from error


def _layout(table: Any, signature: Signature, frame: Frame) -> Layout:
    """Keep the column types of a table, or plain ones where `predict` takes another library's."""
    from clewline.model.runtime.frames import Layout, layout_of

    own = tables.frame_kind(table)
    if frame == "rows":
        return layout_of(table, signature, own)
    if frame in ("numpy", own):
        return layout_of(table, signature, frame)
    return Layout(frame, {field.name: _plain(field, frame) for field in signature.fields})


def _plain(field: Field, frame: str) -> Column:
    from clewline.model.runtime.frames import Column

    polars, pandas = _TYPES[field.kind]
    if frame == "polars":
        return Column(polars)
    nullable = field.nullable and field.kind in ("integer", "boolean")
    return Column("float64" if nullable else pandas)


_TYPES = {
    "number": ("Float64", "float64"),
    "integer": ("Int64", "int64"),
    "boolean": ("Boolean", "bool"),
    "category": ("String", "object"),
    "text": ("String", "object"),
    "datetime": ("Datetime(time_unit='us', time_zone='UTC')", "datetime64[us, UTC]"),
    "tensor": ("List", "object"),
}


class Asked:
    """A packaged model that `cl.evaluate` can ask, loaded as it will be served."""

    def __init__(self, files: dict[str, bytes], signature: Signature, *, scores: bool) -> None:
        from clewline.model.runtime.python import PythonRuntime

        self._signature = signature
        self._predictor: Predictor = PythonRuntime().load(files, signature)
        weakref.finalize(self, self._predictor.close)
        self.feature_names_in_ = [field.name for field in signature.fields]
        if signature.output.labels is not None:
            self.classes_ = np.array(signature.output.labels, dtype=object)
        if scores:
            self.predict_proba = lambda table: self._outputs(table).probabilities

    def predict(self, table: Any) -> NDArray[Any]:
        """Give a label or a number to each row."""
        found = self._outputs(table)
        answers: NDArray[Any] | None = found.values
        return self.classes_[found.choices] if answers is None else answers

    def _outputs(self, table: Any) -> Outputs:
        from clewline.model.runtime.frames import columns_of

        return self._predictor.predict(columns_of(table, self._signature))
