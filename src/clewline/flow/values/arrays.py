"""NumPy arrays and scalars: their canonical bytes and their format."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from clewline.errors import IntegrityError
from clewline.flow.values.pieces import Undigestible, Walk, framed, joined, text_bytes, type_name

PLAIN_KINDS = frozenset("biufcSUMmV")


def array_piece(value: Any, walk: Walk) -> bytes | None:
    """The canonical piece of an array, scalar or dtype; None for another object of NumPy."""
    if type(value) in (np.ndarray, np.memmap):
        return contents("array", np.asarray(value), walk)
    if isinstance(value, np.generic):
        return contents("scalar", np.asarray(value), walk)
    if isinstance(value, np.dtype):
        return framed("dtype", dtype_text(value))
    if isinstance(value, np.random.RandomState):  # pickle adds the seed it began with, long spent
        return joined("random state", (walk.piece(value.get_state(legacy=False)),))
    return None


def contents(tag: str, array: np.ndarray[Any, Any], walk: Walk) -> bytes:
    """Dtype, shape and elements in C order; the memory's layout does not count."""
    head = framed("dtype", dtype_text(array.dtype)) + framed("shape", repr(array.shape).encode())
    return joined(tag, (head, elements(array, walk)))


def dtype_text(dtype: np.dtype[Any]) -> bytes:
    """A dtype with its byte order, field by field, without the padding between fields."""
    if dtype.fields is not None and dtype.names is not None:
        fields = (f"{name}={dtype_text(dtype.fields[name][0])!r}" for name in dtype.names)
        return text_bytes("{" + ",".join(fields) + "}")
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return text_bytes(f"{dtype_text(base)!r}{shape}")
    return dtype.str.encode()


def elements(array: np.ndarray[Any, Any], walk: Walk) -> bytes:
    """The elements of an array as one piece."""
    dtype = array.dtype
    if dtype.names is not None:  # bytes between fields are not content: they are not even set
        return joined("fields", (elements(array[name], walk) for name in dtype.names))
    if dtype.kind == "O":
        return joined("objects", map(walk.piece, array.ravel().tolist()))
    if dtype.kind not in PLAIN_KINDS or (dtype.itemsize > 16 and dtype.kind in "fc"):
        raise Undigestible(f"numpy dtype {dtype}", "has no bytes that are the same everywhere")
    if dtype.kind == "f" and dtype.itemsize > 8:
        raise Undigestible(f"numpy dtype {dtype}", "has bytes that hold no content")
    return framed("bytes", canonical_bytes(array))


def canonical_bytes(array: np.ndarray[Any, Any]) -> bytes:
    """Little-endian bytes in C order, with one NaN."""
    array = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    if array.dtype.kind == "f":
        missing = np.isnan(array)
        array = np.where(missing, array.dtype.type(np.nan), array) if missing.any() else array
    elif array.dtype.kind == "c":
        parts = np.stack([array.real, array.imag], axis=-1)
        return canonical_bytes(parts)
    return np.ascontiguousarray(array).tobytes()


def is_storable(value: Any) -> bool:
    """Whether an array or scalar can be stored as plain numbers, dates or texts."""
    if type(value) not in (np.ndarray, np.memmap) and not isinstance(value, np.generic):
        return False
    return is_plain(np.asarray(value).dtype)


def is_plain(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype holds no Python objects and no platform's own floats."""
    if dtype.fields is not None:
        return all(is_plain(field[0]) for field in dtype.fields.values())
    if dtype.subdtype is not None:
        return is_plain(dtype.subdtype[0])
    wide = (dtype.kind == "f" and dtype.itemsize > 8) or (dtype.kind == "c" and dtype.itemsize > 16)
    return dtype.kind in PLAIN_KINDS and not wide


def save_array(value: Any) -> bytes:
    """An array or scalar in NumPy's own format."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(value), allow_pickle=False)
    return buffer.getvalue()


def load_array(data: bytes) -> np.ndarray[Any, Any]:
    """
    An array from NumPy's own format; never by pickle.

    Raises:
        IntegrityError: The bytes are not of that format.
    """
    try:
        array: np.ndarray[Any, Any] = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise IntegrityError(
            f"An array cannot be read: {error}.", "Run `clewline doctor` to check the store."
        ) from error
    return array


def scalar_of(array: np.ndarray[Any, Any]) -> Any:
    """The scalar that was stored as an array without axes."""
    if array.shape != ():
        raise IntegrityError(
            f"A stored {type_name(np.generic)} has shape {array.shape}.",
            "Run `clewline doctor` to check the store.",
        )
    return array[()]
