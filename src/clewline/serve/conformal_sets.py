"""
`conformal:` of an endpoint's file: a set of labels, or an interval, with every answer.

    conformal: 0.9
    conformal: {coverage: 0.9, method: aps, by: class}

The thresholds are computed when a revision is loaded, from the scores in the packages of the
models that answer. The scores are sealed, so a replay gives the same sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidConfig
from clewline.evaluation.conformal import (
    Method,
    conformal_quantile,
    group_quantiles,
    label_sets,
    rows_needed,
    uniforms_of,
    value_edges,
)
from clewline.model.conformal_scores import ConformalScores, read_conformal_scores
from clewline.model.package import Package
from clewline.serve.graph.node import NodeAnswers
from clewline.serve.graph.problems import Problems
from clewline.serve.graph.tree import Tree, children
from clewline.signature.field import Output
from clewline.store.records import Revision

KEY = "conformal"
FIX = (
    "Write a coverage above 0 and below 1, or a mapping such as "
    "{coverage: 0.9, method: aps, by: class}."
)
PASSED = ("transform", "route", "shadow", "model")
"""Kinds of nodes behind which one model's answer is the answer of the endpoint."""
TABLED_LABELS = 8
"""Up to so many labels, the texts of all sets are made beforehand."""


class ConformalOption(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an endpoint's file asks for."""

    coverage: float
    method: Method = "lac"
    by: Literal["class", "value"] | None = None  # a threshold for each label, or range of values

    @property
    def text(self) -> str:
        """Write the option in one line."""
        parts = [f"{self.coverage:g}", *(["aps"] if self.method == "aps" else [])]
        return " ".join([*parts, *([f"by {self.by}"] if self.by else [])])


def read_option(value: Any) -> ConformalOption | None:
    """
    Read what stands below `conformal:`; None if nothing does.

    Raises:
        ValueError: It is not an option.
    """
    if value is None:
        return None
    written = value if isinstance(value, dict) else {"coverage": value}
    if isinstance(written.get("coverage"), bool):
        raise ValueError("the coverage is no number")
    option = msgspec.convert(written, ConformalOption)  # its errors are ValueErrors
    if not 0 < option.coverage < 1:
        raise ValueError("the coverage is not between 0 and 1")
    return option


def check_option(value: Any, problems: Problems) -> None:
    """Check what stands below `conformal:` as far as the file alone tells."""
    try:
        read_option(value)
    except ValueError:
        problems.add_wrong_value(KEY, value, FIX)


def option_of(revision: Revision) -> ConformalOption | None:
    """Return what a revision says of conformal sets; None if nothing."""
    return read_option(revision.spec.get(KEY))


class ConformalWriter:
    """
    Writes the sets or intervals of answers as JSON.

    Args:
        option: What the endpoint asks for.
        tree: The graph.
        packages: The packages of the models, by `name@number`.
        output: What the endpoint answers.

    Raises:
        InvalidConfig: Not one model makes each answer, a version has no scores or too few of
            them, or the option does not fit what it answers.
        IntegrityError: A file of scores was changed.
    """

    def __init__(
        self,
        option: ConformalOption,
        tree: Tree,
        packages: Mapping[str, Package],
        output: Output,
    ) -> None:
        self._option = option
        self._is_regression = output.labels is None
        labels = [msgspec.json.encode(label) for label in output.labels or ()]
        self._labels = np.array(labels, dtype=object)
        if option.by == ("class" if self._is_regression else "value") or (
            self._is_regression and option.method != "lac"
        ):
            kind = "a value" if self._is_regression else "labels"
            raise InvalidConfig(
                f"conformal: {option.text} does not fit an endpoint that answers {kind}.",
                "Write by: value for a regression; method: and by: class for a classifier.",
            )
        self._limits = {
            ref: self._limit(ref, read_conformal_scores(packages[ref]), output)
            for ref in dict.fromkeys(_answering_models(tree))
        }
        self._texts: list[bytes] = []
        if not self._is_regression and len(labels) <= TABLED_LABELS:
            self._texts = [
                b",".join(label for place, label in enumerate(labels) if code >> place & 1)
                for code in range(1 << len(labels))
            ]

    def write(self, ids: Sequence[bytes], answered: NodeAnswers) -> list[bytes]:
        """Return a member of a JSON object for each row: `,"set":[…]` or `,"interval":[…]`."""
        outputs, paths, of_row = answered.outputs, answered.paths, answered.path_of_row
        numbers = outputs.values if self._is_regression else outputs.probabilities
        assert numbers is not None, "the models were checked"
        if of_row is None or len(paths) == 1:
            return self._texts_of(ids, numbers, self._limits[paths[0].model])
        found: list[bytes] = [b""] * len(numbers)
        for place, path in enumerate(paths):
            rows = np.flatnonzero(of_row == place)
            some = [ids[row] for row in rows.tolist()]
            texts = self._texts_of(some, numbers[rows], self._limits[path.model])
            for row, text in zip(rows.tolist(), texts, strict=True):
                found[row] = text
        return found

    def _texts_of(
        self, ids: Sequence[bytes], numbers: NDArray[np.float64], limit: _Limit
    ) -> list[bytes]:
        if self._is_regression:
            width = limit.of_values(numbers)
            ends = np.column_stack([numbers - width, numbers + width])
            return [b',"interval":%b' % msgspec.json.encode(pair) for pair in ends.tolist()]
        inside = label_sets(self._option.method, numbers, limit.thresholds, uniforms_of(ids))
        if self._texts:
            codes = (inside @ (1 << np.arange(len(self._labels)))).tolist()
            return [b',"set":[%b]' % self._texts[code] for code in codes]
        return [b',"set":[%b]' % b",".join(self._labels[row].tolist()) for row in inside]

    def _limit(self, ref: str, scores: ConformalScores | None, output: Output) -> _Limit:
        option = self._option
        if scores is None:
            raise InvalidConfig(
                f"conformal: {option.text} needs conformal scores, and {ref} has none.",
                "Register it again with test rows: cl.register(…, test=…).",
            )
        found = scores.of("residual" if self._is_regression else option.method)
        if option.by is None:
            limit = _Limit(np.array([conformal_quantile(found, option.coverage)]))
            groups, counts = [""], np.array([len(found)])
        elif option.by == "class":
            labels = output.labels or ()
            quantiles, counts = group_quantiles(
                found, scores.true_labels, len(labels), option.coverage
            )
            limit, groups = _Limit(quantiles[None]), [f" of {label!r}" for label in labels]
        else:
            edges = value_edges(scores.values)
            places = np.searchsorted(edges, scores.values)
            quantiles, counts = group_quantiles(found, places, len(edges) + 1, option.coverage)
            limit = _Limit(quantiles, edges)
            groups = [f" of range {place + 1} of the values" for place in range(len(edges) + 1)]
        needed = rows_needed(option.coverage)
        for group, rows, threshold in zip(
            groups, counts.tolist(), limit.thresholds.ravel().tolist(), strict=True
        ):
            if rows < needed:
                most = rows / (rows + 1)
                raise InvalidConfig(
                    f"conformal: {option.text} needs {needed:,} test rows{group}, and {ref} was "
                    f"registered with {rows:,}.",
                    f"Register it with more test rows, or write a coverage of at most {most:.4g}.",
                )
            if not np.isfinite(threshold):
                raise InvalidConfig(
                    f"conformal: {option.text} has no finite limit{group} for {ref}: too many test "
                    "rows have a label that it does not know, or an infinite error.",
                    "Register it with test rows like those that it will answer.",
                )
        return limit


class _Limit:
    """The thresholds of one model."""

    def __init__(
        self, thresholds: NDArray[np.float64], edges: NDArray[np.float64] | None = None
    ) -> None:
        self.thresholds, self._edges = thresholds, edges

    def of_values(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the half width of each value's interval."""
        if self._edges is None:
            return np.broadcast_to(self.thresholds, values.shape)
        return np.asarray(self.thresholds[np.searchsorted(self._edges, values)])


def _answering_models(tree: Tree) -> Iterator[str]:
    """Yield the models of which one makes each answer."""
    kind = tree["kind"]
    if kind not in PASSED:
        raise InvalidConfig(
            f"conformal: needs answers that one model makes, but the node {tree['name']!r} "
            f"({kind}) changes or joins them.",
            f"Leave out conformal:, or serve without {kind}.",
        )
    if kind == "model":
        yield tree["model"]
        return
    for key, child in children(tree):
        if not key.startswith("shadows"):
            yield from _answering_models(child)
