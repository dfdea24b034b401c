"""A model in a file that somebody brings: ONNX, or a booster in its library's own format."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

from clewline.errors import NotFound, NotSupported
from clewline.evaluation.boosters import Library
from clewline.model import origin
from clewline.model.kinds import formats
from clewline.model.kinds.booster_file import json_library
from clewline.model.kinds.kind import Contents, Given


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
        name = Path(model).name
        if pinned := given.options.get("origin"):
            origin.require_sha256(data, pinned["sha256"], name)
        return contents_of(data, given, name)


KIND = File()


def contents_of(data: bytes, given: Given, name: str) -> Contents:
    """
    Make the files of a package from the bytes of a model's file.

    Raises:
        InvalidInput: The table or the signature does not fit the model.
        NotSupported: The bytes are no model that is loaded safely; says what they are.
    """
    library = _library(data)
    if library is not None:
        return _booster(library, data, given, name)
    from clewline.model.kinds import onnx_file

    model = onnx_file.parsed(data)
    if model is None:
        raise not_supported(data, name)
    return onnx_file.contents_of(data, given, model)


def require_known(path: Path, name: str) -> None:
    """
    See that a file is one that `contents_of` reads, before it is kept anywhere.

    Raises:
        NotSupported: It is none; says what it is.
    """
    from clewline.model.kinds import onnx_file

    data = path.read_bytes()
    if _library(data) is None and onnx_file.parsed(data) is None:
        raise not_supported(data, name)


def not_supported(data: bytes, name: str) -> NotSupported:
    """Say what bytes are that hold no model which we load, and the way out."""
    found = formats.refused(data) or formats.Refused("no ONNX model and no booster that we know")
    return NotSupported(f"{name} is {found.what}.", found.fix)


def _library(data: bytes) -> Library | None:
    """Say whose own format the bytes are in; None for what is of none."""
    if data.startswith((b"tree\n", b"tree\r\n")):
        return "lightgbm"
    if data.startswith(b"CBM1"):
        return "catboost"
    if data.startswith(b"{L") or (data[:1] == b"{" and data[2:3] == b"\x00"):
        return "xgboost"  # UBJSON: the length of a key, whose type stands before it
    return json_library(data) if data.lstrip()[:1] == b"{" else None


def _booster(library: Library, data: bytes, given: Given, name: str) -> Contents:
    from clewline.evaluation.boosters import estimator_of
    from clewline.model.kinds import booster_file
    from clewline.model.kinds.estimator import KIND as ESTIMATOR
    from clewline.model.runtime.boosters import RUNTIMES
    from clewline.model.runtime.boosters import library as imported

    module = imported(library)
    try:
        booster = RUNTIMES[library].read(module, data)
    except Exception as error:  # each library has errors of its own, and a damaged file any
        raise NotSupported(f"{library} cannot read {name}: {str(error).strip()[:200]}.") from error
    model = estimator_of(booster)
    if given.signature is None and given.target is not None and given.train is not None:
        return ESTIMATOR.contents(model, given)
    return booster_file.contents_of(model, given, name)
