"""
The gate: what `gate.yaml` asks of a version before an alias moves to it.

    income:                             # the model's name
      metrics:
        accuracy: {min: 0.85}           # min, max or both, of the measured value
      size_bytes: {max: 20_000_000}     # of the package
      latency_ms: {max: 50}             # median over background rows, one at a time
      not_worse_than: champion          # the headline metric, against that alias
      better_than_baseline: true        # than the rule that needs no model

Every line is judged, and each says what was asked and what was found.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from clewline import config
from clewline.errors import InvalidConfig

# A metric that is better when it is smaller.
SMALLER = frozenset({"log_loss", "brier", "mae", "rmse", "median_absolute_error"})


class GateLimit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The least and the most that a figure may be."""

    min: float | None = None
    max: float | None = None

    def __str__(self) -> str:
        ends = [("at least", self.min), ("at most", self.max)]
        return ", ".join(f"{word} {figure(end)}" for word, end in ends if end is not None)

    def holds(self, value: float) -> bool:
        """Tell whether a value lies in it; NaN never does."""
        low = self.min is None or value >= self.min
        high = self.max is None or value <= self.max
        return low and high and value == value


class GateRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked of one model's versions."""

    metrics: dict[str, GateLimit] = {}
    size_bytes: GateLimit | None = None
    latency_ms: GateLimit | None = None
    not_worse_than: str | None = None  # an alias
    better_than_baseline: bool = False


class Gate(msgspec.Struct, frozen=True):
    """The rules for one model, and the line of `gate.yaml` that each stands in."""

    path: str
    rules: GateRules
    lines: dict[str, int]  # rule, such as metrics.accuracy → line, from 1


class Score(msgspec.Struct, frozen=True):
    """A metric with its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{figure(self.value)} [{figure(self.low)}, {figure(self.high)}]"


class GateCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a version when it is judged."""

    ref: str  # name@number
    scores: dict[str, Score] = {}
    headline: str | None = None  # the metric that versions are compared by
    size_bytes: int = 0
    latency_ms: float | None = None  # None when not measured
    beats_baseline: bool | None = None  # None when there is no report
    baseline: str = ""  # the rule in words, and what it reached
    gain: Score | None = None  # how much better than the rule, in the headline metric
    test: str | None = None  # digest of the rows it was measured on
    problem: str | None = None  # why its package could not be read


class GateVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the gate, judged."""

    rule: str
    line: int | None
    asked: str
    found: str
    passed: bool

    def __str__(self) -> str:
        where = f"gate.yaml:{self.line}: " if self.line else ""
        return f"{where}{self.rule}: {self.asked}; found {self.found}"


def read_gate(path: Path, model: str) -> Gate | None:
    """
    Read what is asked of a model; None when nothing is.

    Raises:
        InvalidConfig: The file cannot be read, or asks what is not known.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    content = config.parse(text, path, "Mend the line it names.")
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(content or {}, dict):
        raise InvalidConfig(f"{path} names no model.", f"Begin it with `{model}:`.")
    if not content or model not in content:
        return None
    lines = _lines(node, "")
    rules = _rules(path, model, content[model], lines)
    inside = {rule[len(model) + 1 :]: line for rule, line in lines.items()}
    return Gate(str(path), rules, inside)


def judge_version(
    gate: Gate, candidate: GateCandidate, holder: GateCandidate | None
) -> list[GateVerdict]:
    """
    Judge every line.

    Args:
        gate: What is asked.
        candidate: The version that is to have the alias.
        holder: The version that holds the alias named by `not_worse_than`; None when none does.
    """
    rules = gate.rules
    verdicts = [_metric(name, bound, candidate) for name, bound in rules.metrics.items()]
    if rules.size_bytes:
        verdicts.append(_size(rules.size_bytes, candidate.size_bytes))
    if rules.latency_ms:
        verdicts.append(_latency(rules.latency_ms, candidate.latency_ms))
    if rules.not_worse_than:
        verdicts.append(_not_worse(rules.not_worse_than, candidate, holder))
    if rules.better_than_baseline:
        verdicts.append(_baseline(candidate))
    return [msgspec.structs.replace(item, line=gate.lines.get(item.rule)) for item in verdicts]


def worse(metric: str, score: Score, than: Score) -> bool:
    """
    Tell whether a score is worse than the chance that another's interval allows.

    A score inside the other's interval may be as good; one beyond its bad end is worse.
    """
    if score.value != score.value:
        return True
    return score.value > than.high if metric in SMALLER else score.value < than.low


def figure(value: float) -> str:
    """Write a figure for a person: whole numbers grouped, others to four digits."""
    return f"{int(value):,}" if float(value).is_integer() else f"{value:.4g}"


def _metric(name: str, bound: GateLimit, candidate: GateCandidate) -> GateVerdict:
    score = candidate.scores.get(name)
    if score is None:
        measured = ", ".join(sorted(candidate.scores)) or "nothing"
        return _verdict(f"metrics.{name}", str(bound), f"not measured ({measured} was)", False)
    return _verdict(f"metrics.{name}", str(bound), str(score), bound.holds(score.value))


def _size(bound: GateLimit, size_bytes: int) -> GateVerdict:
    return _verdict("size_bytes", str(bound), figure(size_bytes), bound.holds(size_bytes))


def _latency(bound: GateLimit, latency_ms: float | None) -> GateVerdict:
    if latency_ms is None:
        return _verdict("latency_ms", str(bound), "no background rows to measure it on", False)
    found = f"{figure(latency_ms)} (median of one row at a time)"
    return _verdict("latency_ms", str(bound), found, bound.holds(latency_ms))


def _not_worse(alias: str, candidate: GateCandidate, holder: GateCandidate | None) -> GateVerdict:
    rule, metric = "not_worse_than", candidate.headline
    if holder is None:
        return _verdict(rule, alias, f"no version holds {alias} yet", True)
    if holder.ref == candidate.ref:
        return _verdict(rule, alias, f"{candidate.ref} holds {alias} already", True)
    if holder.problem:
        return _verdict(rule, f"{alias} {holder.ref}", f"not compared: {holder.problem}", False)
    mine = candidate.scores.get(metric or "")
    theirs = holder.scores.get(metric or "")
    if metric is None or mine is None:
        return _verdict(rule, f"{alias} {holder.ref}", f"{candidate.ref} has no report", False)
    if theirs is None:
        found = f"{holder.ref} has no {metric} to compare {mine} with"
        return _verdict(rule, f"{alias} {holder.ref}", found, False)
    asked = f"{alias} {holder.ref}, {metric} {theirs}"
    found = str(mine) if candidate.test == holder.test else f"{mine}, measured on other rows"
    return _verdict(rule, asked, found, not worse(metric, mine, theirs))


def _baseline(candidate: GateCandidate) -> GateVerdict:
    rule = "better_than_baseline"
    if candidate.beats_baseline is None:
        return _verdict(rule, "true", f"{candidate.ref} has no report", False)
    score = candidate.scores.get(candidate.headline or "")
    gain = f", better by {candidate.gain}" if candidate.gain else ""
    found = f"{candidate.headline} {score}{gain}"
    return _verdict(rule, candidate.baseline, found, candidate.beats_baseline)


def _verdict(rule: str, asked: str, found: str, passed: bool) -> GateVerdict:
    return GateVerdict(rule=rule, line=None, asked=asked, found=found, passed=passed)


def _rules(path: Path, model: str, content: Any, lines: Mapping[str, int]) -> GateRules:
    try:
        rules = msgspec.convert(content or {}, GateRules, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidConfig(
            f"{path}, under {model} (line {lines.get(model)}): {error}.", _known(content)
        ) from error
    bounds: dict[str, GateLimit | None] = {f"metrics.{k}": v for k, v in rules.metrics.items()}
    bounds |= {"size_bytes": rules.size_bytes, "latency_ms": rules.latency_ms}
    for rule, bound in bounds.items():
        if bound is not None and bound.min is None and bound.max is None:
            raise InvalidConfig(
                f"{path}, line {lines.get(f'{model}.{rule}')}: {rule} states no bound.",
                "Write {min: …}, {max: …} or both.",
            )
    return rules


def _known(content: Any) -> str:
    known = GateRules.__struct_fields__
    unknown = [str(key) for key in content if key not in known] if isinstance(content, dict) else []
    near = difflib.get_close_matches(unknown[0], known, n=1) if unknown else []
    meant = f"Did you mean {near[0]!r}? " if near else ""
    return f"{meant}The keys are {', '.join(known)}; a bound is {{min: …, max: …}}."


def _lines(node: yaml.Node | None, path: str) -> dict[str, int]:
    """Find the line, from 1, that each key of nested mappings stands in."""
    found: dict[str, int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{path}.{key.value}" if path else str(key.value)
            found[name] = key.start_mark.line + 1
            found |= _lines(value, name)
    return found
