"""
The formats that values are stored in: for each the bytes that it makes, and back.

Nothing is ever loaded by pickle. Arrow and skops each know values that they give
back changed, so what they made is loaded and compared before it is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from clewline.errors import IntegrityError, NotStorable
from clewline.flow.values import json_values
from clewline.flow.values.content import (
    WAYS_OUT,
    Picture,
    digest,
    drawn,
    is_figure,
    not_storable,
)
from clewline.flow.values.pieces import type_name
from clewline.model_families import family_of_format, value_family_of

COLUMN_WAYS_OUT = (
    "Give each column one type with `astype`, and all column names of one type; "
    "or keep the table out of the store with @cl.step(store_output=False)."
)


class StoredForm(msgspec.Struct, frozen=True, kw_only=True):
    """How a value is stored."""

    kind: str
    format: str
    data: bytes
    rows: int | None = None
    columns: int | None = None
    meta: dict[str, Any] = {}


def library_form(value: Any) -> StoredForm:
    """
    How an array, a table, a model or a figure is stored.

    Raises:
        NotStorable: It is none of these, or would not come back as it is.
    """
    library = type(value).__module__.partition(".")[0]
    if library in LIBRARIES and (form := LIBRARIES[library](value)) is not None:
        return form
    if (family := value_family_of(value)) is not None:
        data, notes = family.dump(value), family.describe(value)
        form = StoredForm(kind="model", format=family.value_format, data=data, meta=notes)
        return checked(value, form)
    if is_figure(value):
        return drawn_form(drawn(value))
    raise not_storable(value)


def numpy_form(value: Any) -> StoredForm | None:
    """An array or a scalar of NumPy."""
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


def polars_form(value: Any) -> StoredForm | None:
    """A frame or a series of Polars."""
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


def pandas_form(value: Any) -> StoredForm | None:
    """A frame or a series of pandas; refused when Arrow would give it back as something else."""
    from clewline.flow.values.tables import save_pandas, series_frame, unstorable

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
        meta["name"] = json_values.packed(value.name, not_a_leaf)
    form = StoredForm(
        kind="table",
        format="pandas-ipc" if name == "DataFrame" else "pandas-series-ipc",
        data=save_pandas(frame),
        rows=frame.shape[0],
        columns=frame.shape[1],
        meta=meta,
    )
    return checked(value, form)


def drawn_form(picture: Picture) -> StoredForm:
    """A figure as it was drawn."""
    meta = {"media_type": picture.media_type}
    return StoredForm(kind="figure", format="png", data=picture.data, meta=meta)


def checked(value: Any, form: StoredForm) -> StoredForm:
    """
    The form, after it was loaded and found to be the value.

    Arrow and skops each know values that they give back changed.
    """
    try:
        load = loader(form.format)
        is_same = load is not None and digest(load(form.data, form.meta)) == digest(value)
    except IntegrityError as error:
        raise NotStorable(
            f"The {type_name(type(value))} cannot be read back: {error.message}", WAYS_OUT
        ) from error
    if not is_same:
        raise NotStorable(
            f"The {type_name(type(value))} comes back changed from its format {form.format}.",
            "Columns or attributes of mixed Python objects do that: give each column one type. "
            + WAYS_OUT,
        )
    return form


LIBRARIES: dict[str, Callable[[Any], StoredForm | None]] = {
    "numpy": numpy_form,
    "polars": polars_form,
    "pandas": pandas_form,
}


def load_npy(data: bytes, meta: Mapping[str, Any]) -> Any:
    """An array or a scalar."""
    from clewline.flow.values.arrays import load_array, scalar_of

    array = load_array(data)
    return scalar_of(array) if meta.get("scalar") else array


def load_polars_frame(data: bytes, meta: Mapping[str, Any]) -> Any:
    """A Polars frame."""
    from clewline.flow.values.tables import load_polars

    return load_polars(data)


def load_polars_series(data: bytes, meta: Mapping[str, Any]) -> Any:
    """A Polars series."""
    return load_polars_frame(data, meta).to_series()


def load_pandas_frame(data: bytes, meta: Mapping[str, Any]) -> Any:
    """A pandas frame."""
    from clewline.flow.values.tables import load_pandas

    return load_pandas(data, meta.get("frequency"))


def load_pandas_series(data: bytes, meta: Mapping[str, Any]) -> Any:
    """A pandas series."""
    series = load_pandas_frame(data, meta).iloc[:, 0]
    series.name = json_values.unpacked(meta.get("name"), not_a_leaf)
    return series


def load_picture(data: bytes, meta: Mapping[str, Any]) -> Picture:
    """A figure as it was drawn."""
    return Picture(str(meta.get("media_type", "image/png")), data)


def loader(name: str) -> Callable[[bytes, Mapping[str, Any]], Any] | None:
    """Return what loads a value from the bytes of a format and its notes; None if it is unknown."""
    if name in LOADERS:
        return LOADERS[name]
    family = family_of_format(name)
    return None if family is None else lambda data, _: family.restore(data)


LOADERS: dict[str, Callable[[bytes, Mapping[str, Any]], Any]] = {
    "npy": load_npy,
    "polars-ipc": load_polars_frame,
    "polars-series-ipc": load_polars_series,
    "pandas-ipc": load_pandas_frame,
    "pandas-series-ipc": load_pandas_series,
    "png": load_picture,
}


def not_a_leaf(value: Any) -> Any:
    """Refuses what is no plain value, where nothing else can stand."""
    raise not_storable(value)
