"""The node that makes one answer of those of all its branches: `{combine: mean, branches: …}`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, wait
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.model.runtime import Outputs
from clewline.serve.batcher import BatchCost
from clewline.serve.graph.builder import Builder
from clewline.serve.graph.fields import AlignedNode, NodeFit, sides_text
from clewline.serve.graph.functions import is_function
from clewline.serve.graph.node import Batch, Node, NodeAnswers
from clewline.serve.graph.node_kind import NodeKind
from clewline.serve.graph.nodes.after import AnswersFunction
from clewline.serve.graph.parser import DeclaredNode, GraphParser, WrittenNode, child_names
from clewline.serve.graph.routers.arm_shares import parse_weights, shares_text
from clewline.serve.graph.routers.router import Config
from clewline.serve.graph.row_trace import output_checksums
from clewline.serve.graph.tables import share_column
from clewline.serve.graph.tree import Tree, function_text, settings_text
from clewline.serve.log.frame import RoutePath
from clewline.signature.columns import Columns
from clewline.signature.field import NUMERIC, Field, Output, Signature

PARALLEL_S = 0.001
"""Threads are used if the other branches are expected to take this long beside the longest."""


class CombineNode(NodeKind):
    """Lets every branch answer every row, and combines the answers."""

    children = ("branches",)

    def __init__(self, tree: Tree, builder: Builder) -> None:
        branches = builder.nodes(tree, "branches")
        if tree["how"] == "stack":
            builder.model(tree["config"]["model"])
        self.nodes = list(branches.values())
        self.signature = self.require_fit(tree, self.nodes, builder)
        self._combiner = COMBINERS[tree["how"]](tree, self.signature, branches, builder)
        below = []
        for node in self.nodes:
            output = (self if self._combiner.aligns else node).signature.output
            below.append(AlignedNode(node, Signature(fields=self.signature.fields, output=output)))
        self._branches = ParallelBranches(below, builder.threads)

    @classmethod
    def parse(cls, written: WrittenNode, parser: GraphParser) -> DeclaredNode | None:
        """Read how the answers are combined, and the branches."""
        name = parser.name(written.path, "combine")
        value, at = written.value, written.value_at
        branches = written.level.get("branches")
        nodes = parser.named_nodes(branches, f"{written.at}.branches", least=2, path=written.path)
        settings = value if isinstance(value, dict) else {"kind": value}
        how = settings.get("kind")
        if "function" in settings or is_function(how):
            how, settings = "function", {"function": how, **settings}
        settings = {str(key): each for key, each in settings.items() if key != "kind"}
        if not isinstance(how, str) or not how:
            parser.problems.add_wrong_value(at, value, "Write a kind, such as {kind: mean}.")
            return None
        if how not in COMBINERS:
            known = ("mean", "vote", "stack", "FILE.py:NAME")
            parser.problems.add("unknown_kind", at, value=how, known=known)
            return None
        config = COMBINERS[how].parse(settings, written, parser)
        resolved = None if config is None else {"how": how, "config": config}
        return written.declare(name, resolved, branches=nodes)

    @classmethod
    def fit(cls, fit: NodeFit) -> Signature | None:
        """Check that the branches answer what can be combined."""
        if not fit.sides:
            return None
        fields = fit.join_fields("branches")
        output = COMBINERS[fit.tree["how"]].fit(fit, fields)
        return None if output is None else Signature(fields=fields, output=output)

    @classmethod
    def title(cls, tree: Tree) -> str:
        """Say how the answers are combined."""
        return f"combine {COMBINERS[tree['how']].title(tree)}"

    def compute(self, batch: Batch) -> NodeAnswers:
        """Ask the branches, in parallel if that pays, and combine."""
        answers = self._branches.answer(batch)
        start = time.perf_counter()
        outputs = self._combiner.combine([one.outputs for one in answers], batch.columns)
        spent_us = round((time.perf_counter() - start) * 1e6, 1)
        paths, path_of_row = self._joined_paths(answers, spent_us)
        checksums = {node: found for one in answers for node, found in one.checksums.items()}
        checksums[self.name] = output_checksums(outputs)
        return NodeAnswers(outputs, paths, path_of_row, checksums)

    def _joined_paths(
        self, answers: Sequence[NodeAnswers], spent_us: float
    ) -> tuple[tuple[RoutePath, ...], NDArray[np.intp] | None]:
        """Join the paths of the branches: for each row one that goes through all of them."""
        if all(one.path_of_row is None for one in answers):
            return (self._joined([one.paths[0] for one in answers], spent_us),), None
        found = [one.path_of_row for one in answers]
        rows = next(len(one) for one in found if one is not None)
        of_rows = np.column_stack([np.zeros(rows, np.intp) if x is None else x for x in found])
        distinct, path_of_row = np.unique(of_rows, axis=0, return_inverse=True)
        paths = tuple(
            self._joined([one.paths[p] for one, p in zip(answers, places, strict=True)], spent_us)
            for places in distinct.tolist()
        )
        return paths, path_of_row.reshape(rows)

    def _joined(self, paths: list[RoutePath], spent_us: float) -> RoutePath:
        steps = tuple(step for path in paths for step in path.path)
        return RoutePath(
            "+".join([path.model for path in paths] + self._combiner.models),
            (*steps, (self.name, spent_us)),
            "+".join(path.arm for path in paths if path.arm),
            tuple(choice for path in paths for choice in path.choices),
        )


class ParallelBranches:
    """
    Answers one batch by several nodes, in parallel if that pays.

    A branch that no thread has begun is taken back and answered here: so no thread
    waits for work that only a waiting thread could do, however deep branches are
    nested, and whoever else uses the threads.
    """

    def __init__(self, branches: Sequence[AlignedNode], threads: Executor | None) -> None:
        self._branches = branches
        self._threads = threads
        self._costs = [BatchCost() for _ in branches]

    def answer(self, batch: Batch) -> list[NodeAnswers]:
        """
        Let every branch answer, in their order.

        The error of the first branch that fails is raised when none runs any more.
        """
        expected = [cost.estimate(len(batch.ids)) for cost in self._costs]
        if self._threads is None or sum(expected) - max(expected) <= PARALLEL_S:
            return [self._one(place, batch) for place in range(len(self._branches))]
        others = range(1, len(self._branches))
        futures = [self._threads.submit(self._one, place, batch) for place in others]
        try:
            answers = [self._one(0, batch)]
            for place, future in zip(others, futures, strict=True):
                answers.append(self._one(place, batch) if future.cancel() else future.result())
        finally:
            wait([future for future in futures if not future.cancel()])
        return answers

    def _one(self, place: int, batch: Batch) -> NodeAnswers:
        start = time.perf_counter()
        answers = self._branches[place].answer(batch)
        self._costs[place].observe(len(batch.ids), time.perf_counter() - start)
        return answers


class Combiner:
    """
    Makes one answer for each row of those of the branches; it depends on that row alone.

    This base class combines branches that answer the same labels, or all a number.
    """

    aligns: ClassVar[bool] = True
    """Whether the branches answer in the labels of the node, in their order."""
    needs_labels: ClassVar[bool] = False
    needs_shares: ClassVar[bool] = False

    def __init__(
        self, tree: Tree, signature: Signature, branches: dict[str, Node], builder: Builder
    ) -> None:
        self.models: list[str] = []  # that answer beside the branches: the one of a stack
        self._labels = signature.output.labels
        weights = (tree.get("config") or {}).get("weights") or dict.fromkeys(branches, 1.0)
        total = sum(weights.values())
        self._weights = [float(weights.get(branch, 0.0)) / total for branch in branches]

    @classmethod
    def parse(cls, settings: Config, written: WrittenNode, parser: GraphParser) -> Config | None:
        """Read the settings beside `kind:`: by default the weights of the branches."""
        at, branches = written.value_at, child_names(written.level.get("branches"))
        parser.problems.add_unknown_keys(settings, ("weights",), at)
        if "weights" not in settings:
            return {}
        weights = settings["weights"]
        return {"weights": parse_weights(weights, branches, f"{at}.weights", parser.problems)}

    @classmethod
    def title(cls, tree: Tree) -> str:
        """Write how the answers are combined."""
        return f"{tree['how']}{shares_text(tree.get('config') or {})}"

    @classmethod
    def fit(cls, fit: NodeFit, fields: tuple[Field, ...]) -> Output | None:
        """Check that the branches answer what can be combined, and return the joined output."""
        fit.check_same_answers("branches", shares=cls.needs_shares)
        first = fit.outputs[0]
        if first.task == "tensor" or (cls.needs_labels and first.labels is None):
            fit.add_unusable(fit.sides[0], first)
        if cls.needs_shares and not any(output.has_probabilities for output in fit.outputs):
            fit.add("no_probabilities", sides=sides_text("branches", fit.sides[0], fit.sides[-1]))
        every = all(output.has_probabilities for output in fit.outputs)
        return msgspec.structs.replace(first, has_probabilities=every or cls.needs_labels)

    def combine(self, answers: Sequence[Outputs], columns: Columns) -> Outputs:
        """Return one answer for each row."""
        raise NotImplementedError


class Mean(Combiner):
    """
    The mean of the probabilities, or of the values, by weights that sum to 1.

    The label is that of the greatest mean, the first of equal ones. The sum is in
    the order of the branches, so the same row gives the same bits.
    """

    needs_shares = True

    def combine(self, answers: Sequence[Outputs], columns: Columns) -> Outputs:
        """Return the weighted means."""
        if self._labels is None:
            values = [one.values for one in answers if one.values is not None]
            return Outputs(values=_weighted_sum(values, self._weights))
        shares = _weighted_sum([_probabilities(one) for one in answers], self._weights)
        return Outputs(choices=np.argmax(shares, axis=1).astype(np.int64), probabilities=shares)


class Vote(Combiner):
    """The label that most branches choose, the first of equal ones; its share of the votes."""

    needs_labels = True

    def combine(self, answers: Sequence[Outputs], columns: Columns) -> Outputs:
        """Return the weighted votes."""
        identity = np.eye(len(self._labels or ()))
        votes = [identity[one.choices] for one in answers if one.choices is not None]
        shares = _weighted_sum(votes, self._weights)
        return Outputs(choices=np.argmax(shares, axis=1).astype(np.int64), probabilities=shares)


class ProjectFunction(Combiner):
    """
    A function of the project: it gets the table of each branch's answers by name, and gives one.

    Config: `{"function": "nodes.py:blend", "frame": "polars", "config": {…}}`.
    """

    def __init__(
        self, tree: Tree, signature: Signature, branches: dict[str, Node], builder: Builder
    ) -> None:
        super().__init__({}, signature, branches, builder)
        self._function = AnswersFunction(
            tree["name"], tree["config"], signature.output, builder, list(branches)
        )

    @classmethod
    def parse(cls, settings: Config, written: WrittenNode, parser: GraphParser) -> Config | None:
        """Read the function."""
        call = parser.function(settings, written.value_at)
        return None if call is None else {"call": call}

    @classmethod
    def title(cls, tree: Tree) -> str:
        """Write the function."""
        return function_text(tree["config"])

    def combine(self, answers: Sequence[Outputs], columns: Columns) -> Outputs:
        """Call the function, and check its result."""
        return self._function(list(answers), len(columns))


class Stack(Combiner):
    """
    A model over the answers of the branches.

    Its fields are found by name: `BRANCH.value`, `BRANCH.label`, `BRANCH.P(LABEL)`,
    or `BRANCH` alone for the value, or for the probability of the second of two
    labels; any other name is a field of the request.
    """

    aligns = False

    def __init__(
        self, tree: Tree, signature: Signature, branches: dict[str, Node], builder: Builder
    ) -> None:
        self._model = builder.models[-1]  # built just before; a branch may have the same version
        self.models = [self._model.ref]
        outputs = {branch: node.signature.output for branch, node in branches.items()}
        wanted = self._model.signature
        self._numbers = [_stack_column(field, outputs, signature) for field in wanted.numeric]
        self._texts = [_stack_column(field, outputs, signature) for field in wanted.textual]

    @classmethod
    def parse(cls, settings: Config, written: WrittenNode, parser: GraphParser) -> Config | None:
        """Read the model."""
        parser.problems.add_unknown_keys(settings, ("model",), written.value_at)
        model = parser.model(settings.get("model"), f"{written.value_at}.model")
        return None if model is None else {"model": model}

    @classmethod
    def title(cls, tree: Tree) -> str:
        """Write the model."""
        return f"stack{settings_text(tree['config'])}"

    @classmethod
    def fit(cls, fit: NodeFit, fields: tuple[Field, ...]) -> Output | None:
        """Check that the branches or the request have every field of the model."""
        ref = fit.tree["config"]["model"]
        stacked = fit.models.get(ref)
        if stacked is None:
            return None
        if stacked.tensors:
            fit.add("stack_tensors", node=fit.tree["name"], model=ref)
        outputs = {side.name: side.signature.output for side in fit.sides}
        request = Signature(fields=fields, output=stacked.output)
        answers = ", ".join(n for branch, output in outputs.items() for n in _names(branch, output))
        for field in (*stacked.numeric, *stacked.textual):
            if fit.is_complete and _stack_column(field, outputs, request) is None:
                node, kind = fit.tree["name"], field.kind
                fit.add("stack_field", node=node, kind=kind, field=field.name, answers=answers)
        return stacked.output

    def combine(self, answers: Sequence[Outputs], columns: Columns) -> Outputs:
        """Make the model's rows of the answers, and let it answer them."""
        rows = len(columns)
        numbers = np.empty((rows, len(self._numbers)))
        texts = np.full((rows, len(self._texts)), None, dtype=object)
        for matrix, sources in ((numbers, self._numbers), (texts, self._texts)):
            for place, column in enumerate(sources):
                assert column is not None, "checked when the node was fitted"
                matrix[:, place] = column(answers, columns)
        with self._model.lock:
            return self._model.predictor.predict(Columns(numbers, texts))


COMBINERS: dict[str, type[Combiner]] = {
    "mean": Mean,
    "vote": Vote,
    "stack": Stack,
    "function": ProjectFunction,
}

StackColumn = Callable[[Sequence[Outputs], Columns], Any]


def _stack_column(
    field: Field, outputs: Mapping[str, Output], request: Signature
) -> StackColumn | None:
    """Find the source of a field of a stack's model: a branch, or the request."""
    for place, (branch, output) in enumerate(outputs.items()):
        found = _branch_column(field, branch, output, place)
        if found is not None:
            return found
    is_numeric = field.kind in NUMERIC
    names = [one.name for one in (request.numeric if is_numeric else request.textual)]
    if field.name not in names:
        return None
    at = names.index(field.name)
    if is_numeric:
        return lambda answers, columns: columns.numbers[:, at]
    return lambda answers, columns: columns.texts[:, at]


def _branch_column(field: Field, branch: str, output: Output, place: int) -> StackColumn | None:
    labels, is_numeric = output.labels, field.kind in NUMERIC
    if labels is None:
        if field.name in (branch, f"{branch}.value"):
            return lambda answers, columns: answers[place].values
        return None
    shares = _names(branch, output)[1:]
    wanted = shares[1] if field.name == branch and len(shares) == 2 else field.name
    if wanted in shares and is_numeric:
        at = shares.index(wanted)
        return lambda answers, columns: _probabilities(answers[place])[:, at]
    if field.name == f"{branch}.label":
        values = np.array(
            [float(label) if is_numeric else str(label) for label in labels],
            dtype=np.float64 if is_numeric else object,
        )
        return lambda answers, columns: values[answers[place].choices]
    return None


def _names(branch: str, output: Output) -> list[str]:
    """List the names under which a stack's model finds the answers of a branch."""
    if output.labels is None:
        return [f"{branch}.value"]
    shares = output.labels if output.has_probabilities else ()
    return [f"{branch}.label", *(f"{branch}.{share_column(label)}" for label in shares)]


def _probabilities(outputs: Outputs) -> NDArray[np.float64]:
    if outputs.probabilities is None:
        raise TypeError("a branch answers labels without probabilities: use combine: vote")
    return outputs.probabilities


def _weighted_sum(
    arrays: Sequence[NDArray[np.float64]], weights: Sequence[float]
) -> NDArray[np.float64]:
    total = arrays[0] * weights[0]
    for array, weight in zip(arrays[1:], weights[1:], strict=True):
        total += array * weight
    return total
