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
from clewline.flow.values.framing import (
    StoredForm,
    Undigestible,
    framed,
    joined,
    text_bytes,
    type_name,
)
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
    form: StoredForm | None = None
    if library == "numpy":
        from clewline.flow.values.arrays import array_form

        form = array_form(value)
    elif library in ("polars", "pandas"):
        from clewline.flow.values.tables import table_form

        form = table_form(value)
    if form is not None:
        return _verified(value, form) if library == "pandas" else form
    if (family := value_family_of(value)) is not None:
        data, meta = family.dump(value), family.describe(value)
        form = StoredForm(kind="model", format=family.value_format, data=data, meta=meta)
        return _verified(value, form)
    if isinstance(value, Picture) or _is_figure(value):
        picture = value if isinstance(value, Picture) else _draw(value)
        meta = {"media_type": picture.media_type}
        return StoredForm(kind="figure", format="png", data=picture.data, meta=meta)
    raise not_storable(value)


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
