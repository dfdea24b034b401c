"""
Saves values into a blob store, and loads them.

What is stored comes back equal and with the same digest; a value that has no
safe format is refused when it is saved.
"""

from __future__ import annotations

import atexit
import enum
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath
from typing import Any, Protocol

import msgspec

from clewline.errors import IntegrityError, NotSupported
from clewline.flow.code import origin
from clewline.flow.code.snapshot import Snapshot
from clewline.flow.values import file_trees, json_values
from clewline.flow.values.canonical import CONTAINERS, LEAVES
from clewline.flow.values.content import Picture, digest, not_storable
from clewline.flow.values.formats import StoredForm, drawn_form, library_form, loader
from clewline.store.digest import Digest, digest_bytes
from clewline.store.records import Artifact

CHEAP_BYTES = 1 << 20
"""What is smaller is held against its logical digest whenever it is loaded."""


class ValueSource(file_trees.FileSource, Protocol):
    """The part of a blob store that loading needs."""


class ValueSink(file_trees.FileSink, Protocol):
    """The part of a blob store that saving needs."""


# ── save ────────────────────────────────────────────────────────────────────


def save(value: Any, blobs: ValueSink) -> Artifact:
    """
    Store a value.

    Returns:
        The artifact that stands for it, still to be recorded. Classes of the
        project in it are named in `meta["types"]`.

    Raises:
        NotStorable: It has no safe format; the error names the ways out.
        StoreFull, StoreReadOnly: As the blob store says.
    """
    if isinstance(value, PurePath):
        return save_path(Path(value), blobs)
    content = digest(value)
    form = form_of(value, blobs)
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


def save_path(path: Path, blobs: ValueSink) -> Artifact:
    """Store a file or a folder."""
    form, blob, piece, notes, size = file_trees.save_path(path, blobs)
    return Artifact(
        digest=digest_bytes(piece),
        kind=form,
        format=form,
        blob=blob,
        size_bytes=size,
        rows=None,
        columns=None,
        meta=notes,
        created=time.time(),
    )


def form_of(value: Any, blobs: ValueSink) -> StoredForm:
    """How a value is stored; its parts that are no JSON are stored on the way."""
    if type(value) in LEAVES or type(value) in CONTAINERS or json_values.is_object(type(value)):
        return drawn_form(value) if isinstance(value, Picture) else json_form(value, blobs)
    return library_form(value)


def json_form(value: Any, blobs: ValueSink) -> StoredForm:
    """A JSON value, with references to the parts that are none."""
    types: set[str] = set()

    def leaf(part: Any) -> dict[str, Any]:
        if type(part) in LEAVES or type(part) in CONTAINERS:
            raise not_storable(part)
        saved = save(part, blobs)
        return {json_values.TAG: "artifact", **msgspec.to_builtins(saved), "created": 0.0}

    data = json_values.encode(value, leaf)
    collect_types(value, types)
    meta = {"types": sorted(types)} if types else {}
    rows = len(value) if isinstance(value, list | dict) else None
    return StoredForm(kind="json", format="json", data=data, rows=rows, meta=meta)


def collect_types(value: Any, types: set[str]) -> None:
    """The classes of the project that a value holds objects of."""
    if isinstance(value, dict):
        for pair in value.items():
            collect_types(pair, types)
    elif isinstance(value, list | tuple | set | frozenset):
        for part in value:
            collect_types(part, types)
    elif type(value) not in LEAVES and json_values.is_object(type(value)):
        if origin.of_type(type(value)) == "own":
            types.add(json_values.path_of(type(value)))
        if not isinstance(value, enum.Enum):
            collect_types(list(json_values.object_fields(value).values()), types)


# ── load ────────────────────────────────────────────────────────────────────


def load(artifact: Artifact, blobs: ValueSource) -> Any:
    """
    The value that an artifact stands for.

    A file or folder is written under a temporary folder of this process; use
    `restore` to have it in a place of your own.

    Raises:
        IntegrityError: The bytes are not the value, or hold a type that is refused.
        NotSupported: A format that this version does not know.
        ClewlineError: As the blob store says, when the blob is missing or damaged.
    """
    if artifact.format in ("file", "tree"):
        target = temporary_folder() / str(artifact.meta.get("name") or artifact.digest)
        restore(artifact, blobs, target)
        return target
    data = blobs.get(artifact.blob)
    if artifact.format == "json":
        value = json_values.decode(data, lambda part: fetched(part, blobs))
    elif (load := loader(artifact.format)) is not None:
        value = load(data, artifact.meta)
    else:
        raise NotSupported(
            f"The artifact {artifact.digest[:12]} has the format {artifact.format!r}, which this "
            "version does not know.",
            "Read it with the clewline that wrote it, or a newer one.",
        )
    if len(data) <= CHEAP_BYTES and artifact.kind in ("table", "array", "json"):
        verify(value, artifact)
    return value


def restore(artifact: Artifact, blobs: ValueSource, target: Path) -> None:
    """
    Write a stored file or folder to a path.

    Raises:
        NotSupported: The artifact is something else.
    """
    if artifact.format == "tree":
        file_trees.restore_tree(file_trees.FileTree.decode(blobs.get(artifact.blob)), blobs, target)
    elif artifact.format == "file":
        executable = bool(artifact.meta.get("executable"))
        file_trees.restore_file(artifact.blob, executable, blobs, target)
    else:
        raise NotSupported(
            f"The artifact {artifact.digest[:12]} is a {artifact.kind}, no file or folder.",
            "Load it as a value.",
        )


def fetched(reference: dict[str, Any], blobs: ValueSource) -> Any:
    """A part of a JSON value that was stored by itself."""
    if reference[json_values.TAG] != "artifact":
        raise NotSupported(
            f"A stored value holds a {reference[json_values.TAG]!r}, which this version does not "
            "know.",
            "Read it with the clewline that wrote it, or a newer one.",
        )
    fields = {name: part for name, part in reference.items() if name != json_values.TAG}
    return load(msgspec.convert(fields, Artifact), blobs)


def verify(value: Any, artifact: Artifact) -> None:
    """Hold a loaded value against the digest that it is known by."""
    found = digest(value)
    if found != artifact.digest:
        raise IntegrityError(
            f"The {artifact.kind} {artifact.digest[:12]} was loaded as another value, "
            f"{found[:12]}.",
            "Run `clewline doctor`; then run the step again that made it.",
        )


INSIDE: dict[str, Callable[[bytes], Iterable[Digest]]] = {
    "tree": file_trees.tree_blobs,
    "json": file_trees.json_blobs,
    "snapshot": lambda data: Snapshot.decode(data).blobs(),
}
"""Format of a blob → the further blobs that such a blob needs."""

_folder: list[tempfile.TemporaryDirectory[str]] = []


def temporary_folder() -> Path:
    """A fresh folder that is removed when this process ends."""
    if not _folder:
        _folder.append(tempfile.TemporaryDirectory(prefix="clewline-"))
        atexit.register(_folder[0].cleanup)
    return Path(tempfile.mkdtemp(dir=_folder[0].name))
