"""
Everything that is wrong with an endpoint's file, found at once.

Code that reads or checks a file reports a mistake as a code, a place and values. The
sentences that a person reads stand in `SENTENCES`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from clewline.errors import ClewlineError, InvalidConfig, did_you_mean

SENTENCES: dict[str, tuple[str, str]] = {
    # code → what is wrong, what to do; {nearest} names the nearest of the values `known`
    "wrong_value": ("{at} is {value!r}.", "{fix}"),
    "unknown_key": ("The key {at} is unknown.", "{nearest}"),
    "planned_key": ("The key {at} is planned, but it is not built yet.", "Remove it."),
    "node_key": (
        "The key {at} does not stand at the top of the file.",
        "It belongs to a node: write it below graph:, such as graph: {{{at}: …}}.",
    ),
    "two_answers": ("Both model and graph say what answers.", "Remove one of them."),
    "unused_node": ("{at} is not used.", "Name it in the graph, or remove it."),
    "too_many_nodes": ("The graph has more than {limit} nodes.", "Use fewer."),
    "too_deep": (
        "More than {limit} nodes are nested in each other.",
        "Join several functions into one.",
    ),
    "no_kind": ("{at} has none of {kinds}.", "Write exactly one of them in a node."),
    "several_kinds": ("{at} has {kinds}.", "Write exactly one of them in a node."),
    "function_as_node": ("{at} is {value}, a function.", "Write transform: {value} with a model."),
    "unknown_node": ("{at} is {value!r}, but no node under nodes: has this name.", "{nearest}"),
    "circle": ("{at} closes a circle: {circle}.", "Remove one of these references."),
    "too_few": ("{at} has {count}.", "Write at least {least}."),
    "invalid_name": ("{at} has an invalid name.", "Use letters, digits, '.', '-' and '_'."),
    "repeated_name": ("{at} names {name} twice.", "Write a mapping, and give each its own name."),
    "not_a_function": (
        "{at} is {value!r}, which does not name a function.",
        "Write FILE.py:NAME, such as nodes.py:tidy.",
    ),
    "no_frame": (
        "{at}: {function} does not declare what it takes.",
        "Annotate its first parameter as pl.DataFrame, pd.DataFrame, np.ndarray or list[dict], "
        "or write frame: polars, pandas, numpy or rows.",
    ),
    "invalid_field": ("{at} is {value!r}: {error}.", "{nearest}"),
    "unknown_arm": ("{at} names {arm!r}, but there is no such arm.", "{nearest}"),
    "shares_sum": ("The shares of {at} sum to {total:.12g}.", "Make them sum to 1."),
    "empty_group": ("{at} is empty.", "Write {at}: [{{FIELD: {{below: 25}}}}, …]."),
    "unknown_operator": ("{at} has the unknown operator {operator!r}.", "{nearest}"),
    "unknown_kind": ("{at} is {value!r}, but nothing of this kind is installed.", "{nearest}"),
    "preprocessing_as_model": (
        "{at} is {model}, fitted preprocessing, which answers nothing.",
        "Write transform: {value}.",
    ),
    "model_as_preprocessing": (
        "{at} is {model}, which is not fitted preprocessing.",
        "Name a version that is fitted preprocessing.",
    ),
    "disjoint_limits": (
        "signatures/{model}.yaml accepts {limits} for {field!r}, but another model of the graph "
        "accepts {others}, so no value passes both.",
        "Let them overlap.",
    ),
    # the sides of a node
    "different_answers": (
        "{sides} answer differently: {one}, and {other}.",
        "Serve models of one target that answer alike; a vote takes labels without probabilities.",
    ),
    "different_fields": (
        "{sides} take {field!r} differently: {one}, and {other}.",
        "Put a transform before one of them.",
    ),
    "missing_field": (
        "{node} takes the field {field!r} as {kind}, but {source} {reason}.",
        "Put a transform before it that makes its fields.",
    ),
    "array_answers": (
        "{node} over {child} gets {answer}, which it cannot use.",
        "Change the answer in the model itself, or combine labels and numbers.",
    ),
    "no_probabilities": (
        "{sides} answer labels without probabilities, which have no mean.",
        "Use combine: vote.",
    ),
    "stack_field": (
        "The model of the stack {node!r} takes the {kind} {field!r}, but no branch answers it.",
        "The branches answer {answers}; other names are fields of the request.",
    ),
    "stack_tensors": ("The model {model} of the stack {node!r} takes tensors.", "Use a function."),
    "rule_field": ("A rule of {at} asks for the field {field!r}, which is unknown.", "{nearest}"),
    "rule_value": (
        "A rule of {at} compares the {kind} {field!r}: {field} {operator} {value!r}.",
        "Write {wanted}.",
    ),
    # what is explained
    "when_field": ("{at} asks for {field!r}, but the endpoint has no such field.", "{nearest}"),
    "when_answer": ("{at} asks for the {name}, which the endpoint does not answer.", "{nearest}"),
    # a trial
    "node_raised": (
        "endpoint {endpoint}: node {node!r} raised {error}.",
        "Run with --debug for the traceback.",
    ),
    "depends_on_batch": (
        "{part} answers a row differently alone and in a batch: background row {row} is {alone} "
        "alone and {together} in a batch.",
        "Let an answer depend on its own row only: keep no state, and use no mean over rows.",
    ),
    "reads_file": (
        "A function of the graph reads {file}, which the revision does not pin.",
        "Put what it needs into config:, or register a Python model, which keeps its files.",
    ),
}


class Problem(msgspec.Struct, frozen=True):
    """One mistake in an endpoint's file."""

    code: str
    at: str  # path of keys, such as graph.arms.champion; empty for the whole file
    message: str  # what is there, with the value
    fix: str  # what to write
    values: dict[str, Any] = {}  # that message and fix are made of


class InvalidEndpoint(InvalidConfig):
    """An endpoint's file cannot be applied; `problems` holds everything that is wrong with it."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        if len(problems) == 1:
            super().__init__(f"{source}: {problems[0].message}", problems[0].fix)
        else:
            lines = "\n".join(f"  {each.message} {each.fix}".rstrip() for each in problems)
            super().__init__(f"{source} has {len(problems)} problems:\n{lines}", None)
        self.args = (source, tuple(problems))
        self.source, self.problems = source, tuple(problems)


class Problems:
    """Collects mistakes in the order in which they are found, each once."""

    def __init__(self, found: Iterable[Problem] = ()) -> None:
        self._found = {(each.at, each.message): each for each in found}
        self.cause: BaseException | None = None  # the first error that was added

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self._found.values())

    def add(self, code: str, at: str, *, known: Iterable[str] = (), **values: Any) -> None:
        """
        Add a mistake.

        Args:
            code: A key of `SENTENCES`.
            at: Path of keys to it.
            known: Names of which the nearest is suggested.
            values: That the sentences name.
        """
        message, fix = SENTENCES[code]
        hint = values.pop("nearest", None) or did_you_mean(next(iter(values.values()), ""), known)
        named = {**values, "at": at, "nearest": hint}
        found = Problem(code, at, message.format(**named), fix.format(**named), values)
        self._found.setdefault((at, found.message), found)

    def add_wrong_value(self, at: str, value: object, fix: str) -> None:
        """Add that the value at a place is none that can stand there."""
        self.add("wrong_value", at, value=value, fix=fix)

    def add_unknown_keys(self, mapping: Iterable[Any], known: Iterable[str], at: str) -> None:
        """Add each key of a mapping at a place that is not among those known."""
        names = list(known)
        for key in mapping:
            if key not in names:
                self.add("unknown_key", f"{at}.{key}", nearest=did_you_mean(key, names))

    def add_error(self, at: str, error: ClewlineError) -> None:
        """Add what another part of clewline refused."""
        message = f"{at}: {error.message}" if at else error.message
        self._found.setdefault((at, message), Problem(error.code, at, message, error.fix or ""))
        self.cause = self.cause or error

    def add_raised(self, at: str, node: str, endpoint: str, error: BaseException) -> None:
        """Add that the code of a node raised."""
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        self.add("node_raised", at, node=node, endpoint=endpoint, error=text.rstrip("."))
        self.cause = self.cause or error

    def require_none(self, source: object) -> None:
        """
        Return only if nothing is wrong.

        Raises:
            InvalidEndpoint: Something is wrong; names all of it.
        """
        if self._found:
            raise InvalidEndpoint(str(source), list(self)) from self.cause
