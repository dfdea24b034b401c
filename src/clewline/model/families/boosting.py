"""The base of families of boosters: trees in a format of their library's own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import ClewlineError, IntegrityError, NotSupported
from clewline.model.compile.candidate_forms import NotConvertible
from clewline.model.compile.trees import Link
from clewline.model.families.estimators import CALL, EstimatorCall, EstimatorFamily
from clewline.model.families.family import (
    READ_BYTES,
    READ_S,
    REGISTER_AGAIN,
    FileFields,
    FormBuilder,
    Levels,
    PackageContents,
    RegistrationInputs,
    decode_file,
    import_library,
    loaded_class,
    require_files,
)
from clewline.model.runtime.outputs import Predictor
from clewline.model_families import family_named, fitted_names
from clewline.signature.field import Signature

_READ = (
    "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, ({bytes}, {bytes})); "
    "resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); "
    "sys.path += [p for p in sys.argv[2:] if p not in sys.path]; "
    "from clewline.model_families import family_named; "
    "family_named(sys.argv[1]).try_file(sys.stdin.buffer.read())"
)


class BoosterCall(EstimatorCall, frozen=True, omit_defaults=True):
    """How a booster is called: file `frame.json` beside the model."""

    classes: tuple[str | int | float | bool, ...] | None = None  # in its own order
    names: tuple[str, ...] | None = None  # of its columns
    missing: float | None = None  # the number that counts as null besides NaN


class BoosterEstimator:
    """
    A bare booster in the shape of an estimator; each family has its own.

    Args:
        booster: The library's own object.
        classes: The labels in the order of its probabilities; None for a regressor.
        names: The columns that it was fitted on; None if they had no names.
        missing: The number that counts as null besides NaN; only some libraries have one.
    """

    model_family: str

    def __init__(
        self,
        booster: Any,
        classes: list[Any] | None,
        names: list[str] | None,
        missing: float | None = None,
    ) -> None:
        self.booster, self.missing = booster, missing
        self.classes_ = None if classes is None else np.array(classes)
        if names is not None:
            self.feature_names_in_ = names

    @property
    def n_features_in_(self) -> int:
        """How many columns it takes."""
        raise NotImplementedError

    def raw(self, table: Any) -> Any:
        """Answer a table as the library does: values, or probabilities."""
        raise NotImplementedError

    def predict(self, table: Any) -> NDArray[Any]:
        """Return the value or the label of each row, shape (n,)."""
        if self.classes_ is None:
            return np.asarray(self.raw(table), dtype=np.float64).reshape(-1)
        return self.labels_of(self.predict_proba(table))

    def labels_of(self, shares: NDArray[np.float64]) -> NDArray[Any]:
        """Return the labels that the library chooses by probabilities: 0.5 is the first of two."""
        assert self.classes_ is not None
        if shares.shape[1] > 2:
            return np.asarray(self.classes_[shares.argmax(axis=1)])
        return np.asarray(self.classes_[(shares[:, 1] > 0.5).astype(np.int64)])

    def predict_proba(self, table: Any) -> NDArray[np.float64]:
        """Return the probability of each label, shape (n, labels)."""
        found = np.asarray(self.raw(table))
        if found.ndim == 1:
            found = np.column_stack([1 - found, found])
        return found.astype(np.float64)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return no settings: those of a booster are part of it."""
        return {}


class BoosterFamily(EstimatorFamily):
    """The base of families of boosters."""

    file_name: str
    bare: tuple[tuple[str, str], ...]  # (module, class) of the library's own objects
    estimator: type[BoosterEstimator]
    memory_factor = 2  # measured: 0.7 to 1.9
    threads = 1
    takes_labels = True  # whether a bare booster may answer with other labels than its own
    links: ClassVar[dict[str, Link]]  # objective → how the sums of trees become answers
    binary_objectives: tuple[str, ...] = ()  # of bare boosters that answer probabilities
    multiclass_objectives: tuple[str, ...] = ()
    unsupported_objectives: tuple[str, ...]  # that give neither probabilities nor a value

    # ── what each library does its own way ──────────────────────────────────

    def booster_of(self, model: Any) -> Any:
        """Return the bare booster of an estimator, with the trees that it answers by."""
        raise NotImplementedError

    def wrap(self, booster: Any) -> BoosterEstimator:
        """Return a bare booster as an estimator; raises NotSupported if it gives no answers."""
        raise NotImplementedError

    def parse(self, library: Any, data: bytes) -> Any:
        """Read the library's own format into a bare booster."""
        raise NotImplementedError

    def serialize(self, booster: Any) -> bytes:
        """Write a bare booster in the library's own format; equal ones give equal bytes."""
        raise NotImplementedError

    def file_fields(self, model: Any, name: str) -> FileFields:
        """Return the fields that a booster's file describes."""
        raise NotImplementedError

    def known_categories(self, booster: Any, columns: list[str]) -> dict[str, list[Any]]:
        """Return the categories that a booster has numbers for, by column of `columns`."""
        return {}

    # ── what they share ─────────────────────────────────────────────────────

    def classes_of(self, objective: str, count: int) -> list[int] | None:
        """
        Return the labels of a bare booster by its objective; None for a regressor.

        Raises:
            NotSupported: The booster gives neither probabilities nor a value.
        """
        if not objective or objective in self.unsupported_objectives:
            raise NotSupported(
                f"A booster of {self.title} with the objective {objective or 'unknown'!r} gives "
                "neither probabilities nor a value.",
                "Train it to classify (with probabilities) or to regress.",
            )
        if objective in self.binary_objectives:
            return [0, 1]
        return list(range(count)) if objective in self.multiclass_objectives else None

    def link_of(self, objective: str) -> Link:
        """Return how sums become answers; raises NotConvertible if that cannot be converted."""
        if objective not in self.links:
            raise NotConvertible(
                f"{self.title} with the objective {objective!r} cannot be converted"
            )
        return self.links[objective]

    def is_bare(self, model: Any) -> bool:
        """Say whether a model is the library's own object, not an estimator around one."""
        return not isinstance(model, BoosterEstimator) and type(model).__name__ in (
            name for _, name in self.bare
        )

    def as_estimator(self, model: Any, table: Any = None, target: str = "") -> Any:
        """Wrap a bare booster."""
        return self.wrap(model) if self.is_bare(model) else model

    def task(self, model: Any) -> Literal["regression"] | None:
        """Return "regression" for a regressor."""
        if isinstance(model, BoosterEstimator):
            return "regression" if model.classes_ is None else None
        return super().task(model)

    def single_threaded(self, model: Any) -> Any:
        """Copy an estimator; a bare booster is asked on one thread anyway."""
        return model if isinstance(model, BoosterEstimator) else super().single_threaded(model)

    def labels_and_probabilities(self, model: Any, frame: Any) -> tuple[Any, Any | None]:
        """Answer a frame by a classifier; a bare one is asked once."""
        if not isinstance(model, BoosterEstimator):
            return super().labels_and_probabilities(model, frame)
        shares = model.predict_proba(frame)
        return model.labels_of(shares), shares

    def category_levels(self, model: Any, declared: Levels) -> Levels:
        """Return the levels that the booster has numbers for, and then those declared besides."""
        known = self.known_categories(self.booster_of(model), list(declared)) if declared else {}
        return {
            name: (*texts, *(level for level in levels if level not in texts))
            for name, levels in declared.items()
            for texts in [[each for each in known.get(name, ()) if isinstance(each, str)]]
        }

    def form_builders(self, original: Any) -> list[tuple[str, FormBuilder]]:
        """Return the one form: the trees on raw fields."""
        from clewline.model.compile import tree_form

        return [(tree_form.NAME, tree_form.tree_forms)]

    def own_form(self, original: Any) -> Any:
        """Return the booster in the library's own format."""
        from clewline.model.compile.compiler import OwnForm

        model = original.model
        classes = getattr(model, "classes_", None)
        names = fitted_names(model)
        data = self.serialize(self.booster_of(model))
        call = BoosterCall(
            original.layout,
            classes=None if classes is None else tuple(np.asarray(classes).tolist()),
            names=None if names is None else tuple(names),
            missing=self.missing_of(model),
        )

        def files(rows_per_call: int | None) -> dict[str, bytes]:
            said = msgspec.structs.replace(call, rows_per_call=rows_per_call)
            return {self.file_name: data, CALL: msgspec.json.encode(said)}

        return OwnForm(self.title, self.name, files, self.distributions)

    def missing_of(self, model: Any) -> float | None:
        """Return the number that a model takes for null besides NaN."""
        return None

    def load(self, files: Mapping[str, bytes], signature: Signature) -> Predictor:
        """Load the booster by its library's own reader; errors as of `Family.load`."""
        require_files(files, self.file_name, CALL)
        call = decode_file(files, CALL, BoosterCall)
        library = import_library(self.name)
        try:
            booster = self.parse(library, files[self.file_name])
        except Exception as error:  # each library has errors of its own, and a damaged file any
            raise IntegrityError(
                f"{self.file_name} cannot be read by {self.title}: {str(error).strip()[:200]}.",
                REGISTER_AGAIN,
            ) from error
        classes = None if call.classes is None else list(call.classes)
        names = None if call.names is None else list(call.names)
        model = self.estimator(booster, classes, names, call.missing)
        return self.predictor(model, signature, call)

    def read(self, data: bytes, name: str) -> BoosterEstimator:
        """Read a file of the library's own format, first in a process of its own."""
        library = import_library(self.name)
        self._read_apart(data, name)
        try:
            return self.wrap(self.parse(library, data))
        except ClewlineError:
            raise
        except Exception as error:  # each library has errors of its own, and a damaged file any
            raise NotSupported(
                f"{self.title} cannot read {name}: {str(error).strip()[:200]}."
            ) from error

    def try_file(self, data: bytes) -> None:
        """Read a file and let its booster answer one row, in a process that may crash."""
        try:
            model = self.wrap(self.parse(import_library(self.name), data))
            model.raw(np.zeros((1, model.n_features_in_)))
        except Exception:
            return  # the process that asked meets the same error, and reports it

    def _read_apart(self, data: bytes, name: str) -> None:
        """Let another process read the file first: native readers crash on damaged ones."""
        from clewline.model.isolation.process import library_folders

        code = _READ.format(bytes=READ_BYTES + 40 * len(data))
        command = [sys.executable, "-I", "-c", code, self.name, *library_folders()]
        try:
            done = subprocess.run(command, input=data, capture_output=True, timeout=READ_S)
        except subprocess.TimeoutExpired:
            raise NotSupported(
                f"{self.title} does not finish reading {name} within {READ_S} s.",
                "The file is damaged; save the model again.",
            ) from None
        if done.returncode:
            how = f"signal {-done.returncode}" if done.returncode < 0 else "an error"
            raise NotSupported(
                f"{self.title} cannot read {name}: its reader ended with {how}.",
                "The file is damaged; save the model again.",
            )

    def convert_file(self, model: Any, inputs: RegistrationInputs, name: str) -> PackageContents:
        """Make the files of a package; a table, a signature or the file gives the fields."""
        if inputs.signature is None and inputs.target is not None and inputs.train is not None:
            return self.convert(model, inputs)
        from clewline.model.families import booster_files

        return booster_files.convert(self, model, inputs, name)

    # ── values between steps ────────────────────────────────────────────────

    def stores(self, value: Any) -> bool:
        """Say whether a value is a booster of the library, or an estimator around one."""
        kinds = (loaded_class(*each) for each in (*self.bare, ("sklearn.base", "BaseEstimator")))
        return isinstance(value, tuple(kind for kind in kinds if kind is not None))

    def dump(self, value: Any) -> bytes:
        """Write a model as scikit-learn's are, its trees in the library's own format."""
        data: bytes = family_named("sklearn").dump(value)
        return data

    def restore(self, data: bytes) -> Any:
        """Load what `dump` wrote."""
        return family_named("sklearn").restore(data)
