"""
The adapter of a model family: everything that clewline knows about one kind of model.

| verb | method |
|---|---|
| detect | `packages`, `detect`: whether a Python object is a model of the family |
| read | `recognizes`, `read`: a file that somebody brings |
| convert, verify | `convert`: the files of a package, compared with the original on the way |
| load | `load`: a `Predictor` or `Transformer` from the verified bytes of a package |
| predict | `predict`: the answers of the original model |
| describe | `describe`: class and library version, for people |

A family is offered under the entry-point group `clewline.families`, by the name that
manifests record. Importing the adapter imports no model library.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.entry_points import install_command
from clewline.errors import IntegrityError, NotSupported
from clewline.model.compile.candidate_forms import CandidateForm
from clewline.model.compile.equivalence import CompiledModel
from clewline.model.compile.trees import ServedTrees
from clewline.model.runtime.outputs import Outputs, Predictor, Transformer
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Signature
from clewline.store.digest import Digest

Decoded = TypeVar("Decoded")
Levels = dict[str, tuple[str, ...]]
"""Column → its levels, in the order of their numbers."""

FormBuilder = Callable[[Any, Columns], Iterator[CandidateForm]]
REGISTER_AGAIN = "Register the model again."
READ_S, READ_BYTES = 60, 4 << 30
"""Limits of the process that reads a foreign file first, in seconds and bytes of memory."""
SIGNATURE, EQUALITY = "signature.json", "equality.json"
PROFILE, BACKGROUND = "profile.json", "background.json"
EVALUATION = "evaluation.json"
TRAINING_SAMPLE = "training_sample.parquet"
CONFORMAL = "conformal.msgpack"
"""Files of a package that describe its model."""

ON_DEMAND = frozenset({CONFORMAL, EVALUATION, TRAINING_SAMPLE})
"""Files that are not read with a package, but when they are needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationInputs:
    """What is passed with a model that is to be registered."""

    train: Any  # the table that it was fitted on, with the target
    test: Any | None = None  # rows that it has not seen
    target: str | None = None  # the column that it predicts
    signature: Signature | None = None  # stated rather than inferred, for families that take it
    sample_rows: int = 10_000  # of the training sample, at most; 0: no sample
    options: dict[str, Any] = field(default_factory=dict)  # for single families


@dataclass(frozen=True, slots=True)
class PackageContents:
    """The files of a package, and what its manifest says of them."""

    files: dict[str, bytes]
    signature: Signature
    compiled: CompiledModel
    notes: list[str]  # for the person who registers
    unstable: tuple[str, ...] = ()
    """Files whose bytes differ each time they are written; the model's own digest stands in."""
    evaluated: Any = None  # the model that `cl.evaluate` asks, if it is not the registered object


@dataclass(frozen=True, slots=True)
class FileFields:
    """The fields that a booster's file describes."""

    fields: tuple[Field, ...] | None = None  # None: the file does not say
    levels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Levels of pandas categories, in the order of their codes."""


class Family:
    """
    The base of all adapters; its methods are those of a family that does nothing.

    Adapters have no state: any thread may call them.
    """

    name: str
    title: str  # for people, such as "LightGBM"
    packages: tuple[str, ...] = ()  # import names that the classes of its models come from
    distributions: tuple[str, ...] = ()  # whose versions a package records
    file_name: str | None = None  # of the package's file in the library's own format
    file_endings: tuple[str, ...] = ()  # of the files that it reads, where many lie in a folder
    value_format: str | None = None  # in which a model is stored between steps
    storable_types: tuple[str, ...] = ()  # of its models that may be stored between steps
    error_class: tuple[str, str] | None = None  # (module, class) that it raises for refused rows
    version_attributes: tuple[str, ...] = ()  # of models, that are no part of their content
    memory_factor: float | None = None  # bytes of memory for each byte of a loaded file
    concurrent = False  # whether several threads may call one predictor at once

    def detect(self, model: Any) -> bool:
        """Say whether an object that comes from none of any family's `packages` is of this one."""
        return False

    def recognizes(self, data: bytes) -> bool:
        """Say by their content whether bytes are a model file of this family."""
        return False

    def read(self, data: bytes, name: str) -> Any:
        """
        Read a model from the bytes of a file that somebody brings.

        Args:
            data: The file.
            name: Of the file, for errors.

        Raises:
            NotSupported: The library cannot read it, or is not installed.
        """
        raise NotImplementedError

    def convert(self, model: Any, inputs: RegistrationInputs) -> PackageContents:
        """
        Make the files of a package, and compare the model that they hold with the original.

        Raises:
            InvalidInput: A table lacks a column of the model's, or holds values of no kind.
            NotSupported: The model was not fitted, or has no safe form.
        """
        raise NotImplementedError

    def convert_file(self, model: Any, inputs: RegistrationInputs, name: str) -> PackageContents:
        """Make the files of a package from a model that `read` returned; as `convert`."""
        return self.convert(model, inputs)

    def load(self, files: Mapping[str, bytes], signature: Signature) -> Predictor | Transformer:
        """
        Load a model from the verified bytes of a package; never from a path, never by pickle.

        Returns:
            A transformer if the signature's task is "transform".

        Raises:
            IntegrityError: A file is missing, or is not what it should be.
            NotSupported: A library that the model needs is not installed.
        """
        raise NotImplementedError

    def predict(self, model: Any, frame: Any, signature: Signature) -> Outputs:
        """
        Answer a table by the model itself; raises one of `refusal_errors` if it refuses a row.
        """
        raise NotImplementedError

    def describe(self, model: Any) -> dict[str, str]:
        """Return the model's class, and the version of its library."""
        cls = type(model)
        library = self.packages[0]
        version = str(sys.modules[library].__version__)
        return {"class": f"{cls.__module__}.{cls.__qualname__}", library: version}

    # ── for converting ──────────────────────────────────────────────────────

    def form_builders(self, original: Any) -> list[tuple[str, FormBuilder]]:
        """Return the forms to try, the fastest first: a name, and what yields such forms."""
        return []

    def own_form(self, original: Any) -> Any:
        """Return the model in its library's own format; raises NotSupported if it has none."""
        raise NotImplementedError

    def single_threaded(self, model: Any) -> Any:
        """Return a copy of a model that works on one thread, so that its bits are repeatable."""
        return model

    def final_and_steps(self, model: Any) -> tuple[Any, list[Any]]:
        """Return the estimator that decides, and the transformers before it."""
        return model, []

    def known_texts(self, steps: list[Any]) -> set[str]:
        """Return the strings that fitted transformers know."""
        return set()

    def lower(self, step: Any, columns: list[Any]) -> list[Any]:
        """Pass columns through a transformer; raises NotConvertible if that cannot be done."""
        raise NotImplementedError

    def tree_ensemble(self, model: Any, *, exact_ties: bool, from_arrow: bool) -> Any:
        """
        Read the trees of a fitted estimator.

        Args:
            model: The estimator, without transformers.
            exact_ties: Add up both classes of a binary forest, not one and its complement.
            from_arrow: It is given Arrow or Polars tables.

        Raises:
            NotConvertible: It is no ensemble of trees, or has what cannot be converted.
        """
        raise NotImplementedError

    def served_trees(self, files: Mapping[str, bytes], signature: Signature) -> ServedTrees | None:
        """
        Read the trees of a package, so that its answers can be explained exactly.

        Returns:
            None if the model is no ensemble of trees, or its trees do not compare raw fields.

        Raises:
            IntegrityError: The files do not fit each other.
        """
        return None

    def fitted_tables(self, model: Any) -> tuple[Digest, ...]:
        """Return digests of the tables that a model was fitted on besides the training table."""
        return ()

    # ── for evaluating, and for values between steps ────────────────────────

    def as_estimator(self, model: Any, table: Any = None, target: str = "") -> Any:
        """
        Return a model in the shape of a scikit-learn estimator.

        Args:
            model: Of this family.
            table: Rows with the target, if the model is to be evaluated.
            target: The column that it predicts.
        """
        return model

    def own_importances(self, model: Any, table: Any) -> tuple[str, dict[str, float]] | None:
        """
        Return what a model says itself of its fields: the kind (impurity, gain, …) and shares.

        Args:
            model: Of this family.
            table: Rows with its fields, as narwhals opens them.
        """
        return None

    def column_importances(self, model: Any) -> tuple[str, NDArray[np.float64]] | None:
        """Return the importance of each column that an estimator without transformers reads."""
        return None

    def fitted_names(self, model: Any) -> Iterable[str] | None:
        """Return the columns that a model was fitted on; None if they had no names."""
        return getattr(model, "feature_names_in_", None)

    def category_levels(self, model: Any, declared: Levels) -> Levels:
        """
        Return the levels of category columns as the model knows them.

        The training table may declare fewer: it may be a part of what the model was fitted on.

        Args:
            model: A fitted model.
            declared: Column of the training table → the levels that its type declares.
        """
        return declared

    def takes_texts(self, model: Any) -> bool:
        """Say whether a model takes a list of strings instead of a table."""
        return False

    def refusal_errors(self) -> tuple[type[Exception], ...]:
        """Return the library's exceptions for refused rows; none while it is not imported."""
        found = loaded_class(*self.error_class) if self.error_class else None
        return () if found is None else (found,)

    def stores(self, value: Any) -> bool:
        """Say whether a model of this family may be stored between steps."""
        return False

    def dump(self, value: Any) -> bytes:
        """Write a model in `value_format`; raises NotStorable if it would not be loaded."""
        raise NotImplementedError

    def restore(self, data: bytes) -> Any:
        """Load what `dump` wrote; raises IntegrityError if it holds what is not trusted."""
        raise NotImplementedError

    def state(self, value: Any) -> Any | None:
        """Return what a model's digest is computed from; None: what its library would pickle."""
        return None


def require_files(files: Mapping[str, bytes], *names: str) -> None:
    """
    Check that a package has files.

    Raises:
        IntegrityError: One is missing.
    """
    if missing := set(names) - set(files):
        raise IntegrityError(f"The package has no {', '.join(sorted(missing))}.", REGISTER_AGAIN)


def decode_file(files: Mapping[str, bytes], name: str, kind: type[Decoded]) -> Decoded:
    """
    Decode a JSON file of a package.

    Raises:
        IntegrityError: It is missing, or does not hold what it should.
    """
    require_files(files, name)
    try:
        return msgspec.json.decode(files[name], type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise IntegrityError(f"{name} cannot be read: {error}.", REGISTER_AGAIN) from error


def import_library(name: str) -> Any:
    """
    Import an optional library.

    Raises:
        NotSupported: It is not installed; names the command that installs it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise NotSupported(
            f"This model needs {name}, which is not installed.", install_command(name)
        ) from error


def loaded_class(module: str, name: str) -> Any | None:
    """Return a class of a module that is imported already; None if it is not."""
    return getattr(sys.modules.get(module), name, None)


def json_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object that bytes hold; an empty one if they hold none."""
    if data.lstrip()[:1] != b"{":
        return {}
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
