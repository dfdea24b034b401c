"""From the numbers of an assessment to its findings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from clewline.data.assessment import Assessment
from clewline.data.field_power import FieldPower
from clewline.data.findings import DataFinding
from clewline.data.table_summary import FieldSummary

DescribeRule = Callable[[str], str | None]
"""Writes the best rule over a field, by its name."""

LEAK = {"roc_auc": 0.99, "rank_r2": 0.99}
SUSPECT = {"roc_auc": 0.95, "rank_r2": 0.9}
MISSING_TELLS = {"roc_auc": 0.55, "rank_r2": 0.02}
ORDER_TELLS = {"roc_auc": 0.55, "rank_r2": 0.05}
FOUR_FIFTHS = 0.8
_LEAST_GROUP = 100
_LISTED = 5
_UNSURE = 0.05  # how far the interval of a leak suspect may reach below the limit


def find_problems(found: Assessment, describe_rule: DescribeRule) -> list[DataFinding]:
    """Return the findings of an assessment, the most harmful first."""
    if not found.rows:
        return [DataFinding(code="no_rows", harm=1.0)]
    parts = (
        _about_target(found),
        _about_leaks(found, describe_rule),
        _about_duplicates(found),
        _about_fields(found),
        _about_pairs(found),
        _about_protected(found),
        _about_the_second_table(found),
    )
    every = [finding for part in parts for finding in part]
    return sorted(every, key=lambda finding: (-finding.harm, finding.code, finding.fields))


def _about_target(found: Assessment) -> Iterator[DataFinding]:
    values: dict[str, Any]
    target = found.target
    if target is None:
        return
    name = [target.name]
    if target.nulls:
        share = target.nulls / found.rows
        harm = 0.4 + 0.5 * share
        yield DataFinding(
            code="target_missing",
            harm=harm,
            fields=name,
            values={"rows": target.nulls, "share": share},
        )
    known = found.rows - target.nulls
    if target.distinct < 2:
        value = target.labels[0].value if target.labels else None
        yield DataFinding(code="one_target", harm=0.95, fields=name, values={"value": value})
    elif target.task == "classification":
        rarest = min(target.labels, key=lambda each: each.rows)
        few = [each.value for each in target.labels if each.rows < 30]
        share = rarest.rows / known
        if few and known >= 300:
            values = {"labels": few[:_LISTED], "count": len(few), "rows": rarest.rows}
            yield DataFinding(code="rare_labels", harm=0.5, fields=name, values=values)
        elif share < 0.1 and target.distinct <= 10:
            values = {"label": rarest.value, "rows": rarest.rows, "share": share}
            harm = 0.55 if share < 0.01 else 0.35
            yield DataFinding(code="imbalance", harm=harm, fields=name, values=values)
        if target.distinct > 100:
            yield DataFinding(
                code="many_labels", harm=0.45, fields=name, values={"count": target.distinct}
            )
    order = target.row_order
    if order is not None and target.distinct > 1 and order.low > ORDER_TELLS[order.metric]:
        harm = 0.6 if order.value > SUSPECT[order.metric] else 0.4
        yield DataFinding(code="ordered_rows", harm=harm, fields=name, values=_power(order))


def _about_leaks(found: Assessment, describe_rule: DescribeRule) -> Iterator[DataFinding]:
    values: dict[str, Any]
    if found.target is None or found.target.distinct < 2:
        return
    for field in found.fields:
        power = field.power
        if field.name == found.target.name or power is None:
            continue
        suspect = SUSPECT[power.metric]
        if power.value >= suspect and power.low >= suspect - _UNSURE:
            certain = power.value >= LEAK[power.metric]
            values = _power(power) | {"rule": describe_rule(field.name)}
            yield DataFinding(
                code="leak" if certain else "leak_suspect",
                harm=0.98 if certain else 0.72,
                fields=[field.name],
                values=values,
            )
        missing = field.missing_power
        if missing is not None and missing.low > MISSING_TELLS[missing.metric]:
            values = _power(missing) | {"rows": field.nulls, "share": field.nulls / found.rows}
            harm = 0.8 if missing.value >= SUSPECT[missing.metric] else 0.45
            yield DataFinding(code="missing_tells", harm=harm, fields=[field.name], values=values)


def _about_duplicates(found: Assessment) -> Iterator[DataFinding]:
    values: dict[str, Any]
    twice, rows = found.duplicates, found.rows
    if twice.contradictory:
        share = twice.contradictory / rows
        values = {
            "rows": twice.contradictory,
            "share": share,
            "unavoidable": twice.unavoidable,
            "examples": twice.examples,
        }
        harm = min(0.95, 0.4 + 5 * share)
        yield DataFinding(code="contradictions", harm=harm, values=values)
    if twice.repeated:
        share = twice.repeated / rows
        harm = min(0.65, 0.2 + share)
        yield DataFinding(
            code="duplicates", harm=harm, values={"rows": twice.repeated, "share": share}
        )
    if twice.near is not None and _exceeds(twice.near, twice.near_by_chance):
        share, chance = twice.near / rows, (twice.near_by_chance or 0) / rows
        names = list(twice.near_fields)[:_LISTED]
        values = {
            "rows": twice.near,
            "share": share,
            "by_chance": twice.near_by_chance,
            "by_field": {name: twice.near_fields[name] for name in names},
        }
        harm = min(0.5, 0.15 + (share - chance) / 2)
        yield DataFinding(code="near_duplicates", harm=harm, fields=names, values=values)
    overlap = found.overlap
    if overlap is not None and overlap.rows:
        if overlap.exact:
            share = overlap.exact / overlap.rows
            values = {"rows": overlap.exact, "of": overlap.rows, "share": share}
            harm = min(0.96, 0.5 + 5 * share)
            yield DataFinding(code="test_in_train", harm=harm, values=values)
        if overlap.near is not None and _exceeds(overlap.near, overlap.near_by_chance):
            share, chance = (
                overlap.near / overlap.rows,
                (overlap.near_by_chance or 0) / overlap.rows,
            )
            values = {
                "rows": overlap.near,
                "of": overlap.rows,
                "share": share,
                "by_chance": overlap.near_by_chance,
            }
            harm = min(0.68, 0.25 + share - chance)
            yield DataFinding(code="test_near_train", harm=harm, values=values)
    for order in found.times:
        if order.earlier_share > 0.05:
            harm = 0.5 if order.earlier_share > 0.5 else 0.35
            values = {"share": order.earlier_share}
            yield DataFinding(code="test_not_later", harm=harm, fields=[order.field], values=values)


def _about_fields(found: Assessment) -> Iterator[DataFinding]:
    values: dict[str, Any]
    target = found.target.name if found.target else None
    constant, nearly, empty, numeric = [], {}, [], []
    for field in found.fields:
        if field.name == target:
            continue
        known = found.rows - field.nulls
        if not known:
            empty.append(field.name)
        elif field.distinct == 1 and not field.nulls:
            constant.append(field.name)
        elif field.top is not None and known == found.rows and field.top.rows >= 0.995 * known:
            nearly[field.name] = field.top.rows / known
        yield from _about_values(field, known)
        if known and (share := field.nulls / found.rows) >= 0.05:
            harm = 0.3 + 0.3 * share if share >= 0.3 else 0.2 + share / 3
            values = {"rows": field.nulls, "share": share}
            yield DataFinding(code="missing", harm=harm, fields=[field.name], values=values)
        is_key = field.kind == "category" or (field.kind == "number" and "Int" in field.dtype)
        if is_key and field.distinct >= 0.98 * known and known >= 100:
            power = field.power
            tells = power is not None and power.low > ORDER_TELLS[power.metric]
            values = {
                "distinct": field.distinct,
                "tells": tells,
                **(_power(power) if power else {}),
            }
            harm = 0.7 if tells else 0.4
            yield DataFinding(code="identifier", harm=harm, fields=[field.name], values=values)
        elif field.kind == "category" and field.distinct > 1000:
            values = {"distinct": field.distinct}
            yield DataFinding(code="many_levels", harm=0.35, fields=[field.name], values=values)
        if field.numeric_rows == known and known:
            numeric.append(field.name)
    for code, names, harm in (("empty", empty, 0.4), ("constant", constant, 0.35)):
        if names:
            values = {"count": len(names)}
            yield DataFinding(code=code, harm=harm, fields=names[:_LISTED], values=values)
    if nearly:
        names = list(nearly)[:_LISTED]
        values = {"count": len(nearly), "shares": {name: nearly[name] for name in names}}
        yield DataFinding(code="almost_constant", harm=0.25, fields=names, values=values)
    if numeric:
        values = {"count": len(numeric)}
        yield DataFinding(code="numbers_as_text", harm=0.3, fields=numeric[:_LISTED], values=values)


def _about_values(field: FieldSummary, known: int) -> Iterator[DataFinding]:
    values: dict[str, Any]
    name = [field.name]
    if field.odd and field.numeric_rows:
        values = {
            "numeric": field.numeric_rows,
            "others": known - field.numeric_rows,
            "odd": field.odd,
        }
        yield DataFinding(code="mixed_types", harm=0.55, fields=name, values=values)
    if field.null_texts:
        rows = sum(each.rows for each in field.null_texts)
        texts = [each.value for each in field.null_texts][:_LISTED]
        values = {"texts": texts, "rows": rows, "share": rows / known}
        yield DataFinding(code="null_texts", harm=0.45, fields=name, values=values)
    if field.spellings:
        values = {"groups": field.spellings}
        yield DataFinding(code="spellings", harm=0.42, fields=name, values=values)
    if field.isolated is not None:
        values = {"value": field.isolated.value, "rows": field.isolated.rows}
        yield DataFinding(code="isolated_value", harm=0.38, fields=name, values=values)


def _about_pairs(found: Assessment) -> Iterator[DataFinding]:
    if found.associations is None:
        return
    names, values = found.associations.fields, found.associations.values
    target = found.target.name if found.target else None
    for place, name in enumerate(names):
        for other in range(place):
            strength = values[place][other]
            if strength >= 0.98 and target not in (name, names[other]):
                pair = sorted((name, names[other]))
                yield DataFinding(
                    code="redundant", harm=0.28, fields=pair, values={"strength": strength}
                )


def _about_protected(found: Assessment) -> Iterator[DataFinding]:
    values: dict[str, Any]
    for each in found.protected:
        name = [each.field]
        apart = each.from_others
        if apart is not None and apart.low > 0.7:
            values = {
                "auc": apart.auc,
                "low": apart.low,
                "high": apart.high,
                "by": [weight.field for weight in apart.fields[:_LISTED]],
            }
            harm = 0.74 if apart.auc > 0.9 else 0.58
            yield DataFinding(code="proxies", harm=harm, fields=name, values=values)
        rated = [g for g in each.groups if g.rate is not None and g.rows >= _LEAST_GROUP]
        if each.positive is not None and len(rated) > 1:
            low = min(rated, key=lambda group: group.rate or 0.0)
            high = max(rated, key=lambda group: group.rate or 0.0)
            ratio = (low.rate or 0.0) / high.rate if high.rate else 1.0
            if ratio < FOUR_FIFTHS and (low.high or 0.0) < (high.low or 0.0):
                values = {
                    "label": each.positive,
                    "low_group": low.group,
                    "low_rate": low.rate,
                    "high_group": high.group,
                    "high_rate": high.rate,
                    "ratio": ratio,
                }
                yield DataFinding(code="unequal_rates", harm=0.62, fields=name, values=values)
        small = [group for group in each.groups if 0 < group.rows < _LEAST_GROUP]
        if small and found.rows >= 10 * _LEAST_GROUP:
            values = {"groups": {group.group: group.rows for group in small[:_LISTED]}}
            yield DataFinding(code="small_groups", harm=0.5, fields=name, values=values)


def _about_the_second_table(found: Assessment) -> Iterator[DataFinding]:
    values: dict[str, Any]
    against = found.against
    if against is None:
        return
    if against.missing_fields:
        values = {"count": len(against.missing_fields)}
        names = against.missing_fields[:_LISTED]
        yield DataFinding(code="fields_gone", harm=0.85, fields=names, values=values)
    if against.new_fields:
        names, values = against.new_fields[:_LISTED], {"count": len(against.new_fields)}
        yield DataFinding(code="fields_new", harm=0.15, fields=names, values=values)
    apart = against.apart
    if apart is not None and apart.low > 0.55:
        named = {weight.field for weight in apart.fields[:_LISTED]}
        shifts = [shift for shift in against.shifts if shift.field in named]
        values = {
            "auc": apart.auc,
            "low": apart.low,
            "high": apart.high,
            "changes": {shift.field: [shift.before, shift.after] for shift in shifts},
        }
        harm = 0.88 if apart.auc > 0.8 else 0.7 if apart.auc > 0.65 else 0.4
        fields = [weight.field for weight in apart.fields[:_LISTED]]
        yield DataFinding(code="shifted", harm=harm, fields=fields, values=values)
    for shift in against.shifts:
        if shift.unseen_rows and against.rows:
            share = shift.unseen_rows / against.rows
            values = {"rows": shift.unseen_rows, "share": share, "levels": shift.unseen}
            harm = min(0.6, 0.25 + share)
            yield DataFinding(code="unseen_levels", harm=harm, fields=[shift.field], values=values)


def _power(power: FieldPower) -> dict[str, Any]:
    return {"metric": power.metric, "value": power.value, "low": power.low, "high": power.high}


def _exceeds(rows: int, by_chance: int | None) -> bool:
    chance = by_chance or 0
    return rows > chance + 4 * math.sqrt(chance + 1)
