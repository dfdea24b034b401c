"""
Fitted transformers as operations on single columns.

Numbers are lowered by the arithmetic that each class documents. Strings are lowered by
asking: the fitted transformer itself is called on every level, null and a level that
it has never seen, and the answers are kept as a table. So whatever an encoder does
with unknown, infrequent, dropped or missing levels, the table does too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.model.compile.candidate_forms import NotConvertible
from clewline.model.compile.lowered_columns import (
    CodeColumn,
    ColumnOp,
    LookupTable,
    LoweredColumn,
    NumberColumn,
    OpName,
    UnsupportedColumn,
    object_array,
)


def lower(step: Any, columns: list[LoweredColumn]) -> list[LoweredColumn]:
    """
    Pass columns through a fitted transformer.

    Raises:
        NotConvertible: Its class mixes columns or rows, or cannot be converted.
    """
    name = type(step).__name__
    known = _select if hasattr(step, "get_support") else _LOWERINGS.get(name)
    if known is None or not type(step).__module__.startswith("sklearn."):
        raise NotConvertible(f"{name} cannot be converted")
    return known(step, columns)


def column_groups(step: Any, columns: list[LoweredColumn]) -> list[tuple[Any, list[Any]]]:
    """Return the parts of a ColumnTransformer, each with its columns; dropped ones are left out."""
    if step.transformer_weights:
        raise NotConvertible("ColumnTransformer with transformer_weights cannot be converted")
    groups = []
    for name, inner, _ in step.transformers_:
        chosen = [columns[index] for index in step._transformer_to_input_indices[name]]
        if chosen and not (isinstance(inner, str) and inner == "drop"):
            groups.append((inner, chosen))
    return groups


def known_texts(steps: list[Any]) -> set[str]:
    """Return the strings that fitted transformers know: categories, fills, missing values."""
    found: set[str] = set()
    for step in steps:
        values = [value for known in getattr(step, "categories_", ()) for value in known]
        for name in ("statistics_", "missing_values"):
            values += np.ravel(np.array(getattr(step, name, []), dtype=object)).tolist()
        found |= {value for value in values if isinstance(value, str)}
        for name in ("steps", "transformers_", "transformer_list"):
            found |= known_texts([part[1] for part in getattr(step, name, ())])
        inner = [getattr(step, name, None) for name in ("best_estimator_", "_preprocessor")]
        inner += [getattr(step, "estimator_", None), *getattr(step, "estimators_", ())]
        found |= known_texts([each for each in inner if each is not None])
    return found


def _pipeline(step: Any, columns: list[LoweredColumn]) -> list[LoweredColumn]:
    for _, inner in step.steps:
        if inner is not None and inner != "passthrough":
            columns = lower(inner, columns)
    return columns


def _column_transformer(step: Any, columns: list[LoweredColumn]) -> list[LoweredColumn]:
    lowered: list[LoweredColumn] = []
    for inner, chosen in column_groups(step, columns):
        lowered += chosen if isinstance(inner, str) else lower(inner, chosen)
    return lowered


def _feature_union(step: Any, columns: list[LoweredColumn]) -> list[LoweredColumn]:
    if step.transformer_weights:
        raise NotConvertible("FeatureUnion with transformer_weights cannot be converted")
    lowered: list[LoweredColumn] = []
    for _, inner in step.transformer_list:
        if inner != "drop":
            lowered += columns if inner == "passthrough" else lower(inner, columns)
    return lowered


def _function(step: Any, columns: list[LoweredColumn]) -> list[LoweredColumn]:
    if step.func is not None:
        raise NotConvertible("FunctionTransformer with a function cannot be converted")
    return columns


def _select(step: Any, columns: list[LoweredColumn]) -> list[LoweredColumn]:
    return [columns[index] for index in step.get_support(indices=True).tolist()]


# ── numbers ─────────────────────────────────────────────────────────────────


def _imputer(step: Any, columns: list[LoweredColumn]) -> list[LoweredColumn]:
    missing = step.missing_values
    out: list[LoweredColumn] = []
    for fill, column in zip(step.statistics_.tolist(), columns, strict=True):
        if _is_nan(fill):
            continue
        if isinstance(column, NumberColumn):
            if not _is_nan(missing):
                raise NotConvertible(f"SimpleImputer of numbers with missing_values={missing!r}")
            out.append(column.then(ColumnOp("fill", float(fill))))
            continue
        code = _code(column)
        values = [fill if _is_missing(value, missing) else value for value in code.values.tolist()]
        filled = np.array(values, np.float64) if code.encoded else object_array(values)
        out.append(CodeColumn(code.field, filled, code.refused))
    for index in step.indicator_.features_.tolist() if step.add_indicator else ():
        column = columns[index]
        if isinstance(column, NumberColumn):
            ops = (*column.ops, ColumnOp("isnan"))
            out.append(NumberColumn(column.field, ops, column.single))
            continue
        code = _code(column)
        found = [float(_is_missing(value, missing)) for value in code.values.tolist()]
        out.append(CodeColumn(code.field, np.array(found), code.refused))
    return out


def _scaler(step: Any, columns: list[LoweredColumn]) -> list[LoweredColumn]:
    parts: dict[OpName, Any]
    limits: tuple[float, float] = (-1.0, 1.0)
    match type(step).__name__:
        case "StandardScaler":
            parts = {"sub": step.with_mean and step.mean_, "div": step.with_std and step.scale_}
        case "RobustScaler":
            centre, scale = step.with_centering and step.center_, step.with_scaling and step.scale_
            parts = {"sub": centre, "div": scale}
        case "MaxAbsScaler":
            parts = {"div": step.scale_}
        case _:  # MinMaxScaler
            limits = (float(step.feature_range[0]), float(step.feature_range[1]))
            parts = {"mul": step.scale_, "add": step.min_}
    used = {kind: values for kind, values in parts.items() if isinstance(values, np.ndarray)}
    out: list[LoweredColumn] = []
    for index, column in enumerate(columns):
        ops = [ColumnOp(kind, float(values[index])) for kind, values in used.items()]
        ops += [ColumnOp("clip", limits)] if getattr(step, "clip", False) else []
        if isinstance(column, NumberColumn):
            out.append(column.then(*ops))
            continue
        code = _code(column)
        if not code.encoded:
            raise NotConvertible("a scaler stands before the encoder of a string")
        scaled = NumberColumn(0, tuple(ops)).apply(code.values)
        out.append(CodeColumn(code.field, scaled, code.refused))
    return out


# ── encoders ────────────────────────────────────────────────────────────────


def _encoder(step: Any, columns: list[LoweredColumn]) -> list[LoweredColumn]:
    """Ask the encoder about each value of each column, the others held at a level it knows."""
    candidates = []
    for column, categories in zip(columns, step.categories_, strict=True):
        if not isinstance(column, NumberColumn):
            candidates.append(_code(column).values)
            continue
        keys = [float(key) for key in categories if key is not None]
        known = [key for key in keys if not np.isnan(key)]
        candidates.append(object_array([*known, max(known, default=0.0) + 1.5, float("nan")]))
    base = object_array([categories[0] for categories in step.categories_])
    asked = [_ask(step, base, index, values) for index, values in enumerate(candidates)]
    varies = []
    for answers, _ in asked:
        rows = answers[~np.isnan(answers).all(axis=1)] if len(answers) else answers
        same = (rows == rows[:1]) | (np.isnan(rows) & np.isnan(rows[:1]))
        varies.append(~same.all(axis=0))
    varying = np.array(varies)
    if (varying.sum(axis=0) > 1).any():
        raise NotConvertible("an encoder mixes columns")
    out: list[LoweredColumn] = []
    for place in range(varying.shape[1]):
        owner = int(varying[:, place].argmax())  # the input column that it depends on
        column, (answers, failed) = columns[owner], asked[owner]
        values = answers[:, place]
        if not isinstance(column, NumberColumn):
            code = _code(column)
            out.append(CodeColumn(code.field, values, code.refused | failed))
            continue
        if len(candidates[owner]) - 2 in failed:
            raise NotConvertible(
                "an encoder of numbers refuses unknown ones; train it to ignore them"
            )
        *found, unseen, null = map(float, values)
        pairs = zip(candidates[owner], found, strict=False)
        table = {float(key): value for key, value in pairs if value != unseen}
        lookup = LookupTable(tuple(table), tuple(table.values()), unseen, null)
        out.append(column.then(ColumnOp("lookup", lookup)))
    return out


def _ask(
    step: Any, base: NDArray[Any], column: int, values: NDArray[Any]
) -> tuple[NDArray[np.float64], frozenset[int]]:
    """Return what an encoder makes of the values of a column, and the places that it refuses."""
    rows = np.empty((len(values), len(base)), dtype=object)
    rows[:] = base
    rows[:, column] = values
    try:
        return _transformed(step, rows), frozenset()
    except (ValueError, TypeError):
        pass
    answers: list[NDArray[np.float64] | None] = []
    for index in range(len(rows)):
        try:
            answers.append(_transformed(step, rows[index : index + 1])[0])
        except (ValueError, TypeError):
            answers.append(None)
    width = next((len(answer) for answer in answers if answer is not None), 0)
    filled = [np.full(width, np.nan) if answer is None else answer for answer in answers]
    return np.array(filled), frozenset(i for i, a in enumerate(answers) if a is None)


def _transformed(step: Any, rows: NDArray[Any]) -> NDArray[np.float64]:
    with warnings.catch_warnings(action="ignore"):
        found = step.transform(rows)
    dense = found.toarray() if hasattr(found, "toarray") else found
    return np.asarray(dense, dtype=np.float64)


def _code(column: LoweredColumn) -> CodeColumn:
    if isinstance(column, CodeColumn):
        return column
    assert isinstance(column, UnsupportedColumn)
    raise NotConvertible(column.reason)


def _is_missing(value: Any, missing: Any) -> bool:
    if _is_nan(missing):
        return _is_nan(value)
    return value is missing or (type(value) is type(missing) and bool(value == missing))


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and bool(np.isnan(value))


_LOWERINGS: dict[str, Callable[[Any, list[LoweredColumn]], list[LoweredColumn]]] = {
    "Pipeline": _pipeline,
    "ColumnTransformer": _column_transformer,
    "FeatureUnion": _feature_union,
    "FunctionTransformer": _function,
    "SimpleImputer": _imputer,
    **dict.fromkeys(("MaxAbsScaler", "MinMaxScaler", "RobustScaler", "StandardScaler"), _scaler),
    **dict.fromkeys(("OneHotEncoder", "OrdinalEncoder", "TargetEncoder"), _encoder),
}
