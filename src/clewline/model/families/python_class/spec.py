"""`python.json`: what a package says of the Python class that it holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from clewline.errors import IntegrityError
from clewline.model.families.family import REGISTER_AGAIN, decode_file, require_files
from clewline.model.runtime.frames import TableLayout
from clewline.signature.frame_annotation import Frame
from clewline.store.digest import Digest, digest_bytes

SPEC = "python.json"


class PackagedFile(msgspec.Struct, frozen=True):
    """A file of the package that stands for a file of the project."""

    file: str
    blake3: Digest


class DeclaredFiles(msgspec.Struct, frozen=True):
    """A file or a folder that the class is given; the one part of a file has its name."""

    is_folder: bool
    parts: dict[str, PackagedFile]  # path inside the folder, with `/` → part


class PythonSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of `python.json`."""

    format: int = 1
    module: str  # path of the class's file in the project
    name: str  # of the class, qualified
    arguments: dict[str, Any]  # of its constructor, files left out
    frame: Frame  # what `predict` is given
    layout: TableLayout  # column types of the table that was seen at registration
    code: dict[str, PackagedFile]  # path in the project → part
    files: dict[str, DeclaredFiles] = {}  # parameter of the constructor → file
    requirements: dict[str, str] = {}  # distribution → version at registration
    rows_per_call: int | None = None  # 1 where bits depend on the size of the batch
    deterministic: bool = True  # whether a row alone gave the same bits twice


def decode_spec(files: Mapping[str, bytes]) -> PythonSpec:
    """
    Read `python.json` and compare every file that it names with its digest.

    Raises:
        IntegrityError: A file is missing or not what it should be; names it.
    """
    spec = decode_file(files, SPEC, PythonSpec)
    declared = (part for each in spec.files.values() for part in each.parts.values())
    for part in (*spec.code.values(), *declared):
        require_files(files, part.file)
        if digest_bytes(files[part.file]) != part.blake3:
            raise IntegrityError(f"{part.file} is not the file that {SPEC} names.", REGISTER_AGAIN)
    return spec


def with_spec(spec: PythonSpec, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return all files of the model, including `python.json`."""
    return {SPEC: msgspec.json.format(msgspec.json.encode(spec), indent=1) + b"\n", **files}
