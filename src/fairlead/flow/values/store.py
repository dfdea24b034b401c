"""
Values between steps: their logical digest, and how they are stored and loaded.

What is stored comes back equal and with the same digest. Nothing is ever loaded
by pickle; a value that has no safe format is refused when it is saved.
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
from typing import Any, Protocol

import msgspec

from fairlead.errors import IntegrityError, NotStorable, NotSupported
from fairlead.flow.code import origin
from fairlead.flow.code.snapshot import Snapshot
from fairlead.flow.values import files, plain
from fairlead.flow.values.canonical import CONTAINERS, LEAVES, Canonical
from fairlead.flow.values.pieces import Undigestible, framed, joined, text_bytes, type_name
from fairlead.store.digest import Digest, digest_bytes
from fairlead.store.records import Artifact

CHEAP_BYTES = 1 << 20
"""What is smaller is held against its logical digest whenever it is loaded."""

WAYS_OUT = (
    "Return a table, an array, a JSON value, a scikit-learn estimator, a figure or a Path; "
    "or a dataclass or msgspec.Struct of a module of the project; "
    "or keep it out of the store with @fl.step(store_output=False)."
)


COLUMN_WAYS_OUT = (
    "Give each column one type with `astype`, and all column names of one type; "
    "or keep the table out of the store with @fl.step(store_output=False)."
)


class ValueSource(files.FileSource, Protocol):
    """The part of a blob store that loading needs."""


class ValueSink(files.FileSink, Protocol):
    """The part of a blob store that saving needs."""


class Picture(msgspec.Struct, frozen=True):
    """A figure as it was drawn."""

    media_type: str  # image/png
    data: bytes


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """How a value is stored."""

    kind: str
    format: str
    data: bytes
    rows: int | None = None
    columns: int | None = None
    meta: dict[str, Any] = {}


# ── digest ──────────────────────────────────────────────────────────────────


def digest(value: Any) -> Digest:
    """
    The digest of a value's logical content.

    It does not depend on chunks, codes of categories, what lies under nulls, the
    bits of a NaN, memory layout, writer versions, processes or hash seeds.

    Raises:
        NotStorable: The value has no logical content that we know how to tell.
    """
    try:
        return ValueWalk().digest(value)
    except Undigestible as error:
        raise not_storable(value, error) from error


class ValueWalk(Canonical):
    """Canonical pieces of storable values."""

    def other(self, value: Any) -> bytes:
        """The piece of a path, an object of the project, a model or a figure."""
        if isinstance(value, PurePath):
            return files.path_piece(Path(value))
        if plain.is_object(type(value)):
            return self.fields(value)
        if is_model(value):
            return joined("model", (ModelWalk().piece(value),))
        if is_figure(value):
            return picture_piece(drawn(value))
        raise self.refusal(value, "has no safe format to be stored in")

    def fields(self, value: Any) -> bytes:
        """An object by its class's name and its fields; the code of the class is no content."""
        if isinstance(value, Picture):
            return picture_piece(value)
        path = framed("class", plain.path_of(type(value)).encode())
        if isinstance(value, enum.Enum):
            return joined("enum", (path, self.piece(value.name)))
        return joined("object", (path, self.named("fields", plain.object_fields(value))))


class ModelWalk(Canonical):
    """Canonical pieces of what an estimator is made of: its settings and its fitted state."""

    def other(self, value: Any) -> bytes:
        """The piece of a part: code by its name, an object by its attributes."""
        if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
            return framed("name", text_bytes(f"{value.__module__}:{value.__qualname__}"))
        return self.reduced(value)


def picture_piece(picture: Picture) -> bytes:
    """The canonical piece of a figure as it was drawn."""
    return framed("picture", picture.media_type.encode() + b" " + picture.data)


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
    form, blob, piece, notes, size = files.save_path(path, blobs)
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


def form_of(value: Any, blobs: ValueSink) -> Form:
    """How a value is stored; its parts that are no JSON are stored on the way."""
    if type(value) in LEAVES or type(value) in CONTAINERS or plain.is_object(type(value)):
        return drawn_form(value) if isinstance(value, Picture) else json_form(value, blobs)
    library = type(value).__module__.partition(".")[0]
    if library in LIBRARIES and (form := LIBRARIES[library](value)) is not None:
        return form
    if is_model(value):
        return model_form(value)
    if is_figure(value):
        return drawn_form(drawn(value))
    raise not_storable(value)


def json_form(value: Any, blobs: ValueSink) -> Form:
    """A JSON value, with references to the parts that are none."""
    types: set[str] = set()

    def leaf(part: Any) -> dict[str, Any]:
        if type(part) in LEAVES or type(part) in CONTAINERS:
            raise not_storable(part)
        saved = save(part, blobs)
        return {plain.TAG: "artifact", **msgspec.to_builtins(saved), "created": 0.0}

    data = plain.encode(value, leaf)
    collect_types(value, types)
    meta = {"types": sorted(types)} if types else {}
    rows = len(value) if isinstance(value, list | dict) else None
    return Form(kind="json", format="json", data=data, rows=rows, meta=meta)


def collect_types(value: Any, types: set[str]) -> None:
    """The classes of the project that a value holds objects of."""
    if isinstance(value, dict):
        for pair in value.items():
            collect_types(pair, types)
    elif isinstance(value, list | tuple | set | frozenset):
        for part in value:
            collect_types(part, types)
    elif type(value) not in LEAVES and plain.is_object(type(value)):
        if origin.of_type(type(value)) == "own":
            types.add(plain.path_of(type(value)))
        if not isinstance(value, enum.Enum):
            collect_types(list(plain.object_fields(value).values()), types)


def numpy_form(value: Any) -> Form | None:
    """An array or a scalar of NumPy."""
    import numpy as np

    from fairlead.flow.values.arrays import is_storable, save_array

    if not is_storable(value):
        return None
    shape: tuple[int, ...] = value.shape
    return Form(
        kind="array",
        format="npy",
        data=save_array(value),
        rows=shape[0] if shape else None,
        columns=shape[1] if len(shape) > 1 else None,
        meta={"scalar": True} if isinstance(value, np.generic) else {},
    )


def polars_form(value: Any) -> Form | None:
    """A frame or a series of Polars."""
    from fairlead.flow.values.tables import save_polars

    name = type(value).__name__
    if name not in ("DataFrame", "Series"):
        return None
    frame = value if name == "DataFrame" else value.to_frame()
    return Form(
        kind="table",
        format="polars-ipc" if name == "DataFrame" else "polars-series-ipc",
        data=save_polars(frame),
        rows=frame.height,
        columns=frame.width,
        meta={"height": frame.height} if not frame.width else {},
    )


def pandas_form(value: Any) -> Form | None:
    """A frame or a series of pandas; refused when Arrow would give it back as something else."""
    from fairlead.flow.values.tables import save_pandas, series_frame, unstorable

    name = type(value).__name__
    if name not in ("DataFrame", "Series"):
        return None
    frame = value if name == "DataFrame" else series_frame(value)
    for problem in unstorable(frame):
        raise NotStorable(f"A pandas table cannot be stored: {problem}.", COLUMN_WAYS_OUT)
    meta: dict[str, Any] = {}
    frequency = getattr(frame.index, "freqstr", None)
    if frequency is not None:
        meta["frequency"] = frequency
    if name == "Series":
        meta["name"] = plain.packed(value.name, not_a_leaf)
    form = Form(
        kind="table",
        format="pandas-ipc" if name == "DataFrame" else "pandas-series-ipc",
        data=save_pandas(frame),
        rows=frame.shape[0],
        columns=frame.shape[1],
        meta=meta,
    )
    return checked(value, form)


def model_form(value: Any) -> Form:
    """A scikit-learn estimator, refused when it holds a type that we would not load."""
    from skops.io import dumps

    from fairlead.flow.values.trusted import untrusted

    try:
        data = dumps(value)
        refused = untrusted(data)
    except Exception as error:  # skops lets pass whatever an estimator's attribute raises
        raise NotStorable(
            f"The {type_name(type(value))} cannot be stored: {error}.", WAYS_OUT
        ) from error
    if refused:
        raise NotStorable(
            f"The {type_name(type(value))} holds types that are not trusted to be loaded: "
            f"{', '.join(refused)}.",
            "Store an estimator that is scikit-learn's own through and through, or its "
            "parameters as a dict; or keep it out of the store with "
            "@fl.step(store_output=False).",
        )
    return checked(value, Form(kind="model", format="skops", data=data, meta=model_notes(value)))


def model_notes(value: Any) -> dict[str, Any]:
    """What is told of a model beside its bytes."""
    import sklearn

    return {"class": type_name(type(value)), "sklearn": sklearn.__version__}


def drawn_form(picture: Picture) -> Form:
    """A figure as it was drawn."""
    meta = {"media_type": picture.media_type}
    return Form(kind="figure", format="png", data=picture.data, meta=meta)


def checked(value: Any, form: Form) -> Form:
    """
    The form, after it was loaded and found to be the value.

    Arrow and skops each know values that they give back changed.
    """
    loaded = LOADERS[form.format](form.data, form.meta)
    if digest(loaded) != digest(value):
        raise NotStorable(
            f"The {type_name(type(value))} comes back changed from its format {form.format}.",
            "Columns or attributes of mixed Python objects do that: give each column one type. "
            + WAYS_OUT,
        )
    return form


LIBRARIES: dict[str, Callable[[Any], Form | None]] = {
    "numpy": numpy_form,
    "polars": polars_form,
    "pandas": pandas_form,
}


# ── load ────────────────────────────────────────────────────────────────────


def load(artifact: Artifact, blobs: ValueSource) -> Any:
    """
    The value that an artifact stands for.

    A file or folder is written under a temporary folder of this process; use
    `restore` to have it in a place of your own.

    Raises:
        IntegrityError: The bytes are not the value, or hold a type that is refused.
        NotSupported: A format that this version does not know.
        FairleadError: As the blob store says, when the blob is missing or damaged.
    """
    if artifact.format in ("file", "tree"):
        target = temporary_folder() / str(artifact.meta.get("name") or artifact.digest)
        restore(artifact, blobs, target)
        return target
    data = blobs.get(artifact.blob)
    if artifact.format == "json":
        value = plain.decode(data, lambda part: fetched(part, blobs))
    elif artifact.format in LOADERS:
        value = LOADERS[artifact.format](data, artifact.meta)
    else:
        raise NotSupported(
            f"The artifact {artifact.digest[:12]} has the format {artifact.format!r}, which this "
            "version does not know.",
            "Read it with the fairlead that wrote it, or a newer one.",
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
        files.restore_tree(files.Tree.decode(blobs.get(artifact.blob)), blobs, target)
    elif artifact.format == "file":
        executable = bool(artifact.meta.get("executable"))
        files.restore_file(artifact.blob, executable, blobs, target)
    else:
        raise NotSupported(
            f"The artifact {artifact.digest[:12]} is a {artifact.kind}, no file or folder.",
            "Load it as a value.",
        )


def fetched(reference: dict[str, Any], blobs: ValueSource) -> Any:
    """A part of a JSON value that was stored by itself."""
    if reference[plain.TAG] != "artifact":
        raise NotSupported(
            f"A stored value holds a {reference[plain.TAG]!r}, which this version does not know.",
            "Read it with the fairlead that wrote it, or a newer one.",
        )
    fields = {name: part for name, part in reference.items() if name != plain.TAG}
    return load(msgspec.convert(fields, Artifact), blobs)


def verify(value: Any, artifact: Artifact) -> None:
    """Hold a loaded value against the digest that it is known by."""
    found = digest(value)
    if found != artifact.digest:
        raise IntegrityError(
            f"The {artifact.kind} {artifact.digest[:12]} was loaded as another value, "
            f"{found[:12]}.",
            "Run `fairlead doctor`; then run the step again that made it.",
        )


def load_npy(data: bytes, meta: Mapping[str, Any]) -> Any:
    """An array or a scalar."""
    from fairlead.flow.values.arrays import load_array, scalar_of

    array = load_array(data)
    return scalar_of(array) if meta.get("scalar") else array


def load_polars_frame(data: bytes, meta: Mapping[str, Any]) -> Any:
    """A Polars frame."""
    from fairlead.flow.values.tables import load_polars

    return load_polars(data)


def load_polars_series(data: bytes, meta: Mapping[str, Any]) -> Any:
    """A Polars series."""
    return load_polars_frame(data, meta).to_series()


def load_pandas_frame(data: bytes, meta: Mapping[str, Any]) -> Any:
    """A pandas frame."""
    from fairlead.flow.values.tables import load_pandas

    return load_pandas(data, meta.get("frequency"))


def load_pandas_series(data: bytes, meta: Mapping[str, Any]) -> Any:
    """A pandas series."""
    series = load_pandas_frame(data, meta).iloc[:, 0]
    series.name = plain.unpacked(meta.get("name"), not_a_leaf)
    return series


def load_model(data: bytes, meta: Mapping[str, Any]) -> Any:
    """A scikit-learn estimator."""
    from fairlead.flow.values.trusted import load_skops

    return load_skops(data)


def load_picture(data: bytes, meta: Mapping[str, Any]) -> Picture:
    """A figure as it was drawn."""
    return Picture(str(meta.get("media_type", "image/png")), data)


LOADERS: dict[str, Callable[[bytes, Mapping[str, Any]], Any]] = {
    "npy": load_npy,
    "polars-ipc": load_polars_frame,
    "polars-series-ipc": load_polars_series,
    "pandas-ipc": load_pandas_frame,
    "pandas-series-ipc": load_pandas_series,
    "skops": load_model,
    "png": load_picture,
}

INSIDE: dict[str, Callable[[bytes], Iterable[Digest]]] = {
    "tree": files.tree_blobs,
    "json": files.json_blobs,
    "snapshot": lambda data: Snapshot.decode(data).blobs(),
}
"""Format of a blob → the further blobs that such a blob needs."""


# ── small questions ─────────────────────────────────────────────────────────


def is_model(value: Any) -> bool:
    """Whether a value is a scikit-learn estimator."""
    base = getattr(sys.modules.get("sklearn.base"), "BaseEstimator", None)
    return base is not None and isinstance(value, base)


def is_figure(value: Any) -> bool:
    """Whether a value is a figure of matplotlib."""
    cls = getattr(sys.modules.get("matplotlib.figure"), "Figure", None)
    return cls is not None and isinstance(value, cls)


def drawn(figure: Any) -> Picture:
    """Draw a figure; nothing but the picture is kept, so equal pictures are equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return Picture("image/png", buffer.getvalue())


_folder: list[tempfile.TemporaryDirectory[str]] = []


def temporary_folder() -> Path:
    """A fresh folder that is removed when this process ends."""
    if not _folder:
        _folder.append(tempfile.TemporaryDirectory(prefix="fairlead-"))
        atexit.register(_folder[0].cleanup)
    return Path(tempfile.mkdtemp(dir=_folder[0].name))


def not_a_leaf(value: Any) -> Any:
    """Refuses what is no plain value, where nothing else can stand."""
    raise not_storable(value)


def not_storable(value: Any, cause: Undigestible | None = None) -> NotStorable:
    """The error for a value without a safe format."""
    name = type_name(type(value))
    if name == "polars.lazyframe.frame.LazyFrame":
        return NotStorable("A LazyFrame is a plan, not a table.", "Return lazy.collect().")
    inner = f": {cause.value_type} {cause.reason}" if cause and cause.value_type != name else ""
    return NotStorable(f"A {name} has no safe format to be stored in{inner}.", WAYS_OUT)
