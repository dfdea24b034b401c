"""
Models that are Python classes, loaded from the code and the files of their package.

The modules are made from the verified bytes, in a namespace of their own: nothing is
imported from the project that happens to lie around the server, and two versions of
one module live side by side.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Mapping
from typing import Any

from clewline.errors import ClewlineError, InvalidInput, ModelFailed
from clewline.flow.code.isolated_modules import IsolatedModules
from clewline.model.runtime.outputs import Outputs, join_outputs, take_rows
from clewline.model.runtime.python_files import GivenFiles
from clewline.model.runtime.python_requirements import other_versions
from clewline.model.runtime.python_rows import taken
from clewline.model.runtime.python_spec import Spec, decode
from clewline.signature import model_answers
from clewline.signature.columns import Columns
from clewline.signature.field import Output, Signature

logger = logging.getLogger(__name__)

_numbers = itertools.count(1)


class PythonRuntime:
    """Loads `python.json`, and the code and files that it names."""

    name = "python"

    def load(self, files: Mapping[str, bytes], signature: Signature) -> PythonPredictor:
        """
        Load the modules and make the object.

        Raises:
            IntegrityError: A file is missing, or is not what it should be.
            NotSupported: A library that it needs is not installed.
            ModelFailed: Its code, or its constructor, raised.
        """
        spec = decode(files)
        warnings = other_versions(spec.requirements, spec.name)
        for warning in warnings:
            logger.warning("%s", warning)
        given = GivenFiles(spec.files, files)
        modules = _modules(spec, files)
        try:
            model = made(spec, modules, given)
        except BaseException:
            modules.close()
            given.close()
            raise
        return PythonPredictor(model, spec, signature, modules, given, tuple(warnings))


class PythonPredictor:
    """A Python object behind the contract of `Predictor`."""

    def __init__(
        self,
        model: Any,
        spec: Spec,
        signature: Signature,
        modules: IsolatedModules,
        given: GivenFiles,
        warnings: tuple[str, ...],
    ) -> None:
        self.warnings = warnings
        self._model, self._spec, self._signature = model, spec, signature
        self._modules, self._given = modules, given

    def predict(self, columns: Columns) -> Outputs:
        """
        Answer rows.

        Raises:
            ModelFailed: The class raised, or answered what its signature does not say.
        """
        if self._model is None:
            raise RuntimeError("The predictor was closed.")
        size = self._spec.rows_per_call
        if size is None or len(columns) <= size:
            return self._answer(columns)
        pieces = [slice(i, i + size) for i in range(0, len(columns), size)]
        return join_outputs([self._answer(take_rows(columns, piece)) for piece in pieces])

    def close(self) -> None:
        """Let go of the object, its modules and its files."""
        if self._model is None:
            return
        closing = getattr(self._model, "close", None)
        self._model = None
        try:
            if callable(closing):
                closing()
        except Exception:
            logger.exception("%s: its close() raised", self._spec.name)
        self._modules.close()
        self._given.close()

    def _answer(self, columns: Columns) -> Outputs:
        spec = self._spec
        table = taken(columns, self._signature, spec.frame, spec.layout)
        return ask(self._model, table, self._signature.output, len(columns))


def ask(model: Any, table: Any, output: Output, rows: int) -> Outputs:
    """
    Answer a table or rows by a Python object.

    Args:
        model: Has `predict`, and may have `predict_proba` and `classes_`.
        table: What its `predict` takes.
        output: Of the signature.
        rows: How many there are.

    Raises:
        ModelFailed: It raised, or answered what the output does not say.
    """
    who = type(model).__name__
    order = tuple(getattr(model, "classes_", ()))
    said = _called(model, "predict", table)
    found = model_answers.read_answers(said, output, rows, who=who, labels=order)
    shares = found.probabilities
    if found.choices is not None and shares is None and hasattr(model, "predict_proba"):
        asked = _called(model, "predict_proba", table)
        shares = model_answers.read_probabilities(asked, output, rows, who=who, labels=order)
    return Outputs(found.choices, shares, found.values)


def _called(model: Any, method: str, table: Any) -> Any:
    try:
        return getattr(model, method)(table)
    except (InvalidInput, ModelFailed):
        raise  # it says itself what is wrong with a row, or with itself
    except Exception as error:
        logger.warning("%s.%s raised", type(model).__name__, method, exc_info=True)
        raise ModelFailed(
            f"{type(model).__name__}.{method} raised {type(error).__name__}.",
            "The server's log has the reason.",
        ) from error


def made(spec: Spec, modules: IsolatedModules, given: GivenFiles) -> Any:
    """Make the object of a package: its class, with the recorded arguments and the files."""
    try:
        found: Any = modules.module(spec.module)
        for part in spec.name.split("."):
            found = getattr(found, part)
        return found(**spec.arguments, **given.paths)
    except ClewlineError:
        raise
    except Exception as error:
        logger.warning("%s could not be made", spec.name, exc_info=True)
        raise ModelFailed(
            f"{spec.name} of {spec.module} cannot be made from its package: "
            f"{type(error).__name__}: {error}",
            "Is a library other than when it was registered, or does it need a file that was not "
            "declared with files=?",
        ) from error


def _modules(spec: Spec, files: Mapping[str, bytes]) -> IsolatedModules:
    name = f"clewline_model_{os.getpid()}_{next(_numbers)}"
    code = {path: files[part.file] for path, part in spec.code.items()}
    return IsolatedModules(name, code, shown="{path}@" + spec.code[spec.module].blake3[:8])
