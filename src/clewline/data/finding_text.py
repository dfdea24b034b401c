"""What findings about a table mean, as sentences: what is, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from clewline.data.findings import DataFinding
from clewline.formatting import format_count, format_list

_LONGEST = 60
METRICS = {"roc_auc": "ROC AUC", "rank_r2": "R² of ranks"}


class FindingText(NamedTuple):
    """A finding for people."""

    title: str
    what: str
    advice: str


def describe_finding(finding: DataFinding) -> FindingText:
    """Write a finding as a title, what was found, and what to do."""
    title, what, advice = TEXTS[finding.code](finding.fields, finding.values)
    return FindingText(title, what, advice)


Texts = tuple[str, str, str]
Values = dict[str, Any]


def _no_rows(fields: list[str], values: Values) -> Texts:
    return "No rows", "The table has no rows.", "Check the query or the file that it comes from."


def _target_missing(fields: list[str], values: Values) -> Texts:
    rows = format_count(values["rows"], "row has", "rows have")
    return (
        "Rows without a target",
        f"{rows} no {_name(fields[0])} ({values['share']:.1%}).",
        "Drop them, or find out why the truth is not known: if that depends on the row, what is "
        "left is not like what the model will see.",
    )


def _one_target(fields: list[str], values: Values) -> Texts:
    value = "no value" if values["value"] is None else f"the value {_name(values['value'])}"
    return (
        "Nothing to learn",
        f"{_name(fields[0])} has {value} in all rows.",
        "Check how the target is made, and whether rows of other labels were filtered out.",
    )


def _rare_labels(fields: list[str], values: Values) -> Texts:
    labels = format_count(values["count"], "label has", "labels have")
    return (
        "Rare labels",
        f"{labels} fewer than 30 rows, the rarest {values['rows']}: {_names(values['labels'])}.",
        "Collect more of them, join them to one label, or leave them to a person. Metrics of such "
        "labels say nothing.",
    )


def _imbalance(fields: list[str], values: Values) -> Texts:
    return (
        "Unbalanced labels",
        f"Only {format_count(values['rows'], 'row')} ({values['share']:.2%}) of "
        f"{_name(fields[0])} are {_name(values['label'])}.",
        "Do not judge by accuracy. Use average precision, or costs, and choose the threshold by "
        "them.",
    )


def _many_labels(fields: list[str], values: Values) -> Texts:
    return (
        "Very many labels",
        f"{_name(fields[0])} has {values['count']:,} different values.",
        "Check that it is a label and not an identifier or a text.",
    )


def _ordered_rows(fields: list[str], values: Values) -> Texts:
    return (
        "Rows stand in the order of the target",
        f"The place of a row in the table predicts {_name(fields[0])}: {_score(values)}.",
        "Shuffle before you split by position. If the order is time, the target changes over "
        "time: split by time.",
    )


def _leak(fields: list[str], values: Values) -> Texts:
    return (
        f"{_name(fields[0])} gives the answer away",
        f"{_name(fields[0])} alone predicts the target: {_score(values)}.{_rule(values)}",
        "Find out when its value becomes known. If that is after the target, or from it, drop it.",
    )


def _leak_suspect(fields: list[str], values: Values) -> Texts:
    _, what, advice = _leak(fields, values)
    return f"{_name(fields[0])} nearly gives the answer away", what, advice


def _missing_tells(fields: list[str], values: Values) -> Texts:
    return (
        f"Whether {_name(fields[0])} is missing says something about the target",
        f"{_name(fields[0])} is null in {format_count(values['rows'], 'row')} "
        f"({values['share']:.1%}), and that alone predicts the target: {_score(values)}.",
        "Find out why it is missing. If somebody fills it in after the outcome, it is a leak; "
        "otherwise keep the null and do not impute it away.",
    )


def _contradictions(fields: list[str], values: Values) -> Texts:
    examples = "; ".join(", ".join(f"{row:,}" for row in each) for each in values["examples"][:3])
    return (
        "Same row, other label",
        f"{format_count(values['rows'], 'row')} ({values['share']:.2%}) equal a row with another "
        f"label. Any model gets at least {values['unavoidable']:,} of them wrong. "
        f"Such as rows {examples} (from 0).",
        "Review them: they are label errors, or a field that decides is missing.",
    )


def _duplicates(fields: list[str], values: Values) -> Texts:
    return (
        "Duplicate rows",
        f"{format_count(values['rows'], 'row equals', 'rows equal')} an earlier one in every field "
        f"({values['share']:.2%}).",
        "Drop them, or keep all copies on one side of a split; otherwise the test is partly a "
        "repetition of the training.",
    )


def _near_duplicates(fields: list[str], values: Values) -> Texts:
    most = [f"{_name(name)} ({rows:,})" for name, rows in values["by_field"].items()]
    where = f" They differ most often in {', '.join(most[:3])} alone." if most else ""
    return (
        "Near-duplicate rows",
        f"{format_count(values['rows'], 'row')} ({values['share']:.1%}) nearly equal another: all "
        f"fields agree but one, or numbers and spellings differ slightly. By chance it would be "
        f"{values['by_chance']:,}.{where}",
        "If they are one event or one entity, keep them on one side of a split (a group split).",
    )


def _test_in_train(fields: list[str], values: Values) -> Texts:
    return (
        "Test rows that are training rows",
        f"{values['rows']:,} of {values['of']:,} test rows ({values['share']:.2%}) are in the "
        "training table.",
        "Remove them from one of the two: the model is tested on what it has seen.",
    )


def _test_near_train(fields: list[str], values: Values) -> Texts:
    return (
        "Test rows that nearly are training rows",
        f"{values['rows']:,} of {values['of']:,} test rows ({values['share']:.2%}) nearly equal a "
        f"training row. By chance it would be {values['by_chance']:,}.",
        "If they are one event or one entity, split by group; otherwise the fields are coarse, and "
        "nothing is wrong.",
    )


def _test_not_later(fields: list[str], values: Values) -> Texts:
    return (
        "The test is not later than the training",
        f"By {_name(fields[0])}, {values['share']:.0%} of the test rows are older than the newest "
        "training row.",
        "If the model will answer about the future, split by time, or the test is too easy.",
    )


def _missing(fields: list[str], values: Values) -> Texts:
    return (
        f"{_name(fields[0])} is often missing",
        f"{_name(fields[0])} is null in {format_count(values['rows'], 'row')} "
        f"({values['share']:.1%}).",
        "Find out whether it will be missing as often when the model is used.",
    )


def _identifier(fields: list[str], values: Values) -> Texts:
    tells = f" It even predicts the target: {_score(values)}." if values["tells"] else ""
    return (
        f"{_name(fields[0])} looks like an identifier",
        f"{_name(fields[0])} has {values['distinct']:,} different values, about one for each "
        f"row.{tells}",
        "Do not train on it. If it names an entity, use it to group the split.",
    )


def _many_levels(fields: list[str], values: Values) -> Texts:
    return (
        f"{_name(fields[0])} has very many levels",
        f"{_name(fields[0])} has {values['distinct']:,} levels.",
        "One-hot encoding will be large and most levels too rare; encode by frequency or by "
        "cross-fitted means, or join levels.",
    )


def _empty(fields: list[str], values: Values) -> Texts:
    count = format_count(values["count"], "field holds", "fields hold")
    return "Empty fields", f"{count} no value at all: {_of(fields, values)}.", "Drop them."


def _constant(fields: list[str], values: Values) -> Texts:
    count = format_count(values["count"], "field has", "fields have")
    return (
        "Constant fields",
        f"{count} one value in all rows: {_of(fields, values)}.",
        "Drop them: a model learns nothing from them, and another value is new to it.",
    )


def _almost_constant(fields: list[str], values: Values) -> Texts:
    count = format_count(values["count"], "field has", "fields have")
    return (
        "Almost constant fields",
        f"{count} one value in 99.5 % of the rows or more: {_of(fields, values)}.",
        "Check that the rare values are real and not errors.",
    )


def _numbers_as_text(fields: list[str], values: Values) -> Texts:
    count = format_count(values["count"], "field holds", "fields hold")
    return (
        "Numbers as text",
        f"{count} numbers written as text: {_of(fields, values)}.",
        "Cast them to numbers, unless they are codes.",
    )


def _mixed_types(fields: list[str], values: Values) -> Texts:
    return (
        f"{_name(fields[0])} mixes numbers and text",
        f"{_name(fields[0])} is a number in {values['numeric']:,} rows and something else in "
        f"{values['others']:,}, such as {_names(values['odd'])}.",
        "Turn the texts into null or into a field of their own, and cast the rest to a number.",
    )


def _null_texts(fields: list[str], values: Values) -> Texts:
    return (
        f"{_name(fields[0])} writes null as text",
        f"{_name(fields[0])} is {_names(values['texts'])} in {format_count(values['rows'], 'row')} "
        f"({values['share']:.1%}).",
        "Read these texts as null, at training and at serving alike.",
    )


def _spellings(fields: list[str], values: Values) -> Texts:
    groups = ["; ".join(repr(text) for text in group[:3]) for group in values["groups"][:2]]
    return (
        f"{_name(fields[0])} spells levels in several ways",
        f"Levels differ only in case or spaces: {', and '.join(groups)}.",
        "Write each level in one way, at training and at serving alike.",
    )


def _isolated_value(fields: list[str], values: Values) -> Texts:
    return (
        f"{_name(fields[0])} has a suspicious extreme",
        f"{_name(fields[0])} is {values['value']} in {format_count(values['rows'], 'row')}, "
        "further from all other values than these are from each other.",
        "It probably stands for null or for a limit. Read it as null, or give it a field of its "
        "own.",
    )


def _redundant(fields: list[str], values: Values) -> Texts:
    return (
        f"{_name(fields[0])} and {_name(fields[1])} say the same",
        f"{_name(fields[0])} and {_name(fields[1])} determine each other: association "
        f"{values['strength']:.3f} of 1.",
        "Keep one: explanations share the credit between them, and one may go missing.",
    )


def _proxies(fields: list[str], values: Values) -> Texts:
    by = f", most of all from {_names(values['by'])}" if values["by"] else ""
    return (
        f"Other fields tell {_name(fields[0])}",
        f"{_name(fields[0])} can be told from the other fields{by}: ROC AUC {values['auc']:.3f} "
        f"[{values['low']:.3f}, {values['high']:.3f}].",
        "Removing the field does not remove its information. Measure the model's answers by group "
        "(cl.evaluate with protected=…).",
    )


def _unequal_rates(fields: list[str], values: Values) -> Texts:
    return (
        f"Labels differ by {_name(fields[0])}",
        f"{_name(values['label'])} holds for {values['low_rate']:.1%} of "
        f"{_name(values['low_group'])} and {values['high_rate']:.1%} of "
        f"{_name(values['high_group'])}: ratio {values['ratio']:.2f}, below four fifths.",
        "Find out whether the labels are fair before a model repeats them.",
    )


def _small_groups(fields: list[str], values: Values) -> Texts:
    groups = [f"{_name(group)} ({rows:,})" for group, rows in values["groups"].items()]
    return (
        f"Small groups of {_name(fields[0])}",
        f"Groups of fewer than 100 rows: {', '.join(groups)}.",
        "Collect more of them: what the model does to them can hardly be measured.",
    )


def _fields_gone(fields: list[str], values: Values) -> Texts:
    count = format_count(values["count"], "field")
    return (
        "Fields are missing from the second table",
        f"The second table lacks {count}: {_of(fields, values)}.",
        "A model that was trained on them cannot answer its rows. Add them, or train without.",
    )


def _fields_new(fields: list[str], values: Values) -> Texts:
    count = format_count(values["count"], "field")
    return (
        "New fields in the second table",
        f"The second table has {count} more: {_of(fields, values)}.",
        "Nothing, unless one was renamed.",
    )


def _shifted(fields: list[str], values: Values) -> Texts:
    changes = [
        f"{_name(name)} ({_name(before)} → {_name(after)})"
        for name, (before, after) in values["changes"].items()
    ]
    by = f" They differ in {', '.join(changes)}." if changes else ""
    return (
        "The second table is different",
        f"A model tells rows of the two tables apart: ROC AUC {values['auc']:.3f} "
        f"[{values['low']:.3f}, {values['high']:.3f}], where 0.5 is chance.{by}",
        "Do not expect the metrics of one on the other. Train on rows like those that will come, "
        "or weight them.",
    )


def _unseen_levels(fields: list[str], values: Values) -> Texts:
    return (
        f"New levels of {_name(fields[0])}",
        f"{format_count(values['rows'], 'row')} of the second table ({values['share']:.2%}) have a "
        f"level that the first does not: {_names(values['levels'])}.",
        "Decide what an unknown level means: refuse it, or encode it as unknown.",
    )


TEXTS: dict[str, Callable[[list[str], Values], Texts]] = {
    "almost_constant": _almost_constant,
    "constant": _constant,
    "contradictions": _contradictions,
    "duplicates": _duplicates,
    "empty": _empty,
    "fields_gone": _fields_gone,
    "fields_new": _fields_new,
    "identifier": _identifier,
    "imbalance": _imbalance,
    "isolated_value": _isolated_value,
    "leak": _leak,
    "leak_suspect": _leak_suspect,
    "many_labels": _many_labels,
    "many_levels": _many_levels,
    "missing": _missing,
    "missing_tells": _missing_tells,
    "mixed_types": _mixed_types,
    "near_duplicates": _near_duplicates,
    "no_rows": _no_rows,
    "null_texts": _null_texts,
    "numbers_as_text": _numbers_as_text,
    "one_target": _one_target,
    "ordered_rows": _ordered_rows,
    "proxies": _proxies,
    "rare_labels": _rare_labels,
    "redundant": _redundant,
    "shifted": _shifted,
    "small_groups": _small_groups,
    "spellings": _spellings,
    "target_missing": _target_missing,
    "test_in_train": _test_in_train,
    "test_near_train": _test_near_train,
    "test_not_later": _test_not_later,
    "unequal_rates": _unequal_rates,
    "unseen_levels": _unseen_levels,
}


def _name(value: object) -> str:
    text = " ".join(str(value)[: 4 * _LONGEST].split()) or "(empty)"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _names(values: Iterable[object]) -> str:
    return format_list([_name(value) for value in values])


def _of(fields: list[str], values: Values) -> str:
    more = values["count"] - len(fields)
    return _names(fields) + (f" and {more:,} more" if more > 0 else "")


def _score(values: Values) -> str:
    return (
        f"{METRICS[values['metric']]} {values['value']:.3f} "
        f"[{values['low']:.3f}, {values['high']:.3f}]"
    )


def _rule(values: Values) -> str:
    return f" The rule: {values['rule']}." if values.get("rule") else ""
