"""
Save values into a blob store, and load them.

A loaded value equals the saved one and has the same digest. A value without a
safe format is refused when it is saved.
"""

from __future__ import annotations

import atexit
import enum
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath
from typing import Any

import msgspec

from clewline.errors import IntegrityError, NotSupported
from clewline.flow.code import origin
from clewline.flow.code.snapshot import Snapshot
from clewline.flow.values import file_trees, json_values
from clewline.flow.values.canonical import LEAVES, PLAIN_TYPES
from clewline.flow.values.file_trees import FileSink
from clewline.flow.values.formats import Picture, digest, loader, not_storable, stored_form
from clewline.flow.values.framing import StoredForm
from clewline.store.blobs import BlobStore
from clewline.store.digest import Digest
from clewline.store.records import Artifact

CHEAP_BYTES = 1 << 20
"""Smaller values are compared with their logical digest whenever they are loaded."""


def save(value: Any, blobs: FileSink) -> Artifact:
    """
    Store a value.

    Returns:
        The artifact that stands for it, still to be recorded. `meta["types"]` names the
        project's classes in it.

    Raises:
        NotStorable: The value has no safe format; the error names the ways out.
        NotFound: The value is a path where nothing is.
        StoreFull, StoreReadOnly: As the blob store says.
    """
    if isinstance(value, PurePath):
        return file_trees.save_path(Path(value), blobs)
    content = digest(value)
    is_json = type(value) in PLAIN_TYPES or json_values.is_object(type(value))
    if is_json and not isinstance(value, Picture):
        form = _json_form(value, blobs)
    else:
        form = stored_form(value)
    return Artifact(
        digest=content,
        kind=form.kind,
        format=form.format,
        blob=blobs.put(form.data),
        size_bytes=len(form.data),
        rows=form.rows,
        columns=form.columns,
        meta=form.meta,
        created=time.time(),
    )


def _json_form(value: Any, blobs: FileSink) -> StoredForm:
    """Return a JSON value, with references to parts that are not JSON and are stored apart."""

    def leaf(part: Any) -> dict[str, Any]:
        if type(part) in PLAIN_TYPES:
            raise not_storable(part)
        saved = save(part, blobs)
        return {json_values.TAG: "artifact", **msgspec.to_builtins(saved), "created": 0.0}

    data = json_values.encode(value, leaf)
    types: set[str] = set()
    _collect_types(value, types)
    meta = {"types": sorted(types)} if types else {}
    rows = len(value) if isinstance(value, list | dict) else None
    return StoredForm(kind="json", format="json", data=data, rows=rows, meta=meta)


def _collect_types(value: Any, types: set[str]) -> None:
    """Add the project's classes of which a value holds objects."""
    if isinstance(value, dict):
        for pair in value.items():
            _collect_types(pair, types)
    elif isinstance(value, list | tuple | set | frozenset):
        for part in value:
            _collect_types(part, types)
    elif type(value) not in LEAVES and json_values.is_object(type(value)):
        if origin.of_type(type(value)) == "own":
            types.add(json_values.path_of(type(value)))
        if not isinstance(value, enum.Enum):
            _collect_types(list(json_values.object_fields(value).values()), types)


def load(artifact: Artifact, blobs: BlobStore) -> Any:
    """
    Return the value that an artifact stands for.

    A file or folder is written under a temporary folder of this process; use
    `restore` to write it elsewhere.

    Raises:
        IntegrityError: The bytes are not the value, or hold a type that is refused.
        NotSupported: This version does not know the format.
        ClewlineError: As the blob store says, when the blob is missing or damaged.
    """
    if artifact.format in ("file", "tree"):
        target = _temporary_folder() / str(artifact.meta.get("name") or artifact.digest)
        restore(artifact, blobs, target)
        return target
    data = blobs.get(artifact.blob)
    if artifact.format == "json":
        value = json_values.decode(data, lambda part: _load_part(part, blobs))
    elif (load_format := loader(artifact.format)) is not None:
        value = load_format(data, artifact.meta)
    else:
        raise _unknown(f"The artifact {artifact.digest[:12]} has the format {artifact.format!r}")
    if len(data) <= CHEAP_BYTES and artifact.kind in ("table", "array", "json"):
        found = digest(value)
        if found != artifact.digest:
            raise IntegrityError(
                f"The {artifact.kind} {artifact.digest[:12]} was loaded as another value, "
                f"{found[:12]}.",
                "Run `clewline doctor`; then run the step again that made it.",
            )
    return value


def restore(artifact: Artifact, blobs: BlobStore, target: Path) -> None:
    """
    Write a stored file or folder to a path.

    Raises:
        NotSupported: The artifact is something else.
    """
    if artifact.format not in ("file", "tree"):
        raise NotSupported(
            f"The artifact {artifact.digest[:12]} is a {artifact.kind}, not a file or folder.",
            "Load it as a value.",
        )
    file_trees.restore_path(artifact, blobs, target)


def _load_part(reference: dict[str, Any], blobs: BlobStore) -> Any:
    """Load a part of a JSON value that was stored apart."""
    if reference[json_values.TAG] != "artifact":
        raise _unknown(f"A stored value holds a {reference[json_values.TAG]!r}")
    fields = {name: part for name, part in reference.items() if name != json_values.TAG}
    return load(msgspec.convert(fields, Artifact), blobs)


def _unknown(what: str) -> NotSupported:
    return NotSupported(
        f"{what}, which this version does not know.",
        "Read it with the clewline that wrote it, or a newer one.",
    )


INSIDE: dict[str, Callable[[bytes], Iterable[Digest]]] = {
    "tree": file_trees.tree_blobs,
    "json": file_trees.json_blobs,
    "snapshot": lambda data: Snapshot.decode(data).blobs(),
}
"""Format of a blob → the further blobs that such a blob needs."""

_folder: list[tempfile.TemporaryDirectory[str]] = []


def _temporary_folder() -> Path:
    """Return a fresh folder that is removed when this process ends."""
    if not _folder:
        _folder.append(tempfile.TemporaryDirectory(prefix="clewline-"))
        atexit.register(_folder[0].cleanup)
    return Path(tempfile.mkdtemp(dir=_folder[0].name))
