"""
Models that are Python classes, loaded from the code and the files of their package.

The modules are made from the verified bytes, in a namespace of their own: nothing is
imported from the project that happens to lie around the server, and two versions of
one module live side by side.
"""

from __future__ import annotations

import datetime as dt
import itertools
import logging
import math
import os
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from clewline.entry_points import install_line
from clewline.errors import (
    ClewlineError,
    IntegrityError,
    InvalidInput,
    ModelFailed,
    NotSupported,
)
from clewline.flow.code.isolated_modules import IsolatedModules
from clewline.model.families.python_class.spec import DeclaredFiles, PythonSpec, decode_spec
from clewline.model.runtime.frames import TableLayout, frame_of
from clewline.model.runtime.outputs import FunctionPredictor, Outputs
from clewline.model.runtime.private_folder import PrivateFolder
from clewline.signature import model_answers
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Output, Signature
from clewline.signature.frame_annotation import Frame

logger = logging.getLogger(__name__)

_numbers = itertools.count(1)


def load_python(files: Mapping[str, bytes], signature: Signature) -> FunctionPredictor:
    """
    Load the modules of a package and make the object.

    Raises:
        IntegrityError: A file is missing, or is not what it should be.
        NotSupported: A library that it needs is not installed.
        ModelFailed: Its code, or its constructor, raised.
    """
    spec = decode_spec(files)
    warnings = other_versions(spec.requirements, spec.name)
    for warning in warnings:
        logger.warning("%s", warning)
    folder = WrittenFiles(spec.files, files)
    name = f"clewline_model_{os.getpid()}_{next(_numbers)}"
    code = {path: files[part.file] for path, part in spec.code.items()}
    modules = IsolatedModules(name, code, shown="{path}@" + spec.code[spec.module].blake3[:8])

    def let_go() -> None:
        modules.close()
        folder.close()

    try:
        model = construct(spec, modules, folder)
    except BaseException:
        let_go()
        raise

    def answer(columns: Columns) -> Outputs:
        table = model_input(columns, signature, spec.frame, spec.layout)
        return call_model(model, table, signature.output, len(columns))

    def close() -> None:
        try:
            if callable(closing := getattr(model, "close", None)):
                closing()
        except Exception:
            logger.exception("%s: its close() raised", spec.name)
        let_go()

    return FunctionPredictor(answer, spec.rows_per_call, close, tuple(warnings))


def other_versions(required: Mapping[str, str], who: str) -> list[str]:
    """
    Compare requirements with what is installed.

    Args:
        required: Distribution → version at registration.
        who: Needs them.

    Returns:
        A sentence for each that is installed in another version.

    Raises:
        NotSupported: One is not installed; names the command that installs what is missing.
    """
    found: dict[str, str | None] = {}
    for name in required:  # asked one by one, so that loading is fast
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    missing = [f"{name}=={required[name]}" for name, here in found.items() if here is None]
    if missing:
        raise NotSupported(
            f"{who} needs {', '.join(missing)}, which is not installed.",
            install_line(missing),
        )
    return [
        f"{who} was registered with {name} {required[name]}, and {here} is installed."
        for name, here in found.items()
        if here != required[name]
    ]


def call_model(
    model: Any,
    table: Any,
    output: Output,
    rows: int,
    call: Callable[[Any, str, Any], Any] | None = None,
) -> Outputs:
    """
    Answer a table or rows by a Python object.

    Args:
        model: Has `predict`, and may have `predict_proba` and `classes_`.
        table: What its `predict` takes.
        output: Of the signature.
        rows: How many there are.
        call: Calls a method of the model; by default its exceptions become `ModelFailed`.

    Raises:
        ModelFailed: It raised, or answered what the output does not say.
    """
    who, call = type(model).__name__, call or _call
    order = tuple(getattr(model, "classes_", ()))
    said = call(model, "predict", table)
    found = model_answers.read_answers(said, output, rows, who=who, labels=order)
    shares = found.probabilities
    if found.choices is not None and shares is None and hasattr(model, "predict_proba"):
        asked = call(model, "predict_proba", table)
        shares = model_answers.read_probabilities(asked, output, rows, who=who, labels=order)
    return Outputs(found.choices, shares, found.values)


def _call(model: Any, method: str, table: Any) -> Any:
    try:
        return getattr(model, method)(table)
    except (InvalidInput, ModelFailed):
        raise  # the model itself says what is wrong
    except Exception as error:
        logger.warning("%s.%s raised", type(model).__name__, method, exc_info=True)
        raise ModelFailed(
            f"{type(model).__name__}.{method} raised {type(error).__name__}.",
            "The server's log has the reason.",
        ) from error


def construct(spec: PythonSpec, modules: IsolatedModules, folder: WrittenFiles) -> Any:
    """Make the object of a package: its class, with the recorded arguments and the files."""
    try:
        found: Any = modules.module(spec.module)
        for part in spec.name.split("."):
            found = getattr(found, part)
        return found(**spec.arguments, **folder.paths)
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


class WrittenFiles:
    """
    The files that a Python model is given: read-only copies in a private folder, until `close`.

    Args:
        declared: Name → file or folder.
        files: Of the package.

    Raises:
        IntegrityError: A path leads out of its folder.
    """

    def __init__(self, declared: Mapping[str, DeclaredFiles], files: Mapping[str, bytes]) -> None:
        self.paths: dict[str, Path] = {}
        self._folder = PrivateFolder() if declared else None
        try:
            for name, given in declared.items():
                self.paths[name] = self._write(name, given, files)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Delete them."""
        if self._folder is not None:
            self._folder.close()
        self._folder = None

    def _write(self, name: str, given: DeclaredFiles, files: Mapping[str, bytes]) -> Path:
        assert self._folder is not None
        home = self._folder.path / name
        for path, part in given.parts.items():
            target = home / path
            if not target.resolve().is_relative_to(self._folder.path.resolve()):
                raise IntegrityError(
                    f"The file {path!r} of {name!r} leads out of its folder.",
                    "The package was not made by clewline: do not use it.",
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(files[part.file])
            target.chmod(0o400)
        if given.is_folder:
            home.mkdir(exist_ok=True)
            return home
        return home / next(iter(given.parts))


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def model_input(columns: Columns, signature: Signature, frame: Frame, layout: TableLayout) -> Any:
    """Make what `predict` takes of checked rows."""
    if frame == "rows":
        return dicts_of(columns, signature)
    return frame_of(columns, signature, layout)


def dicts_of(columns: Columns, signature: Signature) -> list[dict[str, Any]]:
    """
    Make a dict of every row, in the order of the signature's fields.

    Integers are ints, booleans bools, datetimes of UTC, tensors arrays; null is None.
    """
    values: dict[str, list[Any]] = {}
    for place, field in enumerate(signature.numeric):
        column = columns.numbers[:, place].tolist()
        values[field.name] = [
            None if math.isnan(cell) else _quantity(field, cell) for cell in column
        ]
    for place, field in enumerate(signature.textual):
        values[field.name] = columns.texts[:, place].tolist()
    for field in signature.tensors:
        values[field.name] = list(columns.tensors[field.name])
    names = [field.name for field in signature.fields]
    cells = zip(*(values[name] for name in names), strict=True)
    return [dict(zip(names, row, strict=True)) for row in cells]


def _quantity(field: Field, value: float) -> Any:
    if field.kind == "datetime":
        return _EPOCH + dt.timedelta(microseconds=int(value))
    if field.kind == "boolean":
        return bool(value)
    if field.kind == "integer" and value.is_integer():
        return int(value)
    return value
