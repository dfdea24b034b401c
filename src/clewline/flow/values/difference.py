"""How far two values are apart, in words: rows, cells, largest difference, ULP."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import polars as pl

_DEEPEST = 12


def describe_difference(old: Any, new: Any) -> str:
    """
    Say how `new` differs from `old`.

    Numbers are told with the largest absolute difference and its distance in
    units in the last place (ULP); tables with rows and columns; objects with the
    first attribute that differs.
    """
    return _first(old, new, "", 0) or "the content differs, though no part of it could be told"


def ulps(old: float, new: float) -> float:
    """
    The distance of two doubles in units in the last place of the larger one.

    >>> ulps(1.0, 1.0 + 2**-52)
    1.0
    """
    if math.isnan(old) or math.isnan(new) or math.isinf(old) or math.isinf(new):
        return math.inf
    return abs(old - new) / math.ulp(max(abs(old), abs(new)))


def _first(old: Any, new: Any, where: str, depth: int) -> str | None:
    """The first difference, None when there is none."""
    if type(old) is not type(new):
        return f"{_at(where)}{type(old).__name__} → {type(new).__name__}"
    if isinstance(old, np.ndarray):
        return _arrays(old, new, where, depth)
    if _is_frame(old):
        return _tables(_polars(old), _polars(new), where)
    if isinstance(old, float | np.floating):
        return _numbers(float(old), float(new), where)
    if isinstance(old, bool | int | str | bytes | None | np.generic):
        return None if old == new else f"{_at(where)}{_cut(old)} → {_cut(new)}"
    if isinstance(old, dict):
        return _mappings(old, new, where, depth)
    if isinstance(old, list | tuple):
        return _sequences(old, new, where, depth)
    return _objects(old, new, where, depth)


def _at(where: str) -> str:
    return f"{where.lstrip('.')}: " if where else ""


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _numbers(old: float, new: float, where: str) -> str | None:
    if old == new or (math.isnan(old) and math.isnan(new)):
        return None
    return f"{_at(where)}{old!r} → {new!r} ({_far(abs(old - new), ulps(old, new))})"


def _far(most: float, units: float) -> str:
    return f"by {most:.3g}, {units:.4g} ULP"


def _arrays(old: NDArray[Any], new: NDArray[Any], where: str, depth: int) -> str | None:
    if old.shape != new.shape or old.dtype != new.dtype:
        return f"{_at(where)}{old.dtype}{old.shape} → {new.dtype}{new.shape}"
    if old.dtype.kind == "O":
        return _sequences(old.ravel().tolist(), new.ravel().tolist(), where, depth)
    if old.dtype.names is not None:
        parts = (
            _arrays(old[name], new[name], f"{where}.{name}", depth) for name in old.dtype.names
        )
        return next((part for part in parts if part is not None), None)
    if old.dtype.kind == "f":
        return _floats(old, new, where)
    count = int(np.count_nonzero(old != new))
    return f"{_at(where)}{count} of {old.size} entries differ" if count else None


def _floats(old: NDArray[Any], new: NDArray[Any], where: str) -> str | None:
    differs = (old != new) & ~(np.isnan(old) & np.isnan(new))
    count = int(np.count_nonzero(differs))
    if not count:
        return None
    a, b = old[differs].astype(np.float64), new[differs].astype(np.float64)
    gap = np.abs(a - b)
    units = gap / np.spacing(np.maximum(np.abs(old[differs]), np.abs(new[differs])))
    far = _far(float(np.nanmax(gap, initial=0)), float(np.nanmax(units, initial=0)))
    return f"{_at(where)}{count} of {old.size} numbers differ, {far} at most"


def _is_frame(value: Any) -> bool:
    kind = type(value)
    return kind.__module__.partition(".")[0] in ("polars", "pandas") and kind.__name__ in (
        "DataFrame",
        "Series",
    )


def _polars(value: Any) -> pl.DataFrame:
    import polars as pl

    if isinstance(value, pl.Series):
        return value.to_frame()
    if isinstance(value, pl.DataFrame):
        return value
    frame = value.to_frame() if type(value).__name__ == "Series" else value
    made: pl.DataFrame = pl.from_pandas(frame.reset_index())
    return made


def _tables(old: pl.DataFrame, new: pl.DataFrame, where: str) -> str | None:
    if old.height != new.height:
        return f"{_at(where)}{old.height} rows → {new.height} rows"
    if old.schema != new.schema:
        gone = [name for name, kind in old.schema.items() if new.schema.get(name) != kind]
        come = [name for name, kind in new.schema.items() if old.schema.get(name) != kind]
        return f"{_at(where)}columns {gone} → {come}"
    told = [each for name in old.columns if (each := _columns(old, new, name)) is not None]
    if not told:
        return None
    more = f"; and {len(told) - 3} more columns" if len(told) > 3 else ""
    return f"{_at(where)}{'; '.join(told[:3])}{more}"


def _columns(old: pl.DataFrame, new: pl.DataFrame, name: str) -> str | None:
    a, b = old[name], new[name]
    rows = int((~a.eq_missing(b)).sum())
    if not rows:
        return None
    text = f"column {name!r} differs in {rows} of {old.height} rows"
    if a.dtype.is_float():
        numbers = _floats(a.to_numpy(), b.to_numpy(), "")
        text += f", {numbers.rpartition(' differ, ')[2]}" if numbers else ""
    return text


def _mappings(old: Any, new: Any, where: str, depth: int) -> str | None:
    if list(old) != list(new):
        gone, come = [k for k in old if k not in new], [k for k in new if k not in old]
        if gone or come:
            return f"{_at(where)}keys {_cut(gone)} → {_cut(come)}"
        return f"{_at(where)}the keys stand in another order"
    parts = (_first(old[key], new[key], f"{where}.{key}", depth + 1) for key in old)
    return next((part for part in parts if part is not None), None)


def _sequences(old: Any, new: Any, where: str, depth: int) -> str | None:
    if len(old) != len(new):
        return f"{_at(where)}{len(old)} items → {len(new)} items"
    pairs = enumerate(zip(old, new, strict=True))
    parts = (_first(a, b, f"{where}[{index}]", depth + 1) for index, (a, b) in pairs)
    return next((part for part in parts if part is not None), None)


def _objects(old: Any, new: Any, where: str, depth: int) -> str | None:
    if depth > _DEEPEST:
        return None
    before, after = _state(old), _state(new)
    if isinstance(before, dict) and isinstance(after, dict):
        return _mappings(before, after, where, depth + 1)
    return None if repr(old) == repr(new) else f"{_at(where)}{_cut(old)} → {_cut(new)}"


def _state(value: Any) -> Any:
    """The attributes of an object; of a compiled one, such as a tree, what it would copy."""
    if fields := getattr(value, "__struct_fields__", None):
        return {name: getattr(value, name) for name in fields}
    state = getattr(value, "__dict__", None)
    if state:
        return state
    return value.__getstate__() if hasattr(value, "__getstate__") else None
