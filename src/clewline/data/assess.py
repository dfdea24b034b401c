"""`cl.assess`: what in a table may harm a model that is trained on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np

from clewline.data.assessment import (
    Assessment,
    GroupRate,
    ProtectedGroups,
    TargetSummary,
    TimeOrder,
)
from clewline.data.associations import Associations, measure_associations
from clewline.data.discriminator import MOST_FIELDS, discriminate
from clewline.data.duplicates import find_duplicates, find_overlap
from clewline.data.field_power import CodedTarget, code_target, measure_power
from clewline.data.find_problems import find_problems
from clewline.data.prepared_table import (
    Binning,
    Codes,
    PreparedColumn,
    PreparedTable,
    draw_rows,
    floats,
    prepare_table,
)
from clewline.data.table_comparison import compare_tables
from clewline.data.table_summary import (
    FieldSummary,
    LevelRows,
    missing_patterns,
    summarise_field,
)
from clewline.errors import InvalidInput, did_you_mean
from clewline.flow.step import step

SAMPLE_ROWS = 100_000
"""Rows of which the power of single fields is measured."""

MODEL_ROWS = 20_000
"""Rows of which associations are measured."""

PROTECTED_ROWS = 10_000
"""Rows on which protected fields are told from the others."""

ASSOCIATED_FIELDS = 24
MOST_LABELS = 20
"""Distinct numbers up to which a numeric target is a label; also labels that are told apart."""

_LISTED_LABELS = 50
_INTERVALS = 50  # fields whose power gets an interval, the strongest ones
_GROUPS = 12


@step
def assess(
    table: Any,
    *,
    target: str | None = None,
    protected: Sequence[str] = (),
    test: Any = None,
    against: Any = None,
    seed: int = 0,
) -> Assessment:
    """
    Assess a table before a model is trained on it.

    Args:
        table: The training table (Polars, pandas or Arrow), with the target.
        target: The column that is to be predicted. Without it leaks, label contradictions and
            balance are not looked for.
        protected: Fields by which people must not be treated differently, such as sex.
        test: The test table; rows that it shares with the training table are counted.
        against: A second table, such as rows that were seen live, that should be like the first.
        seed: Seed of samples, folds and models.

    Returns:
        The assessment; its `findings` are ordered by harm.

    Raises:
        InvalidInput: Something is not a table, a table lacks a named column, or the second table
            has no field of the first.
    """
    prepared = prepare_table(table)
    _require(prepared, [*([] if target is None else [target]), *protected], "table")
    if target is not None and target in protected:
        raise InvalidInput(
            f"The target {target!r} is protected as well.", "Name the target or protect it."
        )
    fields = {name: column for name, column in prepared.columns.items() if name != target}
    summaries = {name: summarise_field(column) for name, column in prepared.columns.items()}
    aim = None if target is None else prepared.columns[target]
    is_regression = aim is not None and _is_quantity(aim, summaries[aim.name])
    labels, names = (None, []) if aim is None or is_regression else _label_codes(aim)
    result = Assessment(
        rows=prepared.rows,
        fields=[],
        missing=missing_patterns(prepared),
        duplicates=find_duplicates(list(fields.values()), aim, labels),
        findings=[],
        sampled_rows=min(prepared.rows, SAMPLE_ROWS),
        seed=seed,
    )
    changes: dict[str, Any] = {}
    if aim is not None:
        drawn = draw_rows(prepared.rows, SAMPLE_ROWS, seed)
        coded, drawn = _code_sample(aim, labels, drawn, seed)
        summaries |= _with_powers(summaries, fields, coded, drawn)
        changes["target"] = _summarise_target(aim, summaries[aim.name], labels, names, coded, drawn)
    changes["fields"] = list(summaries.values())
    sample = prepared.sample(MODEL_ROWS, seed)
    changes["associations"] = _associate(sample, summaries, protected, target)
    changes["protected"] = [
        _inspect_protected(prepared, sample, name, aim, labels, names, summaries, seed)
        for name in dict.fromkeys(protected)
    ]
    if test is not None:
        other = prepare_table(test)
        _require(other, list(fields), "test table")
        pairs = [(fields[name], other.columns[name]) for name in fields]
        changes["overlap"] = find_overlap([a for a, _ in pairs], [b for _, b in pairs])
        changes["times"] = [
            found for one, two in pairs if (found := _order_of_times(one, two)) is not None
        ]
    if against is not None:
        second = prepare_table(against)
        changes["against"] = compare_tables(prepared, second, target=target, seed=seed)
    result = msgspec.structs.replace(result, **changes)
    describe_rule = partial(_describe_rule, table, aim, labels, names, seed)
    return msgspec.structs.replace(result, findings=find_problems(result, describe_rule))


def _require(table: PreparedTable, names: Sequence[str], what: str) -> None:
    for name in names:
        if name not in table.columns:
            raise InvalidInput(
                f"The {what} has no column {name!r}.", did_you_mean(name, table.columns)
            )


def _is_quantity(column: PreparedColumn, summary: FieldSummary) -> bool:
    if column.kind == "datetime":
        return True
    return column.kind == "number" and (
        summary.distinct > MOST_LABELS or (column.values.dtype.is_float() and summary.distinct > 2)
    )


def _label_codes(column: PreparedColumn) -> tuple[Codes, list[str]]:
    """Return the index of each row's label, -1 for null, and the labels in ascending order."""
    import polars as pl

    levels = column.values.drop_nulls().unique().sort()
    if not len(levels):
        return np.full(len(column.values), -1), []
    found = column.values.replace_strict(
        levels, pl.Series(range(len(levels)), dtype=pl.Int64), default=-1, return_dtype=pl.Int64
    )
    codes = np.where(column.values.is_null().to_numpy(), -1, found.fill_null(-1).to_numpy())
    names = [_label_text(column, level) for level in levels]
    return codes.astype(np.int64), names


def _label_text(column: PreparedColumn, level: Any) -> str:
    if column.kind == "boolean":
        return "true" if level else "false"
    return f"{level:.15g}" if isinstance(level, float) else str(level)[:100]


def _code_sample(
    aim: PreparedColumn, labels: Codes | None, drawn: Codes, seed: int
) -> tuple[CodedTarget, Codes]:
    """Return the target of the drawn rows that have one, and those rows."""
    if labels is not None:
        drawn = drawn[labels[drawn] >= 0]
        found = labels[drawn]
        counts = np.bincount(found) if len(found) else np.zeros(1)
        if len(counts) > MOST_LABELS:  # the rare ones together
            common = np.argsort(-counts, kind="stable")[: MOST_LABELS - 1]
            new = np.full(len(counts), MOST_LABELS - 1)
            new[common] = np.arange(MOST_LABELS - 1)
            found = new[found]
        return code_target(found, None, seed=seed), drawn
    numbers = floats(aim)[drawn]
    known = np.isfinite(numbers)
    return code_target(None, numbers[known], seed=seed), drawn[known]


def _with_powers(
    summaries: dict[str, FieldSummary],
    fields: dict[str, PreparedColumn],
    target: CodedTarget,
    drawn: Codes,
) -> dict[str, FieldSummary]:
    """Return the summaries with the power of each field, and of whether it is null."""
    if len(drawn) < 2:
        return {}
    coded, quick = {}, {}
    for name, column in fields.items():
        part = column.take(drawn)
        binning = Binning(part)
        coded[name] = (binning.codes(part), binning.count)
        quick[name] = measure_power(*coded[name], target, interval=False)
    strongest = sorted(quick, key=lambda name: -quick[name].value)[:_INTERVALS]
    found = {}
    for name in fields:
        power = measure_power(*coded[name], target) if name in strongest else quick[name]
        missing = None
        codes = coded[name][0]
        if 0 < (gaps := int((codes == 0).sum())) < len(codes) and gaps >= 20:
            missing = measure_power((codes == 0).astype(np.int64), 2, target)
        found[name] = msgspec.structs.replace(summaries[name], power=power, missing_power=missing)
    return found


def _summarise_target(
    aim: PreparedColumn,
    summary: FieldSummary,
    labels: Codes | None,
    names: list[str],
    coded: CodedTarget,
    drawn: Codes,
) -> TargetSummary:
    order = None
    if len(drawn) >= 100:
        places = drawn * 32 // (int(drawn[-1]) + 1)
        order = measure_power(places, 32, coded)
    known: dict[str, Any] = {
        "name": aim.name,
        "nulls": summary.nulls,
        "distinct": summary.distinct,
        "row_order": order,
    }
    if labels is None:
        return TargetSummary(task="regression", histogram=summary.histogram, **known)
    counts = np.bincount(labels[labels >= 0], minlength=len(names))
    most = np.argsort(-counts, kind="stable")[:_LISTED_LABELS]
    listed = [LevelRows(names[place], int(counts[place])) for place in most]
    return TargetSummary(task="classification", labels=listed, **known)


def _associate(
    sample: PreparedTable,
    summaries: dict[str, FieldSummary],
    protected: Sequence[str],
    target: str | None,
) -> Associations | None:
    """Measure the associations of up to 24 fields: target, protected, then the strongest."""
    usable = [
        name
        for name, column in sample.columns.items()
        if column.kind != "text" and summaries[name].distinct > 1
    ]
    if len(usable) < 2 or sample.rows < 10:
        return None
    first = [name for name in (target, *protected) if name in usable]

    def power(name: str) -> float:
        found = summaries[name].power
        return -found.value if found is not None else 0.0

    others = sorted((name for name in usable if name not in first), key=power)
    chosen = {*first, *others[: max(0, ASSOCIATED_FIELDS - len(first))]}
    names = [name for name in usable if name in chosen]
    return measure_associations([sample.columns[name] for name in names])


def _inspect_protected(
    table: PreparedTable,
    sample: PreparedTable,
    name: str,
    aim: PreparedColumn | None,
    labels: Codes | None,
    label_names: list[str],
    summaries: dict[str, FieldSummary],
    seed: int,
) -> ProtectedGroups:
    groups, titles = _groups_of(table.columns[name])
    positive = label_names[-1] if labels is not None and len(label_names) == 2 else None
    values = None
    if positive is not None and labels is not None:
        values = np.where(labels < 0, np.nan, labels == 1)
    elif aim is not None and labels is None:
        values = floats(aim)
    rates = [
        _rate(title, groups == place, values, is_share=positive is not None)
        for place, title in enumerate(titles)
    ]
    others = [
        column
        for each, column in sample.columns.items()
        if each != name and (aim is None or each != aim.name) and summaries[each].distinct > 1
    ]
    if len(others) > MOST_FIELDS:
        coded, _ = _groups_of(sample.columns[name])
        goal = code_target(np.maximum(coded, 0), None, seed=seed)
        powers = {}
        for column in others:
            binning = Binning(column)
            powers[column.name] = measure_power(
                binning.codes(column), binning.count, goal, interval=False
            ).value
        others = sorted(others, key=lambda column: -powers[column.name])[:MOST_FIELDS]
    sampled, _ = _groups_of(sample.columns[name])
    known = np.flatnonzero(sampled >= 0)
    found = None
    if len(known) > PROTECTED_ROWS:
        known = known[draw_rows(len(known), PROTECTED_ROWS, seed)]
    if len(known):
        found = discriminate([each.take(known) for each in others], sampled[known], seed=seed)
    return ProtectedGroups(field=name, positive=positive, groups=rates, from_others=found)


def _groups_of(column: PreparedColumn) -> tuple[Codes, list[str]]:
    """Return the group of each row, -1 for null: its level, or the quarter that it lies in."""
    if column.kind in ("number", "datetime") and column.values.n_unique() > _GROUPS:
        numbers = floats(column)
        known = numbers[np.isfinite(numbers)]
        edges = np.unique(np.quantile(known, [0.25, 0.5, 0.75], method="lower"))
        codes = np.where(np.isnan(numbers), -1, np.searchsorted(edges, numbers, side="left"))
        names = [f"up to {edges[0]:.6g}"]
        names += [f"{low:.6g} to {high:.6g}" for low, high in pairwise(edges)]
        return codes.astype(np.int64), [*names, f"above {edges[-1]:.6g}"]
    codes, names = _label_codes(column)
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    if len(names) <= _GROUPS:
        return codes, names
    common = np.argsort(-counts, kind="stable")[: _GROUPS - 1]
    new = np.append(np.full(len(names), _GROUPS - 1), -1)  # the last is null's
    new[common] = np.arange(_GROUPS - 1)
    return new[codes], [*(names[place] for place in common), "all others"]


def _rate(title: str, here: Any, values: Any, *, is_share: bool) -> GroupRate:
    rows = int(here.sum())
    if values is None:
        return GroupRate(group=title, rows=rows)
    known = values[here]
    known = known[np.isfinite(known)]
    if not len(known):
        return GroupRate(group=title, rows=rows)
    n, mean, z = len(known), float(known.mean()), 1.959964
    if is_share:  # Wilson, Probable inference (JASA 22, 1927)
        middle = (mean + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * math.sqrt(mean * (1 - mean) / n + z**2 / (4 * n**2))
    else:
        middle, half = mean, z * float(known.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    return GroupRate(group=title, rows=rows, rate=mean, low=middle - half, high=middle + half)


def _order_of_times(train: PreparedColumn, test: PreparedColumn) -> TimeOrder | None:
    if train.kind != "datetime" or test.kind != "datetime":
        return None
    known, asked = train.values.drop_nulls(), test.values.drop_nulls()
    if not len(known) or not len(asked):
        return None
    newest: Any = known.max()
    return TimeOrder(field=train.name, earlier_share=float((asked < newest).mean() or 0.0))


def _describe_rule(
    table: Any,
    aim: PreparedColumn | None,
    labels: Codes | None,
    names: list[str],
    seed: int,
    field: str,
) -> str | None:
    """Write the best rule that asks about one field; None if no question about it helps."""
    from clewline.evaluation.baseline import Objective, learn_rule
    from clewline.evaluation.columns import read_columns
    from clewline.signature import dataframes

    if aim is None:
        return None
    drawn = draw_rows(len(aim.values), MODEL_ROWS, seed)
    truth: Any = floats(aim)[drawn] if labels is None else labels[drawn]
    known = np.isfinite(truth) if labels is None else truth >= 0
    if not known.any():
        return None
    part = dataframes.open_table(table).select(field)[drawn[known].tolist()].to_native()
    objective = Objective(None if labels is None else len(names))
    rule = learn_rule(read_columns(part), truth[known], objective, seed=seed)
    text = rule.describe(names)
    return None if text.startswith("always ") else text
