"""What a fitted estimator says itself of its fields, whatever transformers stand before it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.model_families import family_of, fitted_names


def own_importances(model: Any, table: Any) -> tuple[str, dict[str, float]] | None:
    """
    Add up the importances of the columns that an estimator was fitted on, for each field.

    A column belongs to the fields whose values change it: each field is shuffled among the rows
    and goes through the transformers. If several fields change a column, they share it alike.

    Args:
        model: A fitted estimator or pipeline.
        table: Rows with its fields, as narwhals opens them; their order does not matter.

    Returns:
        The kind of importance, and the share of each field. The shares add up to less than 1 if
        no row tells which field a column comes from. None if the estimator has no importances.
    """
    outer: Any = family_of(model)
    final, steps = outer.final_and_steps(model)
    inner = family_of(final)
    found = None if inner is None else inner.column_importances(final)
    if found is None or not (total := float(found[1].sum())) > 0:
        return None
    kind, columns = found[0], found[1] / total
    has_names = fitted_names(model) is not None
    names = fitted_names(model) or list(table.columns)
    table = table.select(names)
    if not steps:
        return kind, dict(zip(names, columns.tolist(), strict=True))

    def transformed(rows: Any) -> Any:
        value = rows.to_native() if has_names else rows.to_numpy()
        for step in steps:
            value = step.transform(value)
        return value.tocsc() if hasattr(value, "tocsc") else np.asarray(value, dtype=np.float64)

    before, backwards = transformed(table), table[list(range(len(table)))[::-1], :]
    changed = np.stack(
        [
            _changed(before, transformed(table.with_columns(backwards[name])), len(columns))
            for name in names
        ]
    )
    owners = changed.sum(axis=0)
    shares = np.where(owners > 0, columns / np.maximum(owners, 1), 0.0)
    return kind, dict(zip(names, (changed * shares).sum(axis=1).tolist(), strict=True))


def _changed(before: Any, after: Any, columns: int) -> NDArray[np.bool_]:
    """Return which columns of two matrices differ in any row."""
    if hasattr(before, "getnnz"):
        return np.asarray((before != after).getnnz(axis=0)).reshape(columns) > 0
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    return np.asarray(~same.all(axis=0))
