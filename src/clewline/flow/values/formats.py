"""
Kinds of values: the digest of each kind's logical content, its stored bytes, and its loader.

The logical content of a model is its settings and fitted state, of a figure its picture,
of an object of the project its fields, of a path the files there. Nothing is ever
loaded by pickle. Arrow and skops return some values changed, so their bytes are loaded
and compared before they are stored.
"""

from __future__ import annotations

import enum
import io
import sys
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

import msgspec

from clewline.errors import IntegrityError, NotStorable
from clewline.flow.values import file_trees, json_values
from clewline.flow.values.canonical import CanonicalWalk
from clewline.flow.values.framing import Undigestible, framed, joined, text_bytes, type_name
from clewline.model_families import family_of_format, value_family_of
from clewline.store.digest import Digest

WAYS_OUT = (
    "Return a table, an array, a JSON value, an estimator, a figure or a Path; "
    "or a dataclass or msgspec.Struct of a module of the project; "
    "or keep it out of the store with @cl.step(store_output=False)."
)


class Picture(msgspec.Struct, frozen=True):
    """A figure as it was drawn."""

    media_type: str  # image/png
    data: bytes

    @property
    def piece(self) -> bytes:
        """The canonical piece."""
        return framed("picture", self.media_type.encode() + b" " + self.data)


class StoredForm(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes and the description that a value is stored as."""

    kind: str
    format: str
    data: bytes
    rows: int | None = None
    columns: int | None = None
    meta: dict[str, Any] = {}


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
            return self._object(value)
        if value_family_of(value) is not None:
            return joined("model", (_ModelWalk().piece(value),))
        if _is_figure(value):
            return _draw(value).piece
        raise self.refusal(value, "has no safe format to be stored in")

    def _object(self, value: Any) -> bytes:
        """Return an object's piece: its class's name and its fields, without the class's code."""
        if isinstance(value, Picture):
            return value.piece
        path = framed("class", json_values.path_of(type(value)).encode())
        if isinstance(value, enum.Enum):
            return joined("enum", (path, self.piece(value.name)))
        return joined("object", (path, self.named("fields", json_values.object_fields(value))))


class _ModelWalk(CanonicalWalk):
    """Canonical pieces of an estimator's parts: its settings and its fitted state."""

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


def stored_form(value: Any) -> StoredForm:
    """
    Return the stored form of an array, a table, a model, a figure or a picture.

    Raises:
        NotStorable: The value is none of these, or would come back changed.
    """
    library = type(value).__module__.partition(".")[0]
    if library in _LIBRARY_FORMS and (form := _LIBRARY_FORMS[library](value)) is not None:
        return form
    if (family := value_family_of(value)) is not None:
        data, meta = family.dump(value), family.describe(value)
        form = StoredForm(kind="model", format=family.value_format, data=data, meta=meta)
        return _verified(value, form)
    if isinstance(value, Picture) or _is_figure(value):
        picture = value if isinstance(value, Picture) else _draw(value)
        meta = {"media_type": picture.media_type}
        return StoredForm(kind="figure", format="png", data=picture.data, meta=meta)
    raise not_storable(value)


def _numpy_form(value: Any) -> StoredForm | None:
    import numpy as np

    from clewline.flow.values.arrays import is_storable, save_array

    if not is_storable(value):
        return None
    shape: tuple[int, ...] = value.shape
    return StoredForm(
        kind="array",
        format="npy",
        data=save_array(value),
        rows=shape[0] if shape else None,
        columns=shape[1] if len(shape) > 1 else None,
        meta={"scalar": True} if isinstance(value, np.generic) else {},
    )


def _polars_form(value: Any) -> StoredForm | None:
    from clewline.flow.values.tables import save_polars

    name = type(value).__name__
    if name not in ("DataFrame", "Series"):
        return None
    frame = value if name == "DataFrame" else value.to_frame()
    return StoredForm(
        kind="table",
        format="polars-ipc" if name == "DataFrame" else "polars-series-ipc",
        data=save_polars(frame),
        rows=frame.height,
        columns=frame.width,
        meta={"height": frame.height} if not frame.width else {},
    )


def _pandas_form(value: Any) -> StoredForm | None:
    from clewline.flow.values.tables import require_round_trip, save_pandas

    name = type(value).__name__
    if name not in ("DataFrame", "Series"):
        return None
    frame = value if name == "DataFrame" else value.to_frame("values")
    require_round_trip(frame)
    frequency = getattr(frame.index, "freqstr", None)
    meta: dict[str, Any] = {"frequency": frequency} if frequency is not None else {}
    if name == "Series":
        meta["name"] = json_values.packed(value.name, _refuse_leaf)
    form = StoredForm(
        kind="table",
        format="pandas-ipc" if name == "DataFrame" else "pandas-series-ipc",
        data=save_pandas(frame),
        rows=frame.shape[0],
        columns=frame.shape[1],
        meta=meta,
    )
    return _verified(value, form)


_LIBRARY_FORMS: dict[str, Callable[[Any], StoredForm | None]] = {
    "numpy": _numpy_form,
    "polars": _polars_form,
    "pandas": _pandas_form,
}


def _verified(value: Any, form: StoredForm) -> StoredForm:
    """Return the form, after it was loaded and compared with the value."""
    name = type_name(type(value))
    try:
        load = loader(form.format)
        is_equal = load is not None and digest(load(form.data, form.meta)) == digest(value)
    except IntegrityError as error:
        raise NotStorable(f"The {name} cannot be read back: {error.message}", WAYS_OUT) from error
    if not is_equal:
        raise NotStorable(
            f"The {name} comes back changed from its format {form.format}.",
            "Columns or attributes of mixed Python objects do that: give each column one type. "
            + WAYS_OUT,
        )
    return form


# Loaders


def _load_array(data: bytes, meta: Mapping[str, Any]) -> Any:
    from clewline.flow.values.arrays import load_array

    return load_array(data, scalar=bool(meta.get("scalar")))


def _load_polars(data: bytes, meta: Mapping[str, Any]) -> Any:
    from clewline.flow.values.tables import load_polars

    return load_polars(data)


def _load_pandas(data: bytes, meta: Mapping[str, Any]) -> Any:
    from clewline.flow.values.tables import load_pandas

    return load_pandas(data, meta.get("frequency"))


def _load_pandas_series(data: bytes, meta: Mapping[str, Any]) -> Any:
    series = _load_pandas(data, meta).iloc[:, 0]
    series.name = json_values.unpacked(meta.get("name"), _refuse_leaf)
    return series


def loader(name: str) -> Callable[[bytes, Mapping[str, Any]], Any] | None:
    """Return the loader of a format, from its bytes and notes; None if the format is unknown."""
    if name in _LOADERS:
        return _LOADERS[name]
    family = family_of_format(name)
    return None if family is None else lambda data, _: family.restore(data)


_LOADERS: dict[str, Callable[[bytes, Mapping[str, Any]], Any]] = {
    "npy": _load_array,
    "polars-ipc": _load_polars,
    "polars-series-ipc": lambda data, meta: _load_polars(data, meta).to_series(),
    "pandas-ipc": _load_pandas,
    "pandas-series-ipc": _load_pandas_series,
    "png": lambda data, meta: Picture(str(meta.get("media_type", "image/png")), data),
}


def _refuse_leaf(value: Any) -> Any:
    """Refuse a value that is not plain, where nothing else is allowed."""
    raise not_storable(value)
