"""Counterfactuals beside an exact solver, which tries every cell between the splits of trees."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import numpy as np
import polars as pl
import pytest
from explained import fitted
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier

from clewline.explain.counterfactual_search import ChangeLimits, CounterfactualSearch
from clewline.explain.leaf_boxes import build_leaf_boxes
from clewline.explain.row_distances import RowDistances
from clewline.model.register import convert_model
from clewline.model.runtime.outputs import take_rows
from clewline.model_families import family_named
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

ROWS, WORKS = 150, ("own", "state", "self")
LIMITS = 5_000  # of each model
MODELS = (
    GradientBoostingClassifier(n_estimators=6, max_depth=2, random_state=0),
    RandomForestClassifier(5, max_depth=3, random_state=1),
)


def people(rows: int, seed: int) -> pl.DataFrame:
    """Rich is who is old and works long, more or less, unless the state pays."""
    random = np.random.default_rng(seed)
    age, hours = random.integers(17, 90, rows), random.uniform(1, 80, rows).round(1)
    work = random.choice(WORKS, rows)
    score = (age - 50) / 20 + (hours - 40) / 25 - (work == "state") + random.normal(0, 0.4, rows)
    return pl.DataFrame({"age": age, "hours": hours, "work": work, "y": score > 0})


class Cells:
    """
    Every cell of the fields between splits, with a row inside of each.

    A number's splits are those of any tree; all rows of a cell have one answer.
    """

    def __init__(self, trees: Any, signature: Signature) -> None:
        self.signature = signature
        boxes = build_leaf_boxes(trees, signature)
        ends = {name: [-np.inf, np.inf] for name in ("age", "hours")}
        for place, player in enumerate(boxes.number_player):
            splits = np.unique([boxes.low[place], boxes.high[place]])
            ends[boxes.players[player]] = [-np.inf, *splits[np.isfinite(splits)], np.inf]
        self.intervals = {name: list(pairwise(all_)) for name, all_ in ends.items()}
        self.boxes = boxes

    def nearest(
        self, row: Columns, limits: ChangeLimits, *, within: float = 1e6
    ) -> tuple[Columns, NDArray[np.bool_]]:
        """Return the nearest allowed point of each cell to a row, and which cells have one."""
        choices: list[list[float | None]] = []
        for column, (field, name) in enumerate(
            zip(self.signature.numeric, ("age", "hours"), strict=True)
        ):
            was = float(row.numbers[0, column])
            choices.append(
                [
                    self._nearest(was, low, high, name, limits, is_whole=field.kind == "integer")
                    for low, high in self.intervals[name]
                ]
            )
        own = row.texts[0, 0]
        works = [own] if "work" in limits.keep else sorted({own, *WORKS})
        points = list(product(*choices, works))
        there = np.array([None not in point[:2] for point in points])
        numbers = np.array([[np.nan if n is None else n for n in point[:2]] for point in points])
        texts = np.array([[point[2]] for point in points], dtype=object)
        return Columns(np.clip(numbers, -within, within), texts), there

    def _nearest(
        self,
        was: float,
        low: float,
        high: float,
        name: str,
        limits: ChangeLimits,
        *,
        is_whole: bool,
    ) -> float | None:
        if low < was <= high:
            return was
        if name in limits.keep:
            return None
        if limits.one_way.get(name) == ("up" if was > high else "down"):
            return None
        least, most = limits.ranges.get(name, (-np.inf, np.inf))
        nearest = max(np.nextafter(low, np.inf), least) if was <= low else min(high, most)
        if is_whole:
            nearest = np.ceil(nearest) if was <= low else np.floor(nearest)
        fits = low < nearest <= high and least <= nearest <= most
        return float(nearest) if fits else None


@pytest.fixture(scope="module", params=MODELS, ids=["boosted", "forest"])
def served(request: pytest.FixtureRequest) -> Any:
    """A small model as it is served, its cells, and a search that knows a row of each cell."""
    train = people(400, 0)
    model = fitted(request.param, train)
    contents = convert_model(model, train=train, test=people(100, 1), target="y")
    family = family_named(contents.compiled.runtime)
    trees = family.served_trees(contents.compiled.files, contents.signature)
    assert trees is not None
    predictor = family.load(contents.compiled.files, contents.signature)
    cells = Cells(trees, contents.signature)
    middle = Columns(np.array([[50.0, 40.0]]), np.array([["own"]], dtype=object))
    all_, there = cells.nearest(middle, ChangeLimits())
    background = take_rows(all_, np.flatnonzero(there))
    search = CounterfactualSearch(predictor.predict, background, contents.signature, cells.boxes)
    yield cells, search, predictor, RowDistances(background, contents.signature)
    predictor.close()


def random_limits(random: np.random.Generator) -> ChangeLimits:
    """Draw what may change."""
    keep = frozenset(name for name in ("age", "hours", "work") if random.random() < 0.15)
    one_way: Any = {"age": random.choice(["up", "down"])} if random.random() < 0.3 else {}
    low = random.uniform(0, 60)
    ranges = {"hours": (low, low + random.uniform(1, 60))} if random.random() < 0.5 else {}
    return ChangeLimits(keep, one_way, ranges)


def rows_of(table: pl.DataFrame) -> Columns:
    numbers = table.select("age", "hours").cast(pl.Float64).to_numpy()
    return Columns(numbers, table.select("work").to_numpy().astype(object))


def test_the_nearest_change_is_that_of_an_exact_solver(served: Any) -> None:
    """Where a training row lies in each cell, no change of less distance has the wanted answer."""
    cells, search, predictor, metric = served
    random, rows, solved = np.random.default_rng(5), rows_of(people(ROWS, 2)), 0
    for at in range(ROWS):
        row, limits = take_rows(rows, slice(at, at + 1)), random_limits(random)
        wanted = 1 - int(predictor.predict(row).choices[0])
        points, there = cells.nearest(row, limits)
        fits = there & (predictor.predict(points).choices == wanted)
        exact = metric.between(points, row).sum(axis=1)[fits]

        def is_wanted(found: Any, wanted: int = wanted) -> NDArray[np.bool_]:
            return np.equal(found.choices, wanted)

        found = search.find(row, is_wanted, limits=limits)
        assert len(found.rows) == 0 if not fits.any() else len(found.rows) > 0, (at, limits)
        if len(found.rows):
            solved += 1
            assert found.distances[0] >= exact.min() - 1e-9
            # A number is rounded outwards by at most 1 % of its change.
            assert found.distances[0] <= exact.min() * 1.01 + 1e-9, (at, limits)
    assert solved >= ROWS // 2


def test_ten_thousand_random_limits_hold(served: Any) -> None:
    _, search, predictor, _ = served
    random, rows, found_some = np.random.default_rng(7), rows_of(people(50, 3)), 0
    for at in range(LIMITS):
        row, limits = take_rows(rows, slice(at % 50, at % 50 + 1)), random_limits(random)
        wanted = 1 - int(predictor.predict(row).choices[0])
        found = search.find(
            row,
            lambda answers, wanted=wanted: np.equal(answers.choices, wanted),
            limits=limits,
            budget=200,
        ).rows
        found_some += len(found) > 0
        age, hours = (found.numbers - row.numbers).T
        work = found.texts[:, 0] != row.texts[0, 0]
        for name, moved in (("age", age != 0), ("hours", hours != 0), ("work", work)):
            assert name not in limits.keep or not moved.any(), limits
        if direction := limits.one_way.get("age"):
            assert ((age >= 0) if direction == "up" else (age <= 0)).all(), limits
        low, high = limits.ranges.get("hours", (-np.inf, np.inf))
        held = (low <= found.numbers[:, 1]) & (found.numbers[:, 1] <= high)
        assert (held | (hours == 0)).all(), limits
        if len(found):
            assert (predictor.predict(found).choices == wanted).all(), limits
    assert found_some > LIMITS // 4
