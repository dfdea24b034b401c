"""NumPy arrays and scalars: their canonical pieces and their format."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from clewline.errors import IntegrityError
from clewline.flow.values.framing import (
    PieceOf,
    StoredForm,
    Undigestible,
    framed,
    joined,
    text_bytes,
)

PLAIN_KINDS = frozenset("biufcSUMmV")


def array_piece(value: Any, piece: PieceOf) -> bytes | None:
    """Return the piece of an array, scalar or dtype; None for another object of NumPy."""
    is_array = type(value) in (np.ndarray, np.memmap)
    if is_array or isinstance(value, np.generic):
        # Dtype, shape and elements in C order; the memory's layout does not count.
        array = np.asarray(value)
        dtype = framed("dtype", _dtype_text(array.dtype))
        shape = framed("shape", repr(array.shape).encode())
        return joined("array" if is_array else "scalar", (dtype + shape, _elements(array, piece)))
    if isinstance(value, np.dtype):
        return framed("dtype", _dtype_text(value))
    if isinstance(value, np.random.RandomState):  # pickle adds the initial seed, long spent
        return joined("random state", (piece(value.get_state(legacy=False)),))
    return None


def _dtype_text(dtype: np.dtype[Any]) -> bytes:
    """Return a dtype with its byte order, field by field, without the padding between fields."""
    if dtype.fields is not None and dtype.names is not None:
        fields = (f"{name}={_dtype_text(dtype.fields[name][0])!r}" for name in dtype.names)
        return text_bytes("{" + ",".join(fields) + "}")
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return text_bytes(f"{_dtype_text(base)!r}{shape}")
    return dtype.str.encode()


def _elements(array: np.ndarray[Any, Any], piece: PieceOf) -> bytes:
    dtype = array.dtype
    if dtype.names is not None:  # the bytes between fields are not content
        return joined("fields", (_elements(array[name], piece) for name in dtype.names))
    if dtype.kind == "O":
        return joined("objects", map(piece, array.ravel().tolist()))
    if dtype.kind not in PLAIN_KINDS or (dtype.itemsize > 16 and dtype.kind in "fc"):
        raise Undigestible(f"numpy dtype {dtype}", "has different bytes on other platforms")
    if dtype.kind == "f" and dtype.itemsize > 8:
        raise Undigestible(f"numpy dtype {dtype}", "has bytes that hold no content")
    return framed("bytes", canonical_bytes(array))


def canonical_bytes(array: np.ndarray[Any, Any]) -> bytes:
    """Return little-endian bytes in C order, with a single NaN."""
    array = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    if array.dtype.kind == "f":
        missing = np.isnan(array)
        array = np.where(missing, array.dtype.type(np.nan), array) if missing.any() else array
    elif array.dtype.kind == "c":
        return canonical_bytes(np.stack([array.real, array.imag], axis=-1))
    return np.ascontiguousarray(array).tobytes()


def array_form(value: Any) -> StoredForm | None:
    """Return the stored form of an array or scalar of plain numbers, dates or strings, or None."""
    is_scalar = isinstance(value, np.generic)
    if type(value) not in (np.ndarray, np.memmap) and not is_scalar:
        return None
    array = np.asarray(value)
    if not _is_plain(array.dtype):
        return None
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return StoredForm(
        kind="array",
        format="npy",
        data=buffer.getvalue(),
        rows=array.shape[0] if array.shape else None,
        columns=array.shape[1] if array.ndim > 1 else None,
        meta={"scalar": True} if is_scalar else {},
    )


def _is_plain(dtype: np.dtype[Any]) -> bool:
    """Return whether a dtype has no Python objects and no platform-specific floats."""
    if dtype.fields is not None:
        return all(_is_plain(field[0]) for field in dtype.fields.values())
    if dtype.subdtype is not None:
        return _is_plain(dtype.subdtype[0])
    is_wide = dtype.itemsize > {"f": 8, "c": 16}.get(dtype.kind, dtype.itemsize)
    return dtype.kind in PLAIN_KINDS and not is_wide


def load_array(data: bytes, meta: Mapping[str, Any]) -> Any:
    """
    Load an array or scalar from NumPy's own format; never by pickle.

    Raises:
        IntegrityError: The bytes are not of that format, or not of a scalar.
    """
    scalar = bool(meta.get("scalar"))
    try:
        array: np.ndarray[Any, Any] = np.load(io.BytesIO(data), allow_pickle=False)
        if scalar and array.shape != ():
            raise ValueError(f"a scalar has the shape {array.shape}")
    except (ValueError, EOFError, OSError) as error:
        raise IntegrityError(
            f"An array cannot be read: {error}.", "Run `clewline doctor` to check the store."
        ) from error
    return array[()] if scalar else in_c_order(array)


def in_c_order(array: Any) -> Any:
    """
    Return an array with its elements in C order, copied only if they are in another.

    The digest leaves the layout out, so a step must not see it either.
    """
    return np.asarray(array, order="C") if type(array) is np.ndarray else array
