"""Two versions on the same test rows: what one answers better than the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from clewline.errors import InvalidInput, NotFound
from clewline.evaluation.answers import EvaluationTask, ModelPredictions, ask_model
from clewline.evaluation.bootstrap import plan_bootstrap
from clewline.evaluation.columns import read_columns
from clewline.evaluation.metrics import SMALLER_IS_BETTER, Floats, Integers, Interval, Measure
from clewline.evaluation.time_and_groups import read_groups
from clewline.model.evaluation_record import read_evaluation
from clewline.model.registered_model import RegisteredModel
from clewline.signature import dataframes
from clewline.store.records import Artifact

if TYPE_CHECKING:
    from clewline.model.package import Package
    from clewline.model.runtime.outputs import Outputs
    from clewline.store.store import Store


class PairedMetric(msgspec.Struct, frozen=True):
    """One metric of two versions on the same resamples of the same rows."""

    left: Interval
    right: Interval
    difference: Interval  # right minus left
    better: str | None  # "left" or "right", if the interval of the difference says so


class PairedComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two versions that answered the same test rows."""

    left: str  # name@number
    right: str
    test: str  # digest of the test table, or what was passed in its place
    rows: int
    group: str | None  # whole groups were drawn
    metrics: dict[str, PairedMetric]
    same_answers: int  # rows
    only_left_right: int | None = None  # of a classifier: rows that only this version gets right
    only_right_right: int | None = None


def compare_on_test_rows(
    store: Store, left: Package, right: Package, test: Any = None, *, name: str = ""
) -> PairedComparison:
    """
    Let both served versions answer the same test rows, and compare them resample by resample.

    The rows are the test table that both were evaluated on, which the store holds if a step
    returned it; the models are asked anew, so that no answers need to be stored.

    Args:
        store: Holds the test table.
        left: A checked package.
        right: The other.
        test: Rows with the target, in place of that table.
        name: What to call them.

    Raises:
        NotFound: There is no test table that both share, or the store does not hold it.
        InvalidInput: The versions answer another question, or refuse the rows.
    """
    _require_same_question(left, right)
    digest = name
    if test is None:
        digest, test = _shared_test(store, left, right)
    target = right.manifest.target
    targets = dataframes.column_values(test, target)
    answered = [_ask(package, test, target, targets) for package in (left, right)]
    (task, ours), (other, theirs) = answered
    theirs = _reorder(theirs, other.labels, task.labels)
    group = _group(left, test)
    bootstrap = plan_bootstrap(
        task.rows,
        groups=None if group is None else read_groups(read_columns(test), group),
        cells=lambda: task.cells(ours, theirs),
    )

    def build(rows: Integers | None) -> Measure:
        some = task if rows is None else task.take(rows)
        sides = [each if rows is None else each.take(rows) for each in (ours, theirs)]
        return _differences(*(some.measure(side) for side in sides))

    found = bootstrap.intervals(build)
    names = [key.partition(" ")[2] for key in found if key.startswith("difference ")]
    hits = [task.truth == each.choices for each in (ours, theirs)] if task.labels else None
    return PairedComparison(
        left=left.manifest.ref,
        right=right.manifest.ref,
        test=digest,
        rows=task.rows,
        group=group,
        metrics={each: _paired(each, found) for each in names},
        same_answers=int((ours.choices == theirs.choices).sum()),
        only_left_right=None if hits is None else int((hits[0] & ~hits[1]).sum()),
        only_right_right=None if hits is None else int((hits[1] & ~hits[0]).sum()),
    )


def _require_same_question(left: Package, right: Package) -> None:
    asked = [
        (each.manifest.target, each.manifest.task, frozenset(each.signature.output.labels or ()))
        for each in (left, right)
    ]
    if asked[0] != asked[1]:
        said = [f"{target} ({task})" for target, task, _ in asked]
        raise InvalidInput(
            f"{left.manifest.ref} answers {said[0]}, and {right.manifest.ref} {said[1]}, or their "
            "labels differ.",
            "Compare versions that answer the same question.",
        )


def _shared_test(store: Store, left: Package, right: Package) -> tuple[str, Any]:
    from clewline.flow import values

    tables: list[Any] = [
        (each.manifest.data.get("test") or {}).get("artifact") for each in (left, right)
    ]
    fix = "Pass --test FILE with rows that neither version was trained on."
    for package, table in zip((left, right), tables, strict=True):
        if table is None:
            raise NotFound(f"{package.manifest.ref} was registered without test rows.", fix)
    if tables[0] != tables[1]:
        raise NotFound(
            f"{left.manifest.ref} and {right.manifest.ref} were evaluated on different test rows.",
            fix,
        )
    artifact = store.catalog.get(Artifact, tables[0])
    if artifact is None:
        raise NotFound(
            f"The store does not hold the test rows {tables[0][:12]}, because no step returned "
            "them.",
            fix,
        )
    return tables[0], values.load(artifact, store.blobs)


class _AnsweringOnce(RegisteredModel):
    """A version that is asked about one table, first for labels and then for probabilities."""

    outputs: Outputs | None = None

    def answer(self, frame: Any) -> Outputs:
        if self.outputs is None:
            self.outputs = super().answer(frame)
        return self.outputs


def _ask(
    package: Package, test: Any, target: str, targets: list[Any]
) -> tuple[EvaluationTask, ModelPredictions]:
    try:
        with _AnsweringOnce(package) as model:
            return ask_model(model, dataframes.drop_column(test, target), targets)
    except InvalidInput as error:
        raise InvalidInput(f"{package.manifest.ref}: {error.message}", error.fix) from error


def _reorder(
    answers: ModelPredictions, labels: tuple[Any, ...], wanted: tuple[Any, ...]
) -> ModelPredictions:
    """Return answers with the indices and the columns of another order of the labels."""
    if not labels or labels == wanted:
        return answers
    place = np.array([wanted.index(label) for label in labels])
    probabilities = answers.probabilities
    if probabilities is not None:
        probabilities = probabilities[:, np.argsort(place)]
    return ModelPredictions(place[answers.choices.astype(np.int64)] * 1.0, probabilities)


def _group(package: Package, test: Any) -> str | None:
    """Return the column whose groups the version's evaluation drew, if the rows have it."""
    report = read_evaluation(package)
    section = report.time_and_groups if report else None
    name = section.group if section else None
    return name if name in dataframes.open_table(test).columns else None


def _differences(ours: Measure, theirs: Measure) -> Measure:
    def measure(weights: Floats) -> dict[str, float]:
        left, right = ours(weights), theirs(weights)
        both = [name for name in left if name in right]
        return {
            **{f"left {name}": left[name] for name in both},
            **{f"right {name}": right[name] for name in both},
            **{f"difference {name}": right[name] - left[name] for name in both},
        }

    return measure


def _paired(name: str, found: dict[str, Interval]) -> PairedMetric:
    difference = found[f"difference {name}"]
    better = None
    if difference.low > 0 or difference.high < 0:
        is_right = (difference.low > 0) != (name in SMALLER_IS_BETTER)
        better = "right" if is_right else "left"
    return PairedMetric(found[f"left {name}"], found[f"right {name}"], difference, better)
