"""Resamples of rows, of cells of like rows, and of groups agree."""

import numpy as np
import pytest

from clewline.evaluation.answers import EvaluationTask, ModelPredictions
from clewline.evaluation.baseline import Objective
from clewline.evaluation.bootstrap import Bootstrap, plan_bootstrap


def binary(rows: int) -> tuple[EvaluationTask, ModelPredictions]:
    random = np.random.default_rng(1)
    scores = random.beta(2, 3, rows)
    truth = (random.uniform(size=rows) < scores).astype(np.int64)
    task = EvaluationTask("binary", truth, (0, 1), "accuracy", Objective(2))
    return task, ModelPredictions((scores > 0.5) * 1.0, np.column_stack([1 - scores, scores]))


def regression(rows: int) -> tuple[EvaluationTask, ModelPredictions]:
    random = np.random.default_rng(2)
    truth = random.normal(size=rows) * 3
    task = EvaluationTask("regression", truth, (), "rmse", Objective())
    return task, ModelPredictions(truth + random.standard_t(5, rows))


def widths(bootstrap: Bootstrap, task: EvaluationTask, answers: ModelPredictions) -> dict:
    found = bootstrap.intervals(
        lambda some: (
            task.measure(answers) if some is None else task.take(some).measure(answers.take(some))
        )
    )
    return {name: (each.value, each.high - each.low) for name, each in found.items()}


@pytest.mark.parametrize("make", [binary, regression])
def test_cells_of_like_rows_vary_as_single_rows_do(make) -> None:
    """10 % is four standard errors of a width from 1,000 resamples, for both."""
    task, answers = make(12_000)
    by_row = widths(Bootstrap(rows=12_000, resamples=1000), task, answers)
    planned = plan_bootstrap(12_000, cells=lambda: task.cells(answers))
    assert planned.cells is not None
    assert planned.cells.counts.sum() == 12_000
    for name, (value, width) in widths(planned, task, answers).items():
        assert value == by_row[name][0]
        assert width == pytest.approx(by_row[name][1], rel=0.15), name


def test_rows_of_one_group_are_not_independent() -> None:
    """Every row stands there four times: single rows pretend to be four times as many."""
    task, answers = binary(500)
    rows = np.repeat(np.arange(500), 4)
    task, answers = task.take(rows), answers.take(rows)
    alone = widths(Bootstrap(rows=2000), task, answers)["accuracy"][1]
    grouped = widths(Bootstrap(rows=2000, groups=rows), task, answers)["accuracy"][1]
    assert grouped == pytest.approx(2 * alone, rel=0.15)


def test_counts_and_sums_of_cells_vary_alike_in_all_ways() -> None:
    random = np.random.default_rng(0)
    cells, terms = random.integers(0, 3, 12_000), random.exponential(size=(12_000, 2))
    exact = Bootstrap(rows=12_000)  # normal within cells
    single = Bootstrap(rows=12_000, groups=np.arange(12_000))
    for left, right in zip(
        (exact.sums(cells, 3, terms), exact.counts(cells, 3)),
        (single.sums(cells, 3, terms), single.counts(cells, 3)),
        strict=True,
    ):
        assert left.mean(axis=0) == pytest.approx(right.mean(axis=0), rel=0.01)
        assert left.std(axis=0) == pytest.approx(right.std(axis=0), rel=0.15)
    assert exact.counts(cells, 3).sum(axis=1) == pytest.approx(12_000)


def test_equal_seeds_give_equal_intervals() -> None:
    task, answers = binary(12_000)
    ways = [plan_bootstrap(12_000, seed=s, cells=lambda: task.cells(answers)) for s in (0, 0, 1)]
    found = [widths(each, task, answers)["accuracy"] for each in ways]
    assert found[0] == found[1] != found[2]
