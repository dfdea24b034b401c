"""How the answers of branches become one: mean, vote, stack, or the project's function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidConfig, InvalidInput, ModelFailed
from clewline.model.runtime import Outputs
from clewline.serve.graph.answer_tables import answers_of, outputs_of, require_plain, share_column
from clewline.serve.graph.batch import node_failure
from clewline.serve.graph.builder import Builder, Node
from clewline.serve.graph.edges import same_output, union
from clewline.serve.graph.functions import Frame
from clewline.serve.graph.tables import require_frame
from clewline.serve.model_cache.loaded_models import LoadedModel
from clewline.signature.columns import Columns
from clewline.signature.field import NUMERIC, Field, Output, Signature

Branches = dict[str, Node]


class Combiner(Protocol):
    """Makes one answer a row of those of the branches; a row's depends on that row alone."""

    output: Output
    models: list[str]  # that take part beside the branches: the one of a stack

    def given(self, output: Output) -> Output:
        """Tell in which labels, and in which order of them, a branch's answers are wanted."""

    def combine(self, answers: Sequence[Outputs], columns: Columns) -> Outputs: ...


def combiner(tree: dict[str, Any], branches: Branches, build: Builder) -> Combiner:
    """
    Make what `tree["how"]` says.

    Raises:
        InvalidConfig: There is no such way, or it does not fit the branches.
    """
    how, name = tree.get("how"), tree["name"]
    makers: dict[str, Callable[[], Combiner]] = {
        "mean": lambda: Mean(name, tree.get("config") or {}, branches),
        "vote": lambda: Vote(name, tree.get("config") or {}, branches),
        "stack": lambda: Stack(name, tree.get("config") or {}, branches, build),
        "function": lambda: Function(name, tree.get("config") or {}, branches, build),
    }
    if how not in makers:
        known = ", ".join(makers)
        raise InvalidConfig(f"{name!r} combines by {how!r}.", f"There are: {known}.")
    return makers[how]()


class _Alike:
    """Branches that answer the same labels, or all a number."""

    def __init__(self, name: str, branches: Branches) -> None:
        self.models: list[str] = []
        self.output = same_output(name, {b: node.signature for b, node in branches.items()})
        require_plain(name, self.output)

    def given(self, output: Output) -> Output:
        """Branches answer in the labels of the first."""
        return self.output


class Mean(_Alike):
    """
    The mean of the probabilities, or of the values, by weights that sum to 1.

    The label is the one of the greatest mean, the first of equal ones. Summed in
    the order of the branches, so that the same row gives the same bits.
    """

    def __init__(self, name: str, config: dict[str, Any], branches: Branches) -> None:
        super().__init__(name, branches)
        for branch, node in branches.items():
            if not node.signature.output.has_probabilities:
                raise InvalidConfig(
                    f"The branch {branch} of {name!r} answers labels without probabilities, "
                    "of which there is no mean.",
                    "Take a vote.",
                )
        self._weights = _weights(name, config, branches)

    def combine(self, answers: Sequence[Outputs], columns: Columns) -> Outputs:
        if self.output.labels is None:
            values = [one.values for one in answers if one.values is not None]
            return Outputs(values=_sum(values, self._weights))
        shares = _sum([_shares(one) for one in answers], self._weights)
        return Outputs(choices=np.argmax(shares, axis=1).astype(np.int64), probabilities=shares)


class Vote(_Alike):
    """The label that most branches choose, the first of equal ones; its share of the votes."""

    def __init__(self, name: str, config: dict[str, Any], branches: Branches) -> None:
        super().__init__(name, branches)
        if self.output.labels is None:
            raise InvalidConfig(
                f"The branches of {name!r} answer numbers, on which there is no vote.",
                "Use mean, or a function.",
            )
        self._weights = _weights(name, config, branches)
        self._labels = len(self.output.labels)
        self.output = msgspec.structs.replace(self.output, has_probabilities=True)  # of the votes

    def combine(self, answers: Sequence[Outputs], columns: Columns) -> Outputs:
        chosen = [one.choices for one in answers if one.choices is not None]
        votes = [np.eye(self._labels)[choices] for choices in chosen]
        shares = _sum(votes, self._weights)
        return Outputs(choices=np.argmax(shares, axis=1).astype(np.int64), probabilities=shares)


class Function(_Alike):
    """
    The project's function: takes the table of each branch's answers, by name, and gives one.

    Config: `{"function": "nodes.py:blend", "frame": "polars", "config": {…}}`.
    """

    def __init__(
        self, name: str, config: dict[str, Any], branches: Branches, build: Builder
    ) -> None:
        super().__init__(name, branches)
        every = all(node.signature.output.has_probabilities for node in branches.values())
        self.output = msgspec.structs.replace(self.output, has_probabilities=every)
        self._name, self._branches = name, list(branches)
        self._frame: Frame = require_frame(name, config.get("frame"))
        self._function = build.function(config["function"], config.get("config"))

    def combine(self, answers: Sequence[Outputs], columns: Columns) -> Outputs:
        """Call the function, and check what it gives."""
        tables = {
            branch: answers_of(outputs, self.output, self._frame)
            for branch, outputs in zip(self._branches, answers, strict=True)
        }
        try:
            result = self._function(tables)
        except BaseException as error:
            raise node_failure(self._name, error) from error
        try:
            with_shares = all(one.probabilities is not None for one in answers)
            return outputs_of(result, self.output, len(columns), with_shares=with_shares)
        except InvalidInput as error:
            raise ModelFailed(
                f"What the node {self._name!r} made is no answer: {error.message}", error.fix
            ) from error


class Stack:
    """
    A model over the answers of the branches.

    Its fields are found by name: `BRANCH.value`, `BRANCH.label`, `BRANCH.P(LABEL)`,
    or `BRANCH` alone for the value, or for the probability of the second of two
    labels; any other name is a field of the request.
    """

    def __init__(
        self, name: str, config: dict[str, Any], branches: Branches, build: Builder
    ) -> None:
        self._model: LoadedModel = build.model(config["model"])
        self.models = [self._model.ref]
        self.output = self._model.signature.output
        given = {branch: node.signature for branch, node in branches.items()}
        request = Signature(fields=union(name, given), output=self.output)
        self._numbers = [
            _source(name, field, given, request) for field in self._model.signature.numeric
        ]
        self._texts = [
            _source(name, field, given, request) for field in self._model.signature.textual
        ]
        if self._model.signature.tensors:
            raise InvalidConfig(f"{self._model.ref} of {name!r} takes tensors.", "Use a function.")

    def given(self, output: Output) -> Output:
        """Branches answer as they do."""
        return output

    def combine(self, answers: Sequence[Outputs], columns: Columns) -> Outputs:
        """Make the model's rows of the answers, and let it answer them."""
        rows = len(columns)
        numbers = np.empty((rows, len(self._numbers)))
        texts = np.full((rows, len(self._texts)), None, dtype=object)
        for place, source in enumerate(self._numbers):
            numbers[:, place] = source(answers, columns)
        for place, source in enumerate(self._texts):
            texts[:, place] = source(answers, columns)
        with self._model.lock:
            return self._model.predictor.predict(Columns(numbers, texts))


Source = Callable[[Sequence[Outputs], Columns], Any]


def _source(node: str, field: Field, given: dict[str, Signature], request: Signature) -> Source:
    """Find where a field of a stack's model comes from."""
    for place, (branch, signature) in enumerate(given.items()):
        found = _of_branch(field, branch, signature.output, place)
        if found is not None:
            return found
    same = next((one for one in request.fields if one.name == field.name), None)
    if same is None or (same.kind in NUMERIC) != (field.kind in NUMERIC):
        names = [n for b, s in given.items() for n in _names(b, s.output)]
        raise InvalidConfig(
            f"The model of the stack {node!r} takes the {field.kind} {field.name!r}, which no "
            "branch answers.",
            f"The branches answer {', '.join(names)}; other names are fields of the request.",
        )
    if field.kind in NUMERIC:
        at = [one.name for one in request.numeric].index(field.name)
        return lambda answers, columns: columns.numbers[:, at]
    at = [one.name for one in request.textual].index(field.name)
    return lambda answers, columns: columns.texts[:, at]


def _of_branch(field: Field, branch: str, output: Output, place: int) -> Source | None:
    labels = output.labels
    if labels is None:
        if field.name in (branch, f"{branch}.value"):
            return lambda answers, columns: answers[place].values
        return None
    shares = labels if output.has_probabilities else ()
    columns = [f"{branch}.{share_column(label)}" for label in shares]
    wanted = columns[1] if field.name == branch and len(shares) == 2 else field.name
    if wanted in columns and field.kind in NUMERIC:
        at = columns.index(wanted)
        return lambda answers, _: _shares(answers[place])[:, at]
    if field.name == f"{branch}.label":
        return _label_source(field, labels, place)
    return None


def _label_source(field: Field, labels: tuple[Any, ...], place: int) -> Source:
    as_number = field.kind in NUMERIC
    values = np.array(
        [float(x) if as_number else str(x) for x in labels],
        dtype=np.float64 if as_number else object,
    )
    return lambda answers, _: values[answers[place].choices]


def _shares(outputs: Outputs) -> NDArray[np.float64]:
    if outputs.probabilities is None:
        raise TypeError("a branch answers labels alone, without probabilities: take a vote")
    return outputs.probabilities


def _names(branch: str, output: Output) -> list[str]:
    if output.labels is None:
        return [f"{branch}.value"]
    shares = output.labels if output.has_probabilities else ()
    return [f"{branch}.label", *(f"{branch}.{share_column(label)}" for label in shares)]


def _weights(name: str, config: dict[str, Any], branches: Branches) -> list[float]:
    """The weight of each branch, together 1; all the same where the config has none."""
    said = config.get("weights") or dict.fromkeys(branches, 1.0)
    unknown = [branch for branch in said if branch not in branches]
    found = [float(said.get(branch, 0.0)) for branch in branches]
    if unknown or min(found) < 0 or not 0 < sum(found) < float("inf"):
        raise InvalidConfig(
            f"The weights of {name!r} are {said}.",
            f"Give numbers for the branches {', '.join(branches)}.",
        )
    return [weight / sum(found) for weight in found]


def _sum(arrays: Sequence[NDArray[np.float64]], weights: Sequence[float]) -> NDArray[np.float64]:
    total = arrays[0] * weights[0]
    for array, weight in zip(arrays[1:], weights[1:], strict=True):
        total += array * weight
    return total
