"""The adapter of calibrated models: a classifier of another family, and a map behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from clewline.errors import IntegrityError, InvalidInput
from clewline.model.families.calibrated_model.probability_map import ProbabilityMap
from clewline.model.families.calibrated_model.served_map import (
    SERVED_MAP,
    ServedMap,
    calibrated_predictor,
)
from clewline.model.families.estimators import EstimatorFamily
from clewline.model.families.family import (
    FormBuilder,
    PackageContents,
    RegistrationInputs,
    decode_file,
)
from clewline.model.runtime.outputs import Predictor
from clewline.model_families import family_named, fitted_names, value_family_of
from clewline.signature.field import Signature
from clewline.store.digest import Digest


class StoredCalibration(msgspec.Struct, frozen=True):
    """A calibrated model as it is stored between steps."""

    family: str  # of the classifier
    classifier: bytes
    probabilities: ProbabilityMap
    table: str
    rows: int


class CalibratedFamily(EstimatorFamily):
    """Classifiers with a map; everything else is asked of the classifier's own family."""

    name = "calibrated_model"
    title = "a calibrated model"
    value_format = "calibrated"

    def convert(self, model: Any, inputs: RegistrationInputs) -> PackageContents:
        """Convert the classifier with its map; as `Family.convert`."""
        require_other_rows(model, inputs.train, "The model was calibrated on the training rows.")
        found = super().convert(model, inputs)
        if inputs.test is None or not _is_same(model, inputs.test):
            return found
        note = (
            "The test rows are those that the model was calibrated on, so its metrics and its "
            "calibration look better than they are."
        )
        return replace(found, notes=[*found.notes, note])

    def task(self, model: Any) -> None:
        """Return None: calibrated models are classifiers."""

    def single_threaded(self, model: Any) -> Any:
        """Copy the model so that its classifier works on one thread."""
        from clewline.model.families.calibrated_model.model import CalibratedModel

        inner = model.family.single_threaded(model.estimator)
        return CalibratedModel(inner, model.probabilities, model.table, model.rows)

    def labels_and_probabilities(self, model: Any, frame: Any) -> tuple[Any, Any | None]:
        """Answer a frame; the classifier is asked once."""
        shares = model.predict_proba(frame)
        return model.classes_[shares.argmax(axis=1)], shares

    def form_builders(self, original: Any) -> list[tuple[str, FormBuilder]]:
        """Return the forms of the classifier, each with the map behind it."""
        from clewline.model.families.calibrated_model import forms

        return forms.builders(original)

    def own_form(self, original: Any) -> Any:
        """Return the classifier in its own form, and the map as a file beside it."""
        from clewline.model.compile.compiler import OwnForm
        from clewline.model.families.calibrated_model import forms

        inner = forms.inner_original(original)
        own = inner.family.own_form(inner)
        found = forms.served_map(original, own.runtime)

        def files(rows_per_call: int | None) -> dict[str, bytes]:
            return forms.with_map(own.files(rows_per_call), found, rows_per_call)

        return OwnForm(f"{own.title}, calibrated", self.name, files, own.distributions)

    def load(self, files: Mapping[str, bytes], signature: Signature) -> Predictor:
        """Load the classifier by its own family, and the map."""
        served = decode_file(files, SERVED_MAP, ServedMap)
        labels = len(signature.output.labels or ())
        if sorted(served.order) != list(range(labels)):
            raise IntegrityError(f"{SERVED_MAP} maps other labels.", "Register the model again.")
        own = {name: data for name, data in files.items() if name != SERVED_MAP}
        return calibrated_predictor(family_named(served.runtime).load(own, signature), served)

    def describe(self, model: Any) -> dict[str, str]:
        """Return the classifier's class and library, and the kind of map."""
        kind = str(type(model.probabilities).__struct_config__.tag)
        return {**model.family.describe(model.model), "calibrated": kind}

    # ── asked of the classifier ─────────────────────────────────────────────

    def fitted_names(self, model: Any) -> Iterable[str] | None:
        """Return the columns that the classifier was fitted on."""
        return fitted_names(model.estimator)

    def takes_texts(self, model: Any) -> bool:
        """Say whether the classifier takes texts."""
        return bool(model.family.takes_texts(model.estimator))

    def text_columns(self, model: Any) -> list[str]:
        """Name the columns that vectorizers of the classifier read."""
        found: list[str] = model.family.text_columns(model.estimator)
        return found

    def final_and_steps(self, model: Any) -> tuple[Any, list[Any]]:
        """Take the classifier apart."""
        found: tuple[Any, list[Any]] = model.family.final_and_steps(model.estimator)
        return found

    def fitted_tables(self, model: Any) -> tuple[Digest, ...]:
        """Return the digest of the table that the map was fitted on."""
        return (model.table,)

    # ── values between steps ────────────────────────────────────────────────

    def stores(self, value: Any) -> bool:
        """Say whether the classifier may be stored."""
        return value_family_of(value.model) is not None

    def state(self, value: Any) -> Any:
        """Return the classifier, the map and where it comes from."""
        stated = msgspec.json.encode(value.probabilities).decode()
        return {"classifier": value.model, "map": stated, "table": str(value.table)}

    def dump(self, value: Any) -> bytes:
        """Write the classifier as its own family does, with the map."""
        family = value_family_of(value.model)
        assert family is not None, "`stores` was asked"
        stored = StoredCalibration(
            family.name,
            family.dump(value.model),
            value.probabilities,
            str(value.table),
            value.rows,
        )
        return msgspec.msgpack.encode(stored)

    def restore(self, data: bytes) -> Any:
        """Load what `dump` wrote."""
        from clewline.model.families.calibrated_model.model import CalibratedModel

        try:
            stored = msgspec.msgpack.decode(data, type=StoredCalibration)
        except msgspec.MsgspecError as error:
            raise IntegrityError(f"The calibrated model cannot be read: {error}.") from error
        model = family_named(stored.family).restore(stored.classifier)
        table = Digest(stored.table)
        return CalibratedModel(model, stored.probabilities, table, stored.rows)


def require_other_rows(model: Any, table: Any, message: str) -> None:
    """Raise InvalidInput if a table is the one that a model was calibrated on."""
    if table is not None and _is_same(model, table):
        raise InvalidInput(
            message,
            "Its probabilities of these rows are too sure. Calibrate on rows that it has not seen: "
            "split off a part of the training table before you fit.",
        )


def _is_same(model: Any, table: Any) -> bool:
    from clewline.flow import values

    return bool(values.digest(table) == model.table)
