"""
Maps from a classifier's probabilities to calibrated ones, in NumPy and as nodes of an ONNX graph.

Both compute in float64 by the same formulas. Before a logarithm a probability is at least 1e-9
away from 0 and from 1: nearer to them the last bit of the model's answer would decide.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.evaluation.calibration import CLIPPED

Floats = NDArray[np.float64]
Kind = Literal["isotonic", "sigmoid", "temperature", "beta"]


class IsotonicMap(msgspec.Struct, frozen=True, tag="isotonic"):
    """Straight lines between knots, constant before the first and after the last one."""

    knots: tuple[tuple[float, ...], ...]  # for each mapped label, ascending
    values: tuple[tuple[float, ...], ...]

    def apply(self, probability: Floats) -> Floats:
        """Map probabilities, shape (n, mapped labels)."""
        columns = zip(probability.T, self.knots, self.values, strict=True)
        return np.column_stack([np.interp(x, knots, values) for x, knots, values in columns])

    def emit(self, graph: Any, probability: str) -> str:
        """Append the nodes: find the segment of each number, then its line."""
        width = max(map(len, self.knots))
        knots = np.full((len(self.knots), width), np.inf)
        lines = np.zeros((3, *knots.shape))  # where a segment begins, its value there, its slope
        for place, (x, y) in enumerate(zip(self.knots, self.values, strict=True)):
            knots[place, : len(x)] = x
            lines[0, place, : len(x)], lines[1, place, : len(x)] = x, y
            lines[2, place, : len(x) - 1] = np.diff(y) / np.diff(x)
        ends = np.array([[x[0], x[-1]] for x in self.knots])
        number = graph.add("Max", probability, graph.constant(ends[None, :, 0]))
        number = graph.add("Min", number, graph.constant(ends[None, :, 1]))
        apart = graph.add("Unsqueeze", number, graph.constant(np.array([2])))
        above = graph.add("GreaterOrEqual", apart, graph.constant(knots[None]))
        count = graph.add(
            "ReduceSum",
            graph.cast(above, _INT64),
            graph.constant(np.array([2])),
            keepdims=0,
        )
        first = np.arange(len(knots))[None] * width - 1
        segment = graph.add("Add", count, graph.constant(first))
        begin, value, slope = (
            graph.add("Gather", graph.constant(line.ravel()), segment) for line in lines
        )
        rise = graph.add("Mul", graph.add("Sub", number, begin), slope)
        return str(graph.add("Add", rise, value))


class SigmoidMap(msgspec.Struct, frozen=True, tag="sigmoid"):
    """
    A logistic curve over the probability, or over its log-odds.

    Source:
        Platt, Probabilistic outputs for support vector machines (Advances in Large Margin
        Classifiers, 1999).
    """

    slopes: tuple[float, ...]  # of each mapped label
    intercepts: tuple[float, ...]
    over: Literal["probability", "log-odds"]

    def apply(self, probability: Floats) -> Floats:
        """Map probabilities, shape (n, mapped labels)."""
        score = probability if self.over == "probability" else log_odds(probability)
        return logistic(score * np.array(self.slopes) + np.array(self.intercepts))

    def emit(self, graph: Any, probability: str) -> str:
        """Append the nodes."""
        score = probability
        if self.over == "log-odds":
            score = graph.add("Sub", *_emit_logarithms(graph, probability, len(self.slopes)))
        scaled = graph.add("Mul", score, graph.constant(np.array([self.slopes])))
        score = graph.add("Add", scaled, graph.constant(np.array([self.intercepts])))
        return str(graph.lane_wise("Sigmoid", score, len(self.slopes)))


class BetaMap(msgspec.Struct, frozen=True, tag="beta"):
    """
    The log-odds are `a ln p - b ln(1 - p) + c`, with a and b 0 or more.

    Source:
        Kull, Silva Filho, Flach, Beta calibration (AISTATS 2017).
    """

    a: tuple[float, ...]  # of each mapped label
    b: tuple[float, ...]
    c: tuple[float, ...]

    def apply(self, probability: Floats) -> Floats:
        """Map probabilities, shape (n, mapped labels)."""
        of_label, of_others = logarithms(probability)
        a, b, c = map(np.array, (self.a, self.b, self.c))
        return logistic(of_label * a - of_others * b + c)

    def emit(self, graph: Any, probability: str) -> str:
        """Append the nodes."""
        of_label, of_others = _emit_logarithms(graph, probability, len(self.a))
        a, b, c = (graph.constant(np.array([row])) for row in (self.a, self.b, self.c))
        score = graph.add("Sub", graph.add("Mul", of_label, a), graph.add("Mul", of_others, b))
        return str(graph.lane_wise("Sigmoid", graph.add("Add", score, c), len(self.a)))


class TemperatureMap(msgspec.Struct, frozen=True, tag="temperature"):
    """
    Logarithms of the probabilities are divided by one temperature, and made to sum to 1 again.

    Source:
        Guo, Pleiss, Sun, Weinberger, On calibration of modern neural networks (ICML 2017).
    """

    temperature: float  # above 0; above 1 the model was too sure


ProbabilityMap = IsotonicMap | SigmoidMap | BetaMap | TemperatureMap


def apply_map(found: ProbabilityMap, probabilities: Floats) -> Floats:
    """
    Map the probabilities of all labels, shape (n, labels), in the order of the model's classes.

    Of two labels the second is mapped, of more each against the rest; then they are divided by
    their sum. If all are 0, each label gets the same.
    """
    if isinstance(found, TemperatureMap):
        scaled = np.log(np.maximum(probabilities, CLIPPED)) / found.temperature
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
    if probabilities.shape[1] == 2:
        second = found.apply(probabilities[:, 1:])
        return np.column_stack([1 - second, second])
    mapped = found.apply(probabilities)
    total = mapped.sum(axis=1, keepdims=True)
    share = np.full_like(mapped, 1 / mapped.shape[1])
    return np.asarray(np.divide(mapped, total, out=share, where=total > 0))


def emit_map(found: ProbabilityMap, graph: Any, probabilities: str, labels: int) -> str:
    """Append the nodes of `apply_map`; return the name of the calibrated probabilities."""
    if isinstance(found, TemperatureMap):
        least = graph.add("Max", probabilities, graph.constant(np.array(CLIPPED)))
        logs = graph.lane_wise("Log", least, labels)
        scaled = graph.add("Div", logs, graph.constant(np.array(found.temperature)))
        most = graph.add("ReduceMax", scaled, graph.constant(np.array([1])))
        powers = graph.lane_wise("Exp", graph.add("Sub", scaled, most), labels)
        return str(graph.add("Div", powers, _emit_sum(graph, powers, labels)))
    if labels == 2:
        place = graph.constant(np.array([1]))
        second = found.emit(graph, graph.add("Gather", probabilities, place, axis=1))
        first = graph.add("Sub", graph.constant(np.array(1.0)), second)
        return str(graph.add("Concat", first, second, axis=1))
    mapped = found.emit(graph, probabilities)
    total = _emit_sum(graph, mapped, labels)
    none = graph.add("Equal", total, graph.constant(np.array(0.0)))
    parts = graph.add("Where", none, graph.constant(np.array(1 / labels)), mapped)
    return str(
        graph.add("Div", parts, graph.add("Where", none, graph.constant(np.array(1.0)), total))
    )


def logarithms(probability: Floats) -> tuple[Floats, Floats]:
    """Return the logarithms of probabilities, and of what they lack of 1."""
    clipped = np.clip(probability, CLIPPED, 1 - CLIPPED)
    return np.log(clipped), np.log(1 - clipped)


def log_odds(probability: Floats) -> Floats:
    """Return the log-odds of probabilities."""
    of_label, of_others = logarithms(probability)
    return np.asarray(of_label - of_others)


def logistic(score: Floats) -> Floats:
    """Return the probabilities of log-odds."""
    return np.asarray(1 / (1 + np.exp(-np.clip(score, -700, 700))))


_INT64 = 7
"""The number of the element type in ONNX."""


def _emit_sum(graph: Any, numbers: str, labels: int) -> str:
    """Add up columns one after the other: ReduceSum adds in another order in other batches."""
    places = (graph.constant(np.array([place])) for place in range(labels))
    first, *others = (graph.add("Gather", numbers, place, axis=1) for place in places)
    for column in others:
        first = graph.add("Add", first, column)
    return str(first)


def _emit_logarithms(graph: Any, probability: str, labels: int) -> tuple[str, str]:
    low, high = (graph.constant(np.array(end)) for end in (CLIPPED, 1 - CLIPPED))
    clipped = graph.add("Min", graph.add("Max", probability, low), high)
    others = graph.add("Sub", graph.constant(np.array(1.0)), clipped)
    return graph.lane_wise("Log", clipped, labels), graph.lane_wise("Log", others, labels)
