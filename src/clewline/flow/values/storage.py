"""
Save values into a blob store, and load them.

A loaded value equals the saved one and has the same digest. A value without a
safe format is refused when it is saved: nothing is ever loaded by pickle. Arrow and skops
return some values changed, so their bytes are loaded and compared before they are stored.

The logical content of a model is its settings and fitted state, of a figure its picture,
of an object of the project its fields, of a path the files there.
"""

from __future__ import annotations

import atexit
import enum
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

import msgspec

from clewline.errors import IntegrityError, NotStorable, NotSupported
from clewline.flow.code import origin
from clewline.flow.code.snapshot import Snapshot
from clewline.flow.values import file_trees, json_values
from clewline.flow.values.canonical import LEAVES, PLAIN_TYPES, CanonicalWalk
from clewline.flow.values.file_trees import FileSink
from clewline.flow.values.framing import (
    StoredForm,
    Undigestible,
    framed,
    joined,
    text_bytes,
    type_name,
)
from clewline.model_families import family_of_format, value_family_of
from clewline.store.blobs import BlobStore
from clewline.store.digest import Digest
from clewline.store.records import Artifact

WAYS_OUT = (
    "Return a table, an array, a JSON value, an estimator, a figure or a Path; "
    "or a dataclass or msgspec.Struct of a module of the project; "
    "or keep it out of the store with @cl.step(store_output=False)."
)

CHEAP_BYTES = 1 << 20
"""Smaller values are compared with their logical digest whenever they are loaded."""

INSIDE: dict[str, Callable[[bytes], Iterable[Digest]]] = {
    "tree": file_trees.tree_blobs,
    "json": file_trees.json_blobs,
    "snapshot": lambda data: Snapshot.decode(data).blobs(),
}
"""Format of a blob → the further blobs that such a blob needs."""

_folder: list[tempfile.TemporaryDirectory[str]] = []
"""The folder of the files that this process has loaded; removed when the process ends."""


class Picture(msgspec.Struct, frozen=True):
    """A figure as it was drawn."""

    media_type: str  # image/png
    data: bytes

    @property
    def piece(self) -> bytes:
        """The canonical piece."""
        return framed("picture", self.media_type.encode() + b" " + self.data)


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
    is_json = is_json and not isinstance(value, Picture)
    form = _json_form(value, blobs) if is_json else _stored_form(value, content)
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
        if not _folder:
            _folder.append(tempfile.TemporaryDirectory(prefix="clewline-"))
            atexit.register(_folder[0].cleanup)
        inside = Path(tempfile.mkdtemp(dir=_folder[0].name))
        target = inside / str(artifact.meta.get("name") or artifact.digest)
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


def in_canonical_layout(value: Any) -> Any:
    """Return a value as `load` would return it: an array in C order."""
    if type(value).__module__ != "numpy":
        return value
    from clewline.flow.values.arrays import in_c_order

    return in_c_order(value)


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


# Digests


def digest(value: Any) -> Digest:
    """
    Return the digest of a value's logical content.

    It does not depend on chunks, codes of categories, bytes under nulls, the
    bits of a NaN, memory layout, writer versions, processes or hash seeds.

    Raises:
        NotStorable: The value has no logical content that can be digested.
    """
    try:
        return _ValueWalk().digest(value)
    except Undigestible as error:
        raise not_storable(value, error) from error


def not_storable(value: Any, cause: Undigestible | None = None) -> NotStorable:
    """Return the error for a value without a safe format."""
    name = type_name(type(value))
    if name == "polars.lazyframe.frame.LazyFrame":
        return NotStorable("A LazyFrame is a plan, not a table.", "Return lazy.collect().")
    inner = f": {cause.value_type} {cause.reason}" if cause and cause.value_type != name else ""
    return NotStorable(f"A {name} has no safe format to be stored in{inner}.", WAYS_OUT)


class _ValueWalk(CanonicalWalk):
    """Canonical pieces of storable values."""

    def other(self, value: Any) -> bytes:
        if isinstance(value, PurePath):
            return file_trees.path_piece(Path(value))
        if json_values.is_object(type(value)):
            if isinstance(value, Picture):
                return value.piece
            # An object counts by its class's name and its fields, without the class's code.
            path = framed("class", json_values.path_of(type(value)).encode())
            if isinstance(value, enum.Enum):
                return joined("enum", (path, self.piece(value.name)))
            fields = self.named("fields", json_values.object_fields(value))
            return joined("object", (path, fields))
        if value_family_of(value) is not None:
            return joined("model", (_ModelWalk().piece(value),))
        if _is_figure(value):
            return _draw(value).piece
        raise self.refusal(value, "has no safe format to be stored in")


class _ModelWalk(CanonicalWalk):
    """Canonical pieces of an estimator's parts: its settings and its fitted state."""

    def _library(self, value: Any) -> bytes:
        name = type_name(type(value))
        if name.startswith("pandas.") and name.endswith("Index"):  # names of columns
            return self.piece(value.tolist())
        return (
            self.piece(int(value))
            if name in ("numpy.bool", "numpy.bool_")
            else super()._library(value)
        )

    def other(self, value: Any) -> bytes:
        if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
            home = getattr(value, "__module__", "builtins")  # `str.split` has none
            return framed("name", text_bytes(f"{home}:{value.__qualname__}"))
        family = value_family_of(value)
        if family is not None and (state := family.state(value)) is not None:
            return self.named(type_name(type(value)), state)
        return self.reduced(value)


def _is_figure(value: Any) -> bool:
    cls = getattr(sys.modules.get("matplotlib.figure"), "Figure", None)
    return cls is not None and isinstance(value, cls)


def _draw(figure: Any) -> Picture:
    """Draw a figure without metadata, so that equal pictures have equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return Picture("image/png", buffer.getvalue())


# Stored forms


def _stored_form(value: Any, content: Digest) -> StoredForm:
    """
    Return the stored form of an array, a table, a model, a figure or a picture.

    Raises:
        NotStorable: The value is none of these, or would come back with another digest.
    """
    library = type(value).__module__.partition(".")[0]
    form: StoredForm | None = None
    if library == "numpy":
        from clewline.flow.values.arrays import array_form

        form = array_form(value)
    elif library in ("polars", "pandas"):
        from clewline.flow.values.tables import table_form

        form = table_form(value)
    if form is not None:
        return _verified(value, form, content) if library == "pandas" else form
    if (family := value_family_of(value)) is not None:
        data, meta = family.dump(value), family.describe(value)
        form = StoredForm(kind="model", format=family.value_format, data=data, meta=meta)
        return _verified(value, form, content)
    if isinstance(value, Picture) or _is_figure(value):
        picture = value if isinstance(value, Picture) else _draw(value)
        meta = {"media_type": picture.media_type}
        return StoredForm(kind="figure", format="png", data=picture.data, meta=meta)
    raise not_storable(value)


def _verified(value: Any, form: StoredForm, content: Digest) -> StoredForm:
    """Return the form, after it was loaded and compared with the digest of the value."""
    name = type_name(type(value))
    try:
        load = loader(form.format)
        is_equal = load is not None and digest(load(form.data, form.meta)) == content
    except IntegrityError as error:
        raise NotStorable(f"The {name} cannot be read back: {error.message}", WAYS_OUT) from error
    if not is_equal:
        raise NotStorable(
            f"The {name} comes back changed from its format {form.format}.",
            "Columns or attributes of mixed Python objects do that: give each column one type. "
            + WAYS_OUT,
        )
    return form


def loader(name: str) -> Callable[[bytes, Mapping[str, Any]], Any] | None:
    """Return the loader of a format, from its bytes and notes; None if the format is unknown."""
    if name == "npy":
        from clewline.flow.values.arrays import load_array

        return load_array
    if name.startswith(("polars-", "pandas-")):
        from clewline.flow.values.tables import TABLE_LOADERS

        return TABLE_LOADERS.get(name)
    if name == "png":
        return lambda data, meta: Picture(str(meta.get("media_type", "image/png")), data)
    family = family_of_format(name)
    return None if family is None else lambda data, _: family.restore(data)
