"""
The gate: what `gate.yaml` asks of a version before an alias moves to it.

    income:                             # the model's name
      metrics:
        accuracy: {min: 0.85}           # min, max or both, of the measured value
      value: {gain: {min: 0}}           # per_row, total, gain over the plain rule
      slices:
        women: {accuracy: {min: 0.8}}   # the slice's name in `cl.evaluate`, and the metric
      calibration: {ece: {max: 0.05}}
      fairness:
        sex: {selection_rate_ratio: {min: 0.8}}  # or …_difference, of the groups of a field
      size_bytes: {max: 20_000_000}     # of the package
      latency_ms: {max: 50}             # median over background rows, one at a time
      not_worse_than: champion          # the headline metric, against that alias
      better_than_baseline: true        # than the rule that needs no model

Every line is judged, and each verdict says what was asked and what was found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import yaml

from clewline import config
from clewline.errors import InvalidConfig, did_you_mean
from clewline.evaluation.metrics import SMALLER_IS_BETTER, Interval, format_figure


class GateLimit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The least and the most that a figure may be."""

    min: float | None = None
    max: float | None = None

    def __str__(self) -> str:
        ends = [("at least", self.min), ("at most", self.max)]
        return ", ".join(f"{word} {format_figure(end)}" for word, end in ends if end is not None)

    def allows(self, value: float) -> bool:
        """Return whether a value lies within the limit; NaN never does."""
        low = self.min is None or value >= self.min
        high = self.max is None or value <= self.max
        return low and high and value == value


class GateRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked of one model's versions."""

    metrics: dict[str, GateLimit] = {}
    value: dict[str, GateLimit] = {}
    slices: dict[str, dict[str, GateLimit]] = {}
    calibration: dict[str, GateLimit] = {}
    fairness: dict[str, dict[str, GateLimit]] = {}
    size_bytes: GateLimit | None = None
    latency_ms: GateLimit | None = None
    not_worse_than: str | None = None  # an alias
    better_than_baseline: bool = False

    @property
    def figure_limits(self) -> dict[str, GateLimit]:
        """The limits of figures that an evaluation measures: rule → limit."""
        found = {f"metrics.{name}": limit for name, limit in self.metrics.items()}
        for section in ("value", "calibration"):
            for name, limit in getattr(self, section).items():
                found[f"{section}.{name}"] = limit
        for section in ("slices", "fairness"):
            for part, limits in getattr(self, section).items():
                for name, limit in limits.items():
                    found[f"{section}.{part}.{name}"] = limit
        return found


class Gate(msgspec.Struct, frozen=True):
    """The rules for one model, and the line of `gate.yaml` that holds each."""

    path: str
    rules: GateRules
    lines: dict[str, int]  # rule, such as metrics.accuracy → line, from 1


class GateCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a version when it is judged."""

    ref: str  # name@number
    figures: dict[str, Interval] = {}  # rule, such as metrics.accuracy → what was measured
    headline: str | None = None  # the metric that versions are compared by
    size_bytes: int = 0
    latency_ms: float | None = None  # None if it was not measured
    beats_baseline: bool | None = None  # None if there is no report
    baseline: str = ""  # the rule, and what it reached
    gain: Interval | None = None  # how much better than the rule, in the headline metric
    test: str | None = None  # digest of the rows it was measured on
    problem: str | None = None  # why its package could not be read

    @property
    def headline_score(self) -> Interval | None:
        """What was measured of the headline metric."""
        return self.figures.get(f"metrics.{self.headline}")


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


def read_gate(path: Path, model: str, models: Iterable[str] | None = None) -> Gate | None:
    """
    Read what `gate.yaml` asks of a model; None if it asks nothing.

    Args:
        path: The file.
        model: The name of the model.
        models: The names of all models; None leaves the names in the file unchecked.

    Raises:
        InvalidConfig: The file cannot be read, asks something unknown, or has rules under a
            name that no model has.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    content = config.parse(text, path, "Fix the line that the message names.")
    if not isinstance(content or {}, dict):
        raise InvalidConfig(f"{path} names no model.", f"Begin it with `{model}:`.")
    if not content:
        return None
    lines = dict(_key_lines(yaml.compose(text, Loader=yaml.SafeLoader), ""))
    known_models = {model, *(content if models is None else models)}
    for name in content:
        if name not in known_models:
            raise InvalidConfig(
                f"{path}, line {lines.get(str(name))}: no model has the name {str(name)!r}, so "
                "these rules would hold for none.",
                did_you_mean(name, known_models, "Remove them until such a model is registered."),
            )
    if model not in content:
        return None
    asked = content[model] or {}
    try:
        rules = msgspec.convert(asked, GateRules, strict=False)
    except msgspec.ValidationError as error:
        known = GateRules.__struct_fields__
        unknown = [key for key in asked if key not in known] if isinstance(asked, dict) else []
        hint = f"{did_you_mean(unknown[0], known, '')} " if unknown else ""
        raise InvalidConfig(
            f"{path}, under {model} (line {lines.get(model)}): {error}.",
            f"{hint}The keys are {', '.join(known)}; a limit is {{min: …, max: …}}.".lstrip(),
        ) from error
    limits: dict[str, GateLimit | None] = {**rules.figure_limits}
    limits |= {"size_bytes": rules.size_bytes, "latency_ms": rules.latency_ms}
    for rule, limit in limits.items():
        if limit == GateLimit():
            raise InvalidConfig(
                f"{path}, line {lines.get(f'{model}.{rule}')}: {rule} states no limit.",
                "Write {min: …}, {max: …} or both.",
            )
    return Gate(str(path), rules, {rule[len(model) + 1 :]: line for rule, line in lines.items()})


def _key_lines(node: yaml.Node | None, path: str) -> Iterator[tuple[str, int]]:
    """Yield each key of nested mappings, with the line, from 1, that holds it."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{path}.{key.value}" if path else str(key.value)
            yield name, key.start_mark.line + 1
            yield from _key_lines(value, name)


def judge_version(
    gate: Gate, candidate: GateCandidate, holder: GateCandidate | None
) -> list[GateVerdict]:
    """
    Judge every line.

    Args:
        gate: What is asked.
        candidate: The version that is to get the alias.
        holder: The version that holds the alias in `not_worse_than`; None if no version does.
    """
    rules, verdicts = gate.rules, []

    def judge(rule: str, asked: object, found: str, passed: bool) -> None:
        verdict = GateVerdict(
            rule=rule, line=gate.lines.get(rule), asked=str(asked), found=found, passed=passed
        )
        verdicts.append(verdict)

    for rule, limit in rules.figure_limits.items():
        figure = candidate.figures.get(rule)
        found = _name_measured(rule, candidate) if figure is None else str(figure)
        judge(rule, limit, found, figure is not None and limit.allows(figure.value))
    if size := rules.size_bytes:
        found = f"{format_figure(candidate.size_bytes)} bytes"
        judge("size_bytes", f"{size} bytes", found, size.allows(candidate.size_bytes))
    if latency := rules.latency_ms:
        took = candidate.latency_ms
        found = "no background rows to measure it on"
        if took is not None:
            found = f"{format_figure(took)} ms (median of one row at a time)"
        judge("latency_ms", f"{latency} ms", found, took is not None and latency.allows(took))
    if alias := rules.not_worse_than:
        judge("not_worse_than", *_compare(alias, candidate, holder))
    if rules.better_than_baseline and candidate.beats_baseline is None:
        judge("better_than_baseline", "true", f"{candidate.ref} has no report", False)
    elif rules.better_than_baseline:
        gain = f", better by {candidate.gain}" if candidate.gain else ""
        found = f"{candidate.headline} {candidate.headline_score}{gain}"
        judge("better_than_baseline", candidate.baseline, found, bool(candidate.beats_baseline))
    return verdicts


def _name_measured(rule: str, candidate: GateCandidate) -> str:
    """Say that a figure was not measured, and which ones like it were."""
    section, (part, _, name) = rule.partition(".")[0], rule.rpartition(".")
    of_section = [key for key in candidate.figures if key.startswith(f"{section}.")]
    if not of_section:
        why = f"the evaluation has no {section}" if candidate.figures else "nothing was"
        return f"not measured ({why})"
    names = sorted(k.rpartition(".")[2] for k in of_section if k.rpartition(".")[0] == part)
    if not names:  # no such slice or field
        names = sorted({key.rpartition(".")[0].partition(".")[2] for key in of_section})
        name = part.partition(".")[2]
    near = did_you_mean(name, names, "")
    return f"not measured ({', '.join(names)} was). {near}".rstrip(" .")


def _compare(
    alias: str, candidate: GateCandidate, holder: GateCandidate | None
) -> tuple[str, str, bool]:
    """Return what is asked, what was found, and whether the candidate is not worse."""
    if holder is None:
        return alias, f"no version holds {alias} yet", True
    if holder.ref == candidate.ref:
        return alias, f"{candidate.ref} already holds {alias}", True
    asked, metric = f"{alias} {holder.ref}", candidate.headline
    if holder.problem:
        return asked, f"not compared: {holder.problem}", False
    mine, theirs = candidate.headline_score, holder.figures.get(f"metrics.{metric}")
    if metric is None or mine is None:
        return asked, f"{candidate.ref} has no report", False
    if theirs is None:
        return asked, f"{holder.ref} has no {metric} to compare {mine} with", False
    found = str(mine) if candidate.test == holder.test else f"{mine}, measured on other rows"
    return f"{asked}, {metric} {theirs}", found, not is_worse(metric, mine, theirs)


def is_worse(metric: str, score: Interval, than: Interval) -> bool:
    """
    Return whether a score is worse than chance explains by another's interval.

    A score inside the other's interval may be as good; one beyond its bad end is worse, and
    so is NaN.
    """
    if score.value != score.value:
        return True
    return score.value > than.high if metric in SMALLER_IS_BETTER else score.value < than.low
