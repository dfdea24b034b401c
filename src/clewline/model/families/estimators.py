"""The base of families whose models have the methods of scikit-learn's estimators."""

from __future__ import annotations

import copy
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidInput, NotSupported
from clewline.model.families.family import Family, PackageContents, RegistrationInputs
from clewline.model.runtime.frames import FrameKind, TableLayout, frame_of
from clewline.model.runtime.outputs import FunctionPredictor, Outputs, label_order, plain_label
from clewline.model_families import fitted_names, refusal_errors
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Signature

CALL = "frame.json"
SKOPS_MODEL = "model.skops"


class EstimatorCall(msgspec.Struct, frozen=True):
    """How an estimator is called: file `frame.json` beside the model."""

    layout: TableLayout
    rows_per_call: int | None = None  # 1 if its bits depend on the size of the batch


class EstimatorFamily(Family):
    """The base of families of estimators."""

    value_format = "skops"
    threads: int | None = None  # the value of `n_jobs` that means one thread

    def convert(self, model: Any, inputs: RegistrationInputs) -> PackageContents:
        """Convert the estimator, or keep it if no converted form is equal."""
        from clewline.model.compile.compiler import compile_model
        from clewline.model.families import packaging
        from clewline.signature.infer import infer_signature

        model = self.as_estimator(model)
        packaging.require_train(inputs)
        if (target := inputs.target) is None:
            raise InvalidInput("No target is named.", "Pass target=, the column that it predicts.")
        task = self.task(model)
        names = packaging.fitted_columns(model, inputs.train, target)
        labels = model.classes_.tolist() if task is None else None
        table = packaging.select_columns(inputs.train, [*names, target])
        inferred = infer_signature(table, target=target, task=task, labels=labels)
        signature = packaging.with_probabilities(
            self._with_texts(inferred, model), hasattr(model, "predict_proba")
        )
        train, asked, seen, unseen, notes = packaging.split_rows(signature, inputs)
        frame: FrameKind = packaging.frame_kind(train)
        if self.takes_texts(model):
            frame = "texts"
        elif fitted_names(model) is None:
            frame = "numpy"
        compiled = compile_model(model, signature, test=asked, train=train, frame=frame)
        described = packaging.describing_files(signature, compiled, seen, unseen, inputs)
        files = compiled.files | described
        # skops writes addresses and times.
        return PackageContents(files, signature, compiled, notes, unstable=(SKOPS_MODEL,))

    def task(self, model: Any) -> Literal["regression"] | None:
        """
        Return "regression" for a regressor; the task of a classifier follows from its labels.

        Raises:
            NotSupported: It is neither, was not fitted, or answers several targets.
        """
        from sklearn.base import is_classifier, is_regressor
        from sklearn.exceptions import NotFittedError
        from sklearn.utils.validation import check_is_fitted

        name = type(model).__name__
        if is_regressor(model):
            try:
                check_is_fitted(model)
                return "regression"
            except NotFittedError:
                pass
        elif is_classifier(model) and hasattr(model, "classes_"):
            return None
        raise NotSupported(
            f"{name} is neither a regressor nor a classifier that was fitted.",
            "Fit it first; clusterers and transformers cannot be registered.",
        )

    def own_importances(self, model: Any, table: Any) -> tuple[str, dict[str, float]] | None:
        """Add up the estimator's importances for each field."""
        from clewline.model.families.own_importances import own_importances

        return own_importances(model, table)

    def column_importances(self, model: Any) -> tuple[str, NDArray[np.float64]] | None:
        """Return the mean decrease in impurity of each column; only trees have it."""
        found = getattr(model, "feature_importances_", None)
        return None if found is None else ("impurity", np.asarray(found, dtype=np.float64))

    def text_columns(self, model: Any) -> list[str]:
        """Name the columns of a table that a model reads as texts."""
        return []

    def single_threaded(self, model: Any) -> Any:
        """
        Copy an estimator so that it works on one thread.

        With more, a forest adds up its trees in the order in which threads finish, and
        the last bits of a probability differ from call to call.
        """
        from clewline.model_families import family_of

        alone = copy.deepcopy(model)
        parameters = alone.get_params()
        jobs = {}
        for name in parameters:
            owner, _, parameter = name.rpartition("__")
            if parameter == "n_jobs":
                jobs[name] = getattr(family_of(parameters.get(owner, alone)), "threads", None)
        return alone.set_params(**jobs) if jobs else alone

    def predict(self, model: Any, frame: Any, signature: Signature) -> Outputs:
        """
        Answer a frame by an estimator, labels as indices into the signature's.

        Raises:
            NotSupported: It gives several answers for a row, or none.
        """
        output = signature.output
        if output.task == "regression":
            values = np.asarray(model.predict(frame), dtype=np.float64).reshape(-1)
            _require_one_each(values, frame)
            return Outputs(values=values)
        order = label_order(model.classes_, output)
        places = {plain_label(label): place for place, label in enumerate(output.labels or ())}
        labels, shares = self.labels_and_probabilities(model, frame)
        labels = np.asarray(labels).reshape(-1)
        _require_one_each(labels, frame)
        choices = np.array([places[plain_label(label)] for label in labels], dtype=np.int64)
        if shares is None:
            return Outputs(choices=choices)
        # Some answer one row with fewer dimensions, such as CatBoost behind a sparse PCA.
        shares = np.asarray(shares, dtype=np.float64).reshape(len(choices), -1)[:, order]
        return Outputs(choices=choices, probabilities=np.ascontiguousarray(shares))

    def labels_and_probabilities(self, model: Any, frame: Any) -> tuple[Any, Any | None]:
        """Answer a frame by a classifier."""
        labels = model.predict(frame)
        has_shares = hasattr(model, "predict_proba")
        return labels, model.predict_proba(frame) if has_shares else None

    def predictor(self, model: Any, signature: Signature, call: EstimatorCall) -> FunctionPredictor:
        """Return an estimator as a predictor."""

        def answer(columns: Columns) -> Outputs:
            frame = frame_of(columns, signature, call.layout)
            try:
                return self.predict(model, frame, signature)
            except refusal_errors() as error:
                raise InvalidInput(
                    f"The model refuses a row: {error}.",
                    "Send values of the kinds and levels that it was trained with.",
                ) from error

        return FunctionPredictor(answer, call.rows_per_call)

    def _with_texts(self, signature: Signature, model: Any) -> Signature:
        """Take as text what a vectorizer reads, however few different ones were seen."""
        every = [found.name for found in signature.fields] if self.takes_texts(model) else []
        read = {*every, *self.text_columns(model)}
        fields = tuple(
            Field(name=found.name, kind="text", nullable=found.nullable)
            if found.name in read and found.kind == "category"
            else found
            for found in signature.fields
        )
        if every and [found.kind for found in fields] != ["text"]:
            raise InvalidInput(
                f"The model takes one column of texts, but the training table has "
                f"{', '.join(every)} besides the target.",
                "Pass the table with that column and the target alone.",
            )
        return msgspec.structs.replace(signature, fields=fields)


def _require_one_each(answers: NDArray[Any], frame: Any) -> None:
    if len(answers) != len(frame):
        raise NotSupported(
            f"The model gives {len(answers)} answers for {len(frame)} rows.",
            "Register one model for each target.",
        )
