"""Model files that somebody brings, recognized by their content and never by their name."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from clewline.errors import IntegrityError, NotFound, NotSupported
from clewline.model.families.family import PackageContents, RegistrationInputs
from clewline.model.families.unsafe_files import UnsafeFile, unsafe_file
from clewline.model_families import families


def convert_path(path: Path, inputs: RegistrationInputs) -> PackageContents:
    """
    Read a file once, and make the files of a package.

    Raises:
        NotFound: It cannot be read.
        IntegrityError: It is not the pinned one.
        NotSupported, InvalidInput: As `convert_bytes`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error
    if pinned := inputs.options.get("origin"):
        require_sha256(data, pinned["sha256"], path.name)
    return convert_bytes(data, inputs, path.name)


def require_sha256(data: bytes, sha256: str, name: str) -> None:
    """
    Check that bytes have the pinned digest.

    Raises:
        IntegrityError: They do not; names both digests.
    """
    actual = hashlib.sha256(data).hexdigest()
    if actual != sha256:
        raise IntegrityError(
            f"{name} has the digest sha256:{actual}, not the pinned sha256:{sha256}.",
            "Find out why it changed. Pin the new digest only after you have checked the file.",
        )


def convert_bytes(data: bytes, inputs: RegistrationInputs, name: str) -> PackageContents:
    """
    Make the files of a package from the bytes of a model's file.

    Args:
        data: The file.
        inputs: Tables, signature and options.
        name: Of the file, for errors.

    Raises:
        InvalidInput: The table or the signature does not fit the model.
        NotSupported: The bytes are no model that can be loaded safely; says what they are.
    """
    family = family_of_file(data, name)
    found: PackageContents = family.convert_file(family.read(data, name), inputs, name)
    return found


def family_of_file(data: bytes, name: str) -> Any:
    """
    Return the family of a file.

    Raises:
        NotSupported: No family reads it; says what it is.
    """
    for family in families():
        if family.recognizes(data):
            return family
    found = unsafe_file(data) or UnsafeFile("neither an ONNX model nor a known library's booster")
    raise NotSupported(f"{name} is {found.what}.", found.fix)
