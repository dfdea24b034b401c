"""The distance between two values in words: rows, cells, largest difference, ULP."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DEEPEST = 12


def describe_difference(old: Any, new: Any) -> str:
    """
    Describe how `new` differs from `old`.

    Numbers are described with the largest absolute difference and its distance in
    units in the last place (ULP); tables with rows and columns; objects with the
    first attribute that differs.
    """
    return _first(old, new, "", 0) or "the content differs, but no part of it shows the difference"


def ulps(old: float, new: float) -> float:
    """
    Return the distance of two doubles in units in the last place of the larger one.

    >>> ulps(1.0, 1.0 + 2**-52)
    1.0
    """
    if not (math.isfinite(old) and math.isfinite(new)):
        return math.inf
    return abs(old - new) / math.ulp(max(abs(old), abs(new)))


def _first(old: Any, new: Any, where: str, depth: int) -> str | None:
    """Return the first difference, with the path to it; None if there is none."""
    at = f"{where.lstrip('.')}: " if where else ""
    if type(old) is not type(new):
        return f"{at}{type(old).__name__} → {type(new).__name__}"
    if isinstance(old, np.ndarray) and old.dtype.kind != "O":
        difference = _arrays(old, new)
        return difference and at + difference
    if isinstance(old, np.ndarray):
        return _first(old.tolist(), new.tolist(), where, depth)
    library = type(old).__module__.partition(".")[0]
    if library in ("polars", "pandas") and type(old).__name__ in ("DataFrame", "Series"):
        difference = _tables(_polars(old), _polars(new))
        return difference and at + difference
    if isinstance(old, float | np.floating):
        a, b = float(old), float(new)
        if a == b or (math.isnan(a) and math.isnan(b)):
            return None
        return f"{at}{a!r} → {b!r} (by {abs(a - b):.3g}, {ulps(a, b):.4g} ULP)"
    if isinstance(old, dict):
        if list(old) != list(new):
            gone, come = [k for k in old if k not in new], [k for k in new if k not in old]
            return at + (f"keys {_cut(gone)} → {_cut(come)}" if gone or come else "order of keys")
        parts = (_first(old[key], new[key], f"{where}.{key}", depth + 1) for key in old)
        return next(filter(None, parts), None)
    if isinstance(old, list | tuple):
        if len(old) != len(new):
            return f"{at}{len(old)} items → {len(new)} items"
        parts = (_first(a, new[i], f"{where}[{i}]", depth + 1) for i, a in enumerate(old))
        return next(filter(None, parts), None)
    before, after = _state(old), _state(new)
    if depth <= _DEEPEST and isinstance(before, dict) and isinstance(after, dict):
        return _first(before, after, where, depth + 1)
    is_equal = depth > _DEEPEST or repr(old) == repr(new)
    return None if is_equal else f"{at}{_cut(old)} → {_cut(new)}"


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _arrays(old: NDArray[Any], new: NDArray[Any]) -> str | None:
    if old.shape != new.shape or old.dtype != new.dtype:
        return f"{old.dtype}{old.shape} → {new.dtype}{new.shape}"
    if old.dtype.names is not None:
        parts = ((name, _arrays(old[name], new[name])) for name in old.dtype.names)
        return next((f"{name}: {part}" for name, part in parts if part), None)
    differs = old != new
    if old.dtype.kind != "f":
        count = int(np.count_nonzero(differs))
        return f"{count} of {old.size} entries differ" if count else None
    differs &= ~(np.isnan(old) & np.isnan(new))
    count = int(np.count_nonzero(differs))
    if not count:
        return None
    gap = np.abs(old[differs].astype(np.float64) - new[differs].astype(np.float64))
    units = gap / np.spacing(np.maximum(np.abs(old[differs]), np.abs(new[differs])))
    most, far = (float(np.nanmax(each, initial=0)) for each in (gap, units))
    return f"{count} of {old.size} numbers differ, by {most:.3g}, {far:.4g} ULP at most"


def _polars(value: Any) -> Any:
    import polars as pl

    frame = value.to_frame() if type(value).__name__ == "Series" else value
    return frame if isinstance(frame, pl.DataFrame) else pl.from_pandas(frame.reset_index())


def _tables(old: Any, new: Any) -> str | None:
    if old.height != new.height:
        return f"{old.height} rows → {new.height} rows"
    if old.schema != new.schema:
        gone = [name for name, kind in old.schema.items() if new.schema.get(name) != kind]
        come = [name for name, kind in new.schema.items() if old.schema.get(name) != kind]
        return f"columns {gone} → {come}"
    found = []
    for name in old.columns:
        a, b = old[name], new[name]
        rows = int((~a.eq_missing(b)).sum())
        numbers = _arrays(a.to_numpy(), b.to_numpy()) if a.dtype.is_float() else None
        if rows:
            far = f", {numbers.partition(' differ, ')[2]}" if numbers else ""
            found.append(f"column {name!r} differs in {rows} of {old.height} rows{far}")
    more = f"; and {len(found) - 3} more columns" if len(found) > 3 else ""
    return "; ".join(found[:3]) + more if found else None


def _state(value: Any) -> Any:
    """Return the attributes of an object, or what a copy of a compiled object would copy."""
    if fields := getattr(value, "__struct_fields__", None):
        return {name: getattr(value, name) for name in fields}
    if isinstance(value, str | bytes | int | np.generic | None):
        return None
    state = getattr(value, "__dict__", None)
    if state:
        return state
    return value.__getstate__() if hasattr(value, "__getstate__") else None
