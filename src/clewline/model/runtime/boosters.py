"""LightGBM, XGBoost and CatBoost in their own formats, where no compiled form is equal."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from clewline.entry_points import install_command
from clewline.errors import IntegrityError, NotSupported
from clewline.evaluation.boosters import Boosted, Library
from clewline.flow.values.boosters import catboost_bytes
from clewline.model.runtime.sklearn import CALL, Call, SklearnPredictor
from clewline.signature.field import Signature


class BoosterCall(Call, frozen=True, omit_defaults=True):
    """How a booster is to be called: file `frame.json` beside the model."""

    classes: tuple[str | int | float | bool, ...] | None = None  # in its own order
    names: tuple[str, ...] | None = None  # of its columns


class BoosterRuntime:
    """Loads a booster from verified bytes, by its library's own reader."""

    name: str
    library: Library
    file: str

    def load(self, files: Mapping[str, bytes], signature: Signature) -> SklearnPredictor:
        """
        Load the booster.

        Raises:
            IntegrityError: A file is missing, or is not what it should be.
            NotSupported: The library is not installed.
        """
        if missing := {self.file, CALL} - set(files):
            raise IntegrityError(
                f"The package has no {', '.join(sorted(missing))}.", "Register the model again."
            )
        call = _call(files[CALL])
        module = library(self.name)
        try:
            booster = self.read(module, files[self.file])
        except Exception as error:  # each library has errors of its own, and a damaged file any
            raise IntegrityError(
                f"{self.file} cannot be read by {self.name}: {str(error).strip()[:200]}.",
                "Register the model again.",
            ) from error
        classes = None if call.classes is None else list(call.classes)
        names = None if call.names is None else list(call.names)
        boosted = Boosted(self.library, booster, classes, names)
        return SklearnPredictor(boosted, signature, call)

    def read(self, module: Any, data: bytes) -> Any:
        """Read the library's own format."""
        raise NotImplementedError


class LightGBMRuntime(BoosterRuntime):
    """LightGBM's text format."""

    name = library = "lightgbm"
    file = "model.txt"

    def read(self, module: Any, data: bytes) -> Any:
        """Read the text."""
        if not data.startswith(b"tree\n"):
            raise ValueError("it does not begin as a model does")
        return module.Booster(model_str=data.decode())


class XGBoostRuntime(BoosterRuntime):
    """XGBoost's UBJSON format."""

    name = library = "xgboost"
    file = "model.ubj"

    def read(self, module: Any, data: bytes) -> Any:
        """Read the UBJSON."""
        booster = module.Booster({"nthread": 1})
        booster.load_model(bytearray(data))
        return booster


class CatBoostRuntime(BoosterRuntime):
    """CatBoost's binary format."""

    name = library = "catboost"
    file = "model.cbm"

    def read(self, module: Any, data: bytes) -> Any:
        """Read the binary, or the JSON that CatBoost writes too and reads from files alone."""
        if data.startswith(b"CBM1"):
            return module.CatBoost().load_model(blob=data, format="cbm")
        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.json"
            path.write_bytes(data)
            return module.CatBoost().load_model(str(path), format="json")


RUNTIMES: dict[Library, BoosterRuntime] = {
    "lightgbm": LightGBMRuntime(),
    "xgboost": XGBoostRuntime(),
    "catboost": CatBoostRuntime(),
}


def library(name: str) -> Any:
    """
    Import an optional library.

    Raises:
        NotSupported: It is not installed; names the command that does it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise NotSupported(
            f"This model needs {name}, which is not installed.", install_command(name)
        ) from error


def saved(model: Boosted) -> bytes:
    """Write a booster in its library's own format; the same one gives the same bytes."""
    match model.library:
        case "lightgbm":
            text: str = model.booster.model_to_string()
            return text.encode()
        case "xgboost":
            return bytes(model.booster.save_raw("ubj"))
        case "catboost":
            return catboost_bytes(model.booster)


def _call(data: bytes) -> BoosterCall:
    try:
        return msgspec.json.decode(data, type=BoosterCall)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise IntegrityError(
            f"{CALL} cannot be read: {error}.", "Register the model again."
        ) from error
