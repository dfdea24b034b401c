"""Tables as families use them, and the files of a package that describe a model."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidInput
from clewline.model.compile.equivalence import CompiledModel
from clewline.model.families import profile
from clewline.model.families.family import (
    BACKGROUND,
    EQUALITY,
    PROFILE,
    SIGNATURE,
    TRAINING_SAMPLE,
    RegistrationInputs,
)
from clewline.model.families.profile import background_rows
from clewline.model.families.sample_file import SAMPLED, encode_sample, truth_of
from clewline.model.runtime.outputs import Outputs, Predictor
from clewline.model_families import family_named, fitted_names_among
from clewline.signature import dataframes
from clewline.signature.check import Checker
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Signature
from clewline.signature.infer import infer_signature
from clewline.signature.json_rows import NameSuggestions


def describing_files(
    signature: Signature,
    compiled: CompiledModel,
    train: Columns,
    test: Columns | None,
    inputs: RegistrationInputs,
) -> dict[str, bytes]:
    """
    Make the files of a package that describe its model.

    Args:
        signature: Of the model.
        compiled: The model as it will be served.
        train: Checked rows that it was trained on.
        test: Checked rows that it has not seen, or None.
        inputs: Has the training table, with the target.
    """
    found: dict[str, bytes] = {}
    if signature.output.task == "transform":  # nobody counts its output
        measured = profile.measure_profile(signature, train, None)
    else:
        predictor = family_named(compiled.runtime).load(compiled.files, signature)
        try:
            measured = profile.measure_profile(signature, train, predictor, test=test)
            if len(train) and inputs.sample_rows and signature.output.task in SAMPLED:
                truth = truth_of(inputs.train, inputs.target, signature.output)
                found[TRAINING_SAMPLE] = encode_sample(
                    signature, train, truth, predictor, rows=inputs.sample_rows
                )
        finally:
            predictor.close()
    return found | {
        SIGNATURE: json_of(signature),
        EQUALITY: json_of(compiled.equality),
        PROFILE: json_of(measured),
        BACKGROUND: json_of(background_rows(signature, train)),
    }


def json_of(value: Any) -> bytes:
    """Write a value as a file of a package."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def with_probabilities(signature: Signature, has_them: bool) -> Signature:
    """State whether a classifier gives probabilities with its labels."""
    output = signature.output
    if output.labels is None or output.has_probabilities == has_them:
        return signature
    output = msgspec.structs.replace(output, has_probabilities=has_them)
    return msgspec.structs.replace(signature, output=output)


def require_train(inputs: RegistrationInputs) -> None:
    """Raise InvalidInput unless a training table is given."""
    if inputs.train is None:
        raise InvalidInput(
            "No training table is given.", "Pass train=, the rows that the model was fitted on."
        )


def fitted_columns(model: Any, table: Any, target: str | None) -> list[str]:
    """
    Name the columns of a table that an estimator takes, in its order.

    Raises:
        InvalidInput: The table does not have just these columns besides the target.
    """
    present = [column for column in dataframes.open_table(table).columns if column != target]
    names = fitted_names_among(model, present)
    if names is None:
        count = getattr(model, "n_features_in_", len(present))
        if count != len(present):
            raise InvalidInput(
                f"The model was fitted on {count} columns, but the training table has "
                f"{len(present)} besides the target.",
                "Pass the table that it was fitted on, its columns in the same order.",
            )
        return present
    for name in names:
        if name not in present:
            raise InvalidInput(
                f"The model was fitted on a column {name!r}, which the training table does not "
                f"have{NameSuggestions(present).hint(name)}.",
                "Pass the table that it was fitted on.",
            )
    return names


def fields_of(table: Any, columns: list[str]) -> tuple[Field, ...]:
    """Infer the fields of columns of a table that holds no target."""
    helper = "\x00target" + "x" * max(map(len, columns), default=0)
    chosen = dataframes.open_table(table).select(columns).with_columns(nw.lit(0.5).alias(helper))
    return infer_signature(chosen.to_native(), target=helper, task="regression").fields


def select_columns(table: Any, columns: list[str]) -> Any:
    """Take columns of a table, in order; raises InvalidInput if one is missing."""
    opened = dataframes.open_table(table)
    for column in columns:
        dataframes.require_column(opened, column)
    return opened.select(columns).to_native()


def split_rows(
    signature: Signature, inputs: RegistrationInputs
) -> tuple[Any, Any, Columns, Columns | None, list[str]]:
    """
    Take the fields of a signature from the tables that are given.

    Test rows that an endpoint would refuse are left out: the training table never showed such.

    Returns:
        The training table; the table to compare on (the test table, or else the training
        table); the checked rows of the training table and, if it is given, of the test
        table; and sentences for the person who registers.
    """
    names = [field.name for field in signature.fields]
    checker = Checker(signature)
    train = select_columns(inputs.train, names)
    asked = train if inputs.test is None else select_columns(inputs.test, names)
    notes: list[str] = []
    try:
        checker.table(asked)
    except InvalidInput as error:
        refused = {problem.row for problem in error.fields}
        opened = dataframes.open_table(asked)
        if not refused or len(refused) >= len(opened):
            raise
        first = error.fields[0]
        notes = [
            f"{len(refused):,} of {len(opened):,} test rows were left out, because an endpoint "
            f"refuses them: row {first.row}, {first.field} {first.value!r} instead of "
            f"{first.expected}."
        ]
        kept = [row for row in range(len(opened)) if row not in refused]
        asked = opened[kept, :].to_native()
    test = None if inputs.test is None else checker.table(asked).columns
    return train, asked, checker.table(train).columns, test, notes


def no_rows(signature: Signature) -> Columns:
    """Return no rows of a signature."""
    tensors = {f.name: np.zeros((0, *(f.shape or ())), f.dtype) for f in signature.tensors}
    texts = np.empty((0, len(signature.textual)), dtype=object)
    return Columns(np.zeros((0, len(signature.numeric))), texts, tensors)


def frame_kind(table: Any) -> Literal["polars", "pandas"]:
    """Say of which library a table is."""
    pandas = sys.modules.get("pandas")
    return "pandas" if pandas is not None and isinstance(table, pandas.DataFrame) else "polars"


class LoadedEstimator:
    """
    A loaded model as an estimator, so that `cl.evaluate` asks it as it will be served.

    Args:
        predictor: The model; closed with this object.
        signature: Of the model.
        read: Turns a table into rows; by default as a request is checked.
    """

    def __init__(
        self,
        predictor: Predictor,
        signature: Signature,
        read: Callable[[Any], Columns] | None = None,
    ) -> None:
        self._predictor = predictor
        self._read = read or (lambda table: Checker(signature).table(table).columns)
        weakref.finalize(self, predictor.close)
        self.feature_names_in_ = [field.name for field in signature.fields]
        labels = signature.output.labels
        self.classes_ = None if labels is None else np.array(labels, dtype=object)
        if labels is not None and signature.output.has_probabilities:
            self.predict_proba = lambda table: self._outputs(table).probabilities

    def predict(self, table: Any) -> NDArray[Any]:
        """Return the value or the label of each row."""
        found = self._outputs(table)
        if self.classes_ is None:
            assert found.values is not None
            return found.values
        return np.asarray(self.classes_[found.choices])

    def _outputs(self, table: Any) -> Outputs:
        return self._predictor.predict(self._read(table))
