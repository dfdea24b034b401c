"""What `route:` and `combine:` say, read from an endpoint's file into what a revision pins."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from clewline.errors import NotSupported
from clewline.serve.graph import model_import
from clewline.serve.graph.problems import Problems, nearest

OPERATORS = {
    "is": "==", "not": "!=", "in": "in", "below": "<", "at_most": "<=",
    "above": ">", "at_least": ">=", "missing": "missing",
}  # fmt: skip
"""How a rule's condition is written, and what stands for it in the resolved tree."""

ORDERED = frozenset({"<", "<=", ">", ">="})

GROUPS = ("any", "all")
"""Lists of conditions within a rule: one is enough, or all must hold."""

_EXACT = 1e-9
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

Config = dict[str, Any]


def route_config(value: Any, arms: list[str], at: str, problems: Problems) -> tuple[str, Config]:
    """
    Read `route:`: a kind alone, or a mapping with its `kind` and what belongs to it.

    Returns:
        The kind, and its config as a revision pins it. A kind of a plug-in keeps its
        config as it is.
    """
    how, given = _kind(value, at, "sticky", problems)
    reader = _ROUTES.get(how)
    if reader is not None:
        return how, reader(given, arms, at, problems)
    if how:
        _require_router(how, at, problems)
    return how, given


def combine_config(
    value: Any, branches: list[str], at: str, problems: Problems
) -> tuple[str, Config]:
    """
    Read `combine:`: `mean`, `vote`, `stack`, or a function of the project.

    Returns:
        The kind and its config; of a function with what it is under `call`, of a
        stack with the text of its model under `model`.
    """
    if isinstance(value, str) and ":" in value:
        return "function", {"call": value}
    if isinstance(value, dict) and "function" in value:
        call = {key: each for key, each in value.items() if key != "kind"}
        return "function", {"call": call}
    how, given = _kind(value, at, "mean", problems)
    reader = _COMBINES.get(how)
    if reader is not None:
        return how, reader(given, branches, at, problems)
    if how:
        hint = nearest(how, (*_COMBINES, "FILE.py:NAME"))
        problems.add(at, f"{at} is {how!r}, which combines nothing.", hint)
    return how, given


def _require_router(how: str, at: str, problems: Problems) -> None:
    from clewline.serve.graph.routers.router import router_kind  # arrays, which most files need not

    try:
        router_kind(how)
    except NotSupported as error:
        problems.add(at, f"{at}: {error.message}", nearest(how, _ROUTES))


def _kind(value: Any, at: str, example: str, problems: Problems) -> tuple[str, Config]:
    if isinstance(value, str) and value:
        return value, {}
    if isinstance(value, dict) and isinstance(value.get("kind"), str):
        return value["kind"], {str(key): each for key, each in value.items() if key != "kind"}
    problems.add(at, f"{at} is {value!r}.", f"Write a kind, such as {{kind: {example}}}.")
    return "", {}


# Routes


def _weighted(given: Config, arms: list[str], at: str, problems: Problems) -> Config:
    _known(given, ("weights", "ramp", "salt"), at, problems)
    config: Config = {"weights": _weights(given.get("weights"), arms, f"{at}.weights", problems)}
    if "ramp" in given:
        config["ramp"] = _ramp(given["ramp"], arms, f"{at}.ramp", problems)
    if "salt" in given:
        config["salt"] = str(given["salt"])
    return config


def _sticky(given: Config, arms: list[str], at: str, problems: Problems) -> Config:
    """As by weights, which are even where none are said."""
    even = dict.fromkeys(arms, 1.0 / len(arms)) if arms else {}
    return _weighted({"weights": even, **given}, arms, at, problems)


def _weights(value: Any, arms: list[str], at: str, problems: Problems) -> dict[str, float]:
    """One share an arm, together 1; an arm that is not named has none."""
    if not isinstance(value, dict) or not value:
        problems.add(at, f"{at} is {value!r}.", "Write a share for each arm, together 1.")
        return {}
    before = len(problems)
    for arm in value:
        if arm not in arms:
            problems.add(f"{at}.{arm}", f"{at} names {arm!r}, which is no arm.", nearest(arm, arms))
    for arm, share in value.items():
        if not _is_number(share) or share < 0:
            fix = "Write a share between 0 and 1."
            problems.add(f"{at}.{arm}", f"{at}.{arm} is {share!r}.", fix)
    shares = {str(arm): float(share) for arm, share in value.items() if _is_number(share)}
    total = math.fsum(shares.values())
    if len(problems) == before and abs(total - 1.0) > _EXACT:
        problems.add(at, f"{at} sum to {total:.12g}.", "Make them sum to 1.")
    return {arm: shares.get(arm, 0.0) for arm in arms}


def _ramp(value: Any, arms: list[str], at: str, problems: Problems) -> Config:
    """From the weights to others, evenly over a time that begins when the revision goes live."""
    if not isinstance(value, dict):
        fix = "Write ramp: {to: {ARM: SHARE, …}, over: 24h}."
        problems.add(at, f"{at} is {value!r}.", fix)
        return {}
    _known(value, ("to", "over"), at, problems)
    to = _weights(value.get("to"), arms, f"{at}.to", problems)
    return {"to": to, "over_s": _seconds(value.get("over"), f"{at}.over", problems)}


def _seconds(value: Any, at: str, problems: Problems) -> float:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None or not float(match[1]):
        problems.add(at, f"{at} is {value!r}.", "Write a time with its unit: 90s, 30m, 24h or 7d.")
        return 0.0
    return float(match[1]) * _UNITS[match[2]]


def _ruled(given: Config, arms: list[str], at: str, problems: Problems) -> Config:
    _known(given, ("rules", "otherwise"), at, problems)
    rules = given.get("rules")
    if not isinstance(rules, list) or not rules:
        fix = "Write a list of {if: {FIELD: …}, arm: ARM}."
        problems.add(f"{at}.rules", f"{at}.rules is {rules!r}.", fix)
        rules = []
    read = [_rule(rule, arms, f"{at}.rules[{i}]", problems) for i, rule in enumerate(rules)]
    _arm(given.get("otherwise"), arms, f"{at}.otherwise", problems)
    return {"rules": read, "otherwise": given.get("otherwise")}


def _rule(rule: Any, arms: list[str], at: str, problems: Problems) -> Config:
    if not isinstance(rule, dict) or not isinstance(rule.get("if"), dict) or not rule["if"]:
        fix = "Write {if: {FIELD: {below: 25}}, arm: ARM}."
        problems.add(at, f"{at} is {rule!r}.", fix)
        return {"if": [], "arm": ""}
    _known(rule, ("if", "arm"), at, problems)
    _arm(rule.get("arm"), arms, f"{at}.arm", problems)
    return {"if": _every(rule["if"], f"{at}.if", problems), "arm": rule.get("arm")}


def _every(said: Config, at: str, problems: Problems) -> list[Config]:
    """A mapping of fields and groups; all of it must hold."""
    found = []
    for key, value in said.items():
        if key in GROUPS and _is_group(value):
            found.append({key: _group(value, f"{at}.{key}", problems)})
        else:
            found += _conditions(str(key), value, f"{at}.{key}", problems)
    return found


def _is_group(value: Any) -> bool:
    """Whether it lists conditions; anything else is asked of a field that is called so."""
    return isinstance(value, list) and (not value or any(isinstance(e, dict) for e in value))


def _group(members: list[Any], at: str, problems: Problems) -> list[Config]:
    """The members of a group, each one condition: a mapping that says more must hold whole."""
    if not members:
        problems.add(at, f"{at} is empty.", f"Write {at}: [{{FIELD: {{below: 25}}}}, …].")
    found = []
    for i, said in enumerate(members):
        if not isinstance(said, dict) or not said:
            fix = "Write {FIELD: {below: 25}}."
            problems.add(f"{at}[{i}]", f"{at}[{i}] is {said!r}.", fix)
            continue
        member = _every(said, f"{at}[{i}]", problems)
        found.append(member[0] if len(member) == 1 else {"all": member})
    return found


def flat(conditions: Iterable[Config]) -> Iterator[Config]:
    """Give the conditions on fields, whatever groups they stand in."""
    for each in conditions:
        groups = [each[key] for key in GROUPS if key in each]
        if groups:
            yield from (one for members in groups for one in flat(members))
        else:
            yield each


def _conditions(field: str, said: Any, at: str, problems: Problems) -> list[Config]:
    """A value, a list of values, or a mapping from operators to values; all must hold."""
    if not isinstance(said, dict):
        said = {"in": said} if isinstance(said, list) else {"is": said}
    found = []
    for operator, value in said.items():
        if operator not in OPERATORS:
            hint = nearest(operator, OPERATORS)
            if field in GROUPS:
                hint = f"Write a list of conditions below {field}:, such as [{{FIELD: 1}}]."
            problems.add(f"{at}.{operator}", f"{at} has {operator!r}, no condition.", hint)
        else:
            found.append({"field": field, "is": OPERATORS[operator], "value": value})
    return found


def _arm(arm: Any, arms: list[str], at: str, problems: Problems) -> None:
    if arm not in arms:
        problems.add(at, f"{at} is {arm!r}, which is no arm.", nearest(arm, arms))


# Combinations


def _averaged(given: Config, branches: list[str], at: str, problems: Problems) -> Config:
    _known(given, ("weights",), at, problems)
    if "weights" not in given:
        return {}
    return {"weights": _weights(given["weights"], branches, f"{at}.weights", problems)}


def _stacked(given: Config, branches: list[str], at: str, problems: Problems) -> Config:
    _known(given, ("model",), at, problems)
    model = given.get("model")
    if isinstance(model, dict):
        found = model_import.read(model, f"{at}.model", problems)
        return {} if found is None else {"model": found}
    if not isinstance(model, str) or not all(model.partition("@")):
        fix = "Write the model that takes the branches' answers: {kind: stack, model: NAME@ALIAS}."
        problems.add(f"{at}.model", f"{at}.model is {model!r}.", fix)
        return {}
    return {"model": model}


def _known(given: Config, known: tuple[str, ...], at: str, problems: Problems) -> None:
    for key in given:
        if key not in known:
            hint = nearest(key, known, f"{at}.")
            problems.add(f"{at}.{key}", f"the key {at}.{key} is not known.", hint)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


Reader = Callable[[Config, list[str], str, Problems], Config]
_ROUTES: dict[str, Reader] = {"weights": _weighted, "sticky": _sticky, "rules": _ruled}
_COMBINES: dict[str, Reader] = {"mean": _averaged, "vote": _averaged, "stack": _stacked}
