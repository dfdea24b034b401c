"""`python.json`: what a package says of the Python class that it holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from clewline.errors import IntegrityError
from clewline.flow.code.frame_annotation import Frame
from clewline.model.runtime.frames import Layout
from clewline.store.digest import Digest, digest_bytes

SPEC = "python.json"


class Part(msgspec.Struct, frozen=True):
    """A file of the package that stands for a file of the project."""

    file: str
    blake3: Digest


class Declared(msgspec.Struct, frozen=True):
    """A file or a folder that the class is given; the one part of a file has its name."""

    is_folder: bool
    parts: dict[str, Part]  # path inside the folder, with `/` → part


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of `python.json`."""

    format: int = 1
    module: str  # path of the class's file in the project
    name: str  # of the class, qualified
    arguments: dict[str, Any]  # of its constructor, files left out
    frame: Frame  # what `predict` is given
    layout: Layout  # column types of the table that was seen at registration
    code: dict[str, Part]  # path in the project → part
    files: dict[str, Declared] = {}  # parameter of the constructor → file
    requirements: dict[str, str] = {}  # distribution → version at registration
    rows_per_call: int | None = None  # 1 where bits depend on the size of the batch
    deterministic: bool = True  # whether a row alone gave the same bits twice


def decode(files: Mapping[str, bytes]) -> Spec:
    """
    Read `python.json` and hold every file that it names against its digest.

    Raises:
        IntegrityError: A file is missing or not what it should be; names it.
    """
    if SPEC not in files:
        raise IntegrityError(f"The package has no {SPEC}.", _AGAIN)
    try:
        spec = msgspec.json.decode(files[SPEC], type=Spec)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise IntegrityError(f"{SPEC} cannot be read: {error}.", _AGAIN) from error
    for part in parts(spec):
        if part.file not in files:
            raise IntegrityError(f"The package has no {part.file}.", _AGAIN)
        if digest_bytes(files[part.file]) != part.blake3:
            raise IntegrityError(f"{part.file} is not the file that {SPEC} names.", _AGAIN)
    return spec


_AGAIN = "Register the model again."


def parts(spec: Spec) -> Iterator[Part]:
    """Give every part of the package that stands for a file of the project."""
    yield from spec.code.values()
    for declared in spec.files.values():
        yield from declared.parts.values()
