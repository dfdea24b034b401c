"""
`explain:` of an endpoint's file: which kind of explanation, with which options, and when.

    explain: anchors
    explain:
      - {kind: anchors, precision: 0.9, when: "probability < 0.7"}
      - attributions

The first rule is the endpoint's own explainer. A rule with `when` also explains each prediction
for which its condition holds, in the background.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from clewline.errors import ClewlineError, InvalidConfig, did_you_mean
from clewline.explainer_kinds import explainer_of, kinds, read_options
from clewline.serve.condition import Condition, parse_condition
from clewline.serve.graph.problems import Problems
from clewline.signature.field import Signature
from clewline.store.records import Revision

KEY = "explain"
FIX = 'Write a kind, or {kind: KIND, OPTION: …, when: "probability < 0.7"}, or a list of these.'


class ExplainRule(msgspec.Struct, frozen=True, omit_defaults=True):
    """A kind of explanation with options, and the predictions that it explains by itself."""

    kind: str
    options: dict[str, Any] = {}  # as they are written
    when: str | None = None
    condition: Condition | None = None  # of `when`

    def matches(self, answer: dict[str, Any], row: dict[str, Any]) -> bool:
        """
        Say whether a prediction is to be explained in the background.

        Args:
            answer: As it was sent, decoded; a row that failed has no answer to explain.
            row: As it came, decoded.
        """
        return (
            self.condition is not None
            and "error" not in answer
            and self.condition.holds(answer, row)
        )


def explain_rules(revision: Revision) -> tuple[ExplainRule, ...]:
    """Return the rules that a revision pins; none if it says nothing of explanations."""
    return tuple(map(_read_rule, _written_rules(revision.spec.get(KEY))))


def check_explain_rules(value: Any, problems: Problems) -> None:
    """Check what stands below `explain:` as far as the file alone tells."""
    if value is None:
        return
    try:
        written = _written_rules(value)
    except InvalidConfig:
        problems.add_wrong_value(KEY, value, FIX)
        return
    for place, each in enumerate(written):
        at = f"{KEY}[{place}]" if isinstance(value, list) else KEY
        if not isinstance(each, Mapping) or not isinstance(each.get("kind"), str):
            problems.add_wrong_value(at, each, FIX)
            continue
        if each["kind"] not in kinds():
            name = each["kind"]
            hint = did_you_mean(name, kinds())
            problems.add("unknown_kind", f"{at}.kind", value=name, nearest=hint)
            continue
        try:
            rule = _read_rule(each)
            read_options(explainer_of(rule.kind), rule.options)
        except ClewlineError as error:
            problems.add_error(at, error)


def check_conditions(revision: Revision, signature: Signature, problems: Problems) -> None:
    """Check that conditions name fields of the endpoint, and what it answers."""
    fields = [field.name for field in signature.fields]
    answers = ["value"] if signature.output.labels is None else ["label"]
    if signature.output.labels is not None and signature.output.has_probabilities:
        answers.append("probability")
    for place, rule in enumerate(explain_rules(revision)):
        at = f"{KEY}[{place}].when" if isinstance(revision.spec.get(KEY), list) else f"{KEY}.when"
        for name in () if rule.condition is None else rule.condition.names():
            if name.field is not None and name.field not in fields:
                hint = did_you_mean(name.field, [*fields, *answers])
                problems.add("when_field", at, field=name.field, nearest=hint)
            if name.answer is not None and name.answer not in answers:
                known = f"It answers with {' and '.join(answers)}."
                problems.add("when_answer", at, name=name.answer, nearest=known)


def rule_text(rule: ExplainRule) -> str:
    """
    Write the options and the condition of a rule.

    >>> rule_text(ExplainRule("anchors", {"precision": 0.9}, when="probability < 0.7"))
    'precision 0.9, when probability < 0.7'
    """
    parts = [f"{name} {_plain(value)}" for name, value in rule.options.items()]
    return ", ".join([*parts, *([f"when {rule.when}"] if rule.when else [])])


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _written_rules(value: Any) -> list[Any]:
    """Return the rules as mappings, as far as they are any."""
    if value is None:
        return []
    written = value if isinstance(value, list) else [value]
    if not written or not all(isinstance(each, str | dict) for each in written):
        raise InvalidConfig(f"{KEY} is {value!r}.", FIX)
    return [{"kind": each} if isinstance(each, str) else each for each in written]


def _read_rule(written: Mapping[str, Any]) -> ExplainRule:
    when = written.get("when")
    if isinstance(when, bool):  # YAML's own word for a condition that always holds
        when = str(when).lower()
    if when is not None and not isinstance(when, str):
        raise InvalidConfig(f"when is {when!r}.", 'Write a condition: "probability < 0.7".')
    options = {name: value for name, value in written.items() if name not in ("kind", "when")}
    condition = None if when is None else parse_condition(when)
    return ExplainRule(written["kind"], options, when, condition)
