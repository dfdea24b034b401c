"""
The logical content of a value, which its digest is of.

Of a model it is the settings and the fitted state, of a figure the picture, of
an object of the project its fields, of a path what lies there.
"""

from __future__ import annotations

import enum
import io
import sys
from pathlib import Path, PurePath
from typing import Any

import msgspec

from clewline.errors import NotStorable
from clewline.flow.values import file_trees, json_values
from clewline.flow.values.canonical import Canonical
from clewline.flow.values.pieces import Undigestible, framed, joined, text_bytes, type_name
from clewline.model_families import value_family_of
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
            return file_trees.path_piece(Path(value))
        if json_values.is_object(type(value)):
            return self.fields(value)
        if value_family_of(value) is not None:
            return joined("model", (ModelWalk().piece(value),))
        if is_figure(value):
            return picture_piece(drawn(value))
        raise self.refusal(value, "has no safe format to be stored in")

    def fields(self, value: Any) -> bytes:
        """An object by its class's name and its fields; the code of the class is no content."""
        if isinstance(value, Picture):
            return picture_piece(value)
        path = framed("class", json_values.path_of(type(value)).encode())
        if isinstance(value, enum.Enum):
            return joined("enum", (path, self.piece(value.name)))
        return joined("object", (path, self.named("fields", json_values.object_fields(value))))


class ModelWalk(Canonical):
    """Canonical pieces of what an estimator is made of: its settings and its fitted state."""

    def other(self, value: Any) -> bytes:
        """The piece of a part: code by its name, an object by its attributes."""
        if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
            home = getattr(value, "__module__", "builtins")  # `str.split` has none
            return framed("name", text_bytes(f"{home}:{value.__qualname__}"))
        family = value_family_of(value)
        if family is not None and (state := family.state(value)) is not None:
            return self.named(type_name(type(value)), state)
        return self.reduced(value)


def picture_piece(picture: Picture) -> bytes:
    """The canonical piece of a figure as it was drawn."""
    return framed("picture", picture.media_type.encode() + b" " + picture.data)


def is_figure(value: Any) -> bool:
    """Whether a value is a figure of matplotlib."""
    cls = getattr(sys.modules.get("matplotlib.figure"), "Figure", None)
    return cls is not None and isinstance(value, cls)


def drawn(figure: Any) -> Picture:
    """Draw a figure; nothing but the picture is kept, so equal pictures are equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return Picture("image/png", buffer.getvalue())


def not_storable(value: Any, cause: Undigestible | None = None) -> NotStorable:
    """The error for a value without a safe format."""
    name = type_name(type(value))
    if name == "polars.lazyframe.frame.LazyFrame":
        return NotStorable("A LazyFrame is a plan, not a table.", "Return lazy.collect().")
    inner = f": {cause.value_type} {cause.reason}" if cause and cause.value_type != name else ""
    return NotStorable(f"A {name} has no safe format to be stored in{inner}.", WAYS_OUT)
