"""A model in a file that somebody brings: ONNX, or a booster in its library's own format."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

from fairlead.errors import InvalidInput, NotFound, NotSupported
from fairlead.model.kinds.kind import Contents, Given

REFUSED = (
    (b"\x80", "a pickle, which runs code when it is loaded"),
    (b"PK\x03\x04", "a ZIP archive (PyTorch, Keras, skops): its model is not what we can serve"),
    (b"\x89HDF", "HDF5, which Keras saves"),
    (b"GGUF", "GGUF, which holds the weights of a language model"),
)
"""First bytes → what such a file is, and is refused for."""


class File:
    """A path."""

    name = "file"

    def claims(self, model: Any) -> bool:
        """Any path."""
        return isinstance(model, PurePath)

    def contents(self, model: Any, given: Given) -> Contents:
        """Read the file once, and go by what it holds, not by its name."""
        try:
            data = Path(model).read_bytes()
        except OSError as error:
            raise NotFound(
                f"{model} cannot be read: {error.strerror}.", "Check the path."
            ) from error
        return contents_of(data, given, str(Path(model).name))


KIND = File()


def contents_of(data: bytes, given: Given, name: str) -> Contents:
    """
    Make the files of a package from the bytes of a model's file.

    Raises:
        InvalidInput: The table or the signature does not fit the model.
        NotSupported: The bytes are no model that is loaded safely; says what they are.
    """
    for start, what in REFUSED:
        if data.startswith(start):
            raise NotSupported(
                f"{name} is {what}.",
                "Export the model to ONNX, or save a booster in its library's own format.",
            )
    library = _library(data)
    if library is None:
        from fairlead.model.kinds import onnx_file

        return onnx_file.contents_of(data, given)
    return _booster(library, data, given, name)


def _library(data: bytes) -> str | None:
    """Say whose own format the bytes are in; None for what can only be ONNX."""
    if data.startswith(b"tree\n"):
        return "lightgbm"
    if data.startswith(b"CBM1"):
        return "catboost"
    return "xgboost" if data.startswith(b"{") and b"learner" in data else None


def _booster(library: str, data: bytes, given: Given, name: str) -> Contents:
    from fairlead.evaluate.boosters import estimator_of
    from fairlead.model.kinds.estimator import KIND as ESTIMATOR
    from fairlead.model.runtime.boosters import RUNTIMES
    from fairlead.model.runtime.boosters import library as imported

    if given.train is None:
        raise InvalidInput(
            f"{name} is a model of {library}, which does not tell the kinds of its fields.",
            "Pass the training table and the target (--train FILE --target COLUMN).",
        )
    module = imported(library)
    try:
        booster = RUNTIMES[library].read(module, data)  # type: ignore[index]
    except Exception as error:  # each library has errors of its own, and a damaged file any
        raise NotSupported(f"{library} cannot read {name}: {str(error).strip()[:200]}.") from error
    return ESTIMATOR.contents(estimator_of(booster), given)
