"""The adapter of scikit-learn: estimators, pipelines, fitted preprocessing, and skops files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from zipfile import ZIP_DEFLATED

import msgspec

from clewline.errors import InvalidInput, NotSupported
from clewline.flow.code import origin
from clewline.model.families.estimators import CALL, SKOPS_MODEL, EstimatorCall, EstimatorFamily
from clewline.model.families.family import (
    FormBuilder,
    Levels,
    PackageContents,
    RegistrationInputs,
    decode_file,
    loaded_class,
    require_files,
)
from clewline.model.families.sklearn import lowering, pipelines, trees
from clewline.model.runtime.frames import frame_of
from clewline.model.runtime.outputs import FunctionTransformer, Outputs, columns_as_outputs
from clewline.model_families import family_of, refusal_errors
from clewline.signature.columns import Columns
from clewline.signature.field import Signature


class SklearnFamily(EstimatorFamily):
    """scikit-learn: models that are lowered, converted by skl2onnx, or kept as skops files."""

    name = "sklearn"
    title = "scikit-learn"
    packages = ("sklearn",)
    distributions = ("scikit-learn", "skl2onnx", "skops")
    file_name = SKOPS_MODEL
    version_attributes = ("_sklearn_version",)

    def detect(self, model: Any) -> bool:
        """Say whether an object of some other library speaks as an estimator does."""
        is_object = hasattr(model, "predict") and not isinstance(model, type)
        return is_object and origin.of_type(type(model)) != "own"

    def convert(self, model: Any, inputs: RegistrationInputs) -> PackageContents:
        """Convert an estimator or preprocessing; as `Family.convert`."""
        if hasattr(model, "transform") and not hasattr(model, "predict"):
            from clewline.model.families.sklearn.transform import convert_transform

            return convert_transform(model, inputs)
        if isinstance(getattr(model, "classes_", None), list):
            raise NotSupported(
                f"{type(model).__name__} answers several targets at once.",
                "Register one model for each target.",
            )
        return super().convert(model, inputs)

    def load(self, files: Mapping[str, bytes], signature: Signature) -> Any:
        """Load the estimator from skops, with our own list of trusted types."""
        from clewline.model.families.sklearn.skops_types import load_skops

        require_files(files, SKOPS_MODEL, CALL)
        call = decode_file(files, CALL, EstimatorCall)
        model: Any = load_skops(files[SKOPS_MODEL])
        if signature.output.task != "transform":
            return self.predictor(model, signature, call)
        from clewline.model.families.sklearn.transform import transformed_columns

        def change(columns: Columns) -> Columns:
            frame = frame_of(columns, signature, call.layout)
            try:
                return transformed_columns(model, frame, signature)
            except refusal_errors() as error:
                raise InvalidInput(
                    f"The preprocessing refuses a row: {error}.",
                    "Send values of the kinds and levels that it was fitted with.",
                ) from error

        return FunctionTransformer(change, call.rows_per_call)

    def predict(self, model: Any, frame: Any, signature: Signature) -> Outputs:
        """Answer a frame, or transform it."""
        if signature.output.task != "transform":
            return super().predict(model, frame, signature)
        from clewline.model.families.sklearn.transform import transformed_columns

        return columns_as_outputs(transformed_columns(model, frame, signature))

    def form_builders(self, original: Any) -> list[tuple[str, FormBuilder]]:
        """Return the forms to try: trees on raw fields, then what skl2onnx converts."""
        from clewline.model.compile import tree_form
        from clewline.model.families.sklearn import linear_text_form, skl2onnx_forms, transform

        if original.signature.output.task == "transform":
            return [(transform.LOWERED, transform.lowered_transforms)]
        if self.takes_texts(original.model):
            return [(linear_text_form.NAME, linear_text_form.linear_text_forms)]
        return [
            (tree_form.NAME, tree_form.tree_forms),
            (skl2onnx_forms.LOWERED, skl2onnx_forms.lowered_forms),
        ]

    def own_form(self, original: Any) -> Any:
        """Return the estimator as a skops file."""
        from skops.io import dumps
        from skops.io.exceptions import UnsupportedTypeException

        from clewline.model.compile.compiler import OwnForm
        from clewline.model.families.sklearn.skops_types import untrusted_parts, with_plain_parts

        model = with_plain_parts(original.model)
        try:
            data: Any = dumps(model, compression=ZIP_DEFLATED, compresslevel=1)
        except UnsupportedTypeException as error:
            raise NotSupported(
                f"skops cannot store the model: {error}", "Use another estimator in its place."
            ) from error
        except RecursionError as error:
            raise NotSupported(
                "skops cannot store the model: it refers to itself, as histogram boosting does "
                "after early stopping with scoring=None.",
                'Use scoring="loss" there, or another estimator in its place.',
            ) from error
        if refused := untrusted_parts(data):
            raise NotSupported(
                f"{type(original.model).__name__} holds types that are not loaded from a file: "
                f"{', '.join(refused)}.",
                "Use the libraries' own estimators, and no functions of your own inside the model; "
                "do that work in a step before.",
            )

        def files(rows_per_call: int | None) -> dict[str, bytes]:
            call = EstimatorCall(original.layout, rows_per_call)
            return {SKOPS_MODEL: data, CALL: msgspec.json.encode(call)}

        return OwnForm(self.title, self.name, files, ("scikit-learn", "skops"))

    def category_levels(self, model: Any, declared: Levels) -> Levels:
        """Return the levels as declared or as a booster numbers them, and what encoders know."""
        if not declared:
            return declared
        final, steps = pipelines.final_and_steps(model)
        family: Any = family_of(final)
        if family not in (None, self):
            declared = family.category_levels(final, declared)
        known = sorted(lowering.known_texts([final, *steps]))
        return {
            name: (*levels, *(text for text in known if text not in levels))
            for name, levels in declared.items()
        }

    def final_and_steps(self, model: Any) -> tuple[Any, list[Any]]:
        """Take a pipeline apart."""
        return pipelines.final_and_steps(model)

    def known_texts(self, steps: list[Any]) -> set[str]:
        """Return categories, fills and missing values that are strings."""
        return lowering.known_texts(steps)

    def lower(self, step: Any, columns: list[Any]) -> list[Any]:
        """Pass columns through a transformer, by its own arithmetic."""
        return lowering.lower(step, columns)

    def tree_ensemble(self, model: Any, *, exact_ties: bool, from_arrow: bool) -> Any:
        """Read the trees of a tree estimator."""
        return trees.tree_ensemble(model, exact_ties=exact_ties)

    def takes_texts(self, model: Any) -> bool:
        """Say whether a model begins with a vectorizer."""
        return pipelines.takes_texts(model)

    def text_columns(self, model: Any) -> list[str]:
        """Name the columns that vectorizers read."""
        return pipelines.text_columns(model)

    def stores(self, value: Any) -> bool:
        """Say whether a value is an estimator."""
        base = loaded_class("sklearn.base", "BaseEstimator")
        return base is not None and isinstance(value, base)

    def dump(self, value: Any) -> bytes:
        """Write an estimator as a skops file; as `Family.dump`."""
        from clewline.model.families.sklearn.skops_types import dump_skops

        return dump_skops(value)

    def restore(self, data: bytes) -> Any:
        """Load an estimator from a skops file."""
        from clewline.model.families.sklearn.skops_types import load_skops

        return load_skops(data)
