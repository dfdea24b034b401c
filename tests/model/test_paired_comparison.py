"""Two versions answer the same test rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from projects import make_project
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeClassifier

import clewline as cl
from clewline.errors import InvalidInput, NotFound
from clewline.flow.run import execute
from clewline.model.paired_comparison import PairedComparison, compare_on_test_rows
from clewline.model.registry import Registry
from clewline.store.store import Store


def people(rows: int, seed: int) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    age = random.uniform(18, 80, rows)
    hours = random.uniform(0, 60, rows)
    rich = age / 80 + hours / 60 + random.normal(size=rows) * 0.2 > 1.1
    return pl.DataFrame({"age": age, "hours": hours, "y": np.where(rich, "yes", "no")})


TRAIN, TEST, OTHER = people(400, 0), people(300, 1), people(100, 2)


@cl.step
def rows(which: int) -> pl.DataFrame:
    return (TRAIN, TEST, OTHER)[which]


@cl.pipeline
def versions() -> None:
    train, test = rows(0), rows(1)
    for depth in (1, 6):
        tree = DecisionTreeClassifier(max_depth=depth, random_state=0)
        tree.fit(TRAIN.drop("y"), TRAIN["y"].to_list())
        cl.register("people", tree, train=train, test=test, target="y")
    stump = DecisionTreeClassifier(max_depth=2, random_state=0)
    stump.fit(TRAIN.drop("y"), TRAIN["y"].to_list())
    cl.register("people", stump, train=train, test=rows(2), target="y")
    cl.register("alone", stump, train=train, target="y")
    line = LinearRegression().fit(TRAIN[["age"]], TRAIN["hours"])
    cl.register("hours", line, train=TRAIN[["age", "hours"]], target="hours")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    project = make_project(tmp_path_factory.mktemp("paired"))
    with Store.open(project.store_root) as store:
        run = execute(versions, {}, project=project, store=store)
        assert run.status == "done"
        yield Registry(project, store)


def compare(registry: Registry, left: str, right: str, **more: Any) -> PairedComparison:
    packages = registry.open(left), registry.open(right)
    return compare_on_test_rows(registry.store, *packages, **more)


def test_both_answer_the_table_that_they_share(registry: Registry) -> None:
    found = compare(registry, "people@1", "people@2")
    one, two = registry.get("people@1"), registry.get("people@2")
    accuracy = found.metrics["accuracy"]
    assert found.rows == 300
    assert accuracy.left.value == one.metrics["accuracy"]
    assert accuracy.right.value == two.metrics["accuracy"]
    assert accuracy.difference.value == pytest.approx(accuracy.right.value - accuracy.left.value)
    assert found.only_right_right - found.only_left_right == round(accuracy.difference.value * 300)
    assert accuracy.better == "right"
    assert found.metrics["log_loss"].better == "left"  # the deep tree is too sure; less is better
    # Paired, the interval is narrower than those of both versions together.
    width = accuracy.difference.high - accuracy.difference.low
    alone = [each.high - each.low for each in (accuracy.left, accuracy.right)]
    assert width < sum(alone)


def test_a_version_equals_itself(registry: Registry) -> None:
    found = compare(registry, "people@2", "people@2")
    assert found.same_answers == 300
    assert all(each.better is None for each in found.metrics.values())
    assert found.metrics["accuracy"].difference.low == 0.0


def test_other_rows_can_be_passed(registry: Registry) -> None:
    found = compare(registry, "people@2", "people@3", test=OTHER, name="other.csv")
    assert (found.rows, found.test) == (100, "other.csv")


@pytest.mark.parametrize(
    ("left", "right", "words"),
    [
        ("people@1", "people@3", "evaluated on different test rows"),
        ("people@1", "alone@1", "alone@1 was registered without test rows"),
    ],
)
def test_why_versions_cannot_be_compared_is_said(
    registry: Registry, left: str, right: str, words: str
) -> None:
    with pytest.raises(NotFound, match=words) as raised:
        compare(registry, left, right)
    assert "--test FILE" in str(raised.value.fix)


def test_test_rows_that_the_store_does_not_hold_are_said(registry: Registry) -> None:
    packages = []
    for ref in ("people@1", "people@2"):
        package = registry.open(ref)
        data = {"test": {"artifact": "ab" * 32, "rows": 300}}
        manifest = msgspec.structs.replace(package.manifest, data=data)
        packages.append(msgspec.structs.replace(package, manifest=manifest))
    with pytest.raises(NotFound, match="does not hold the test rows abababababab"):
        compare_on_test_rows(registry.store, *packages)


def test_versions_that_answer_different_questions_are_refused(registry: Registry) -> None:
    with pytest.raises(InvalidInput, match="people@1 answers y"):
        compare(registry, "people@1", "hours@1", test=TEST)


def test_rows_that_a_version_refuses_are_named(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"people@1: The table has no column 'hours'"):
        compare(registry, "people@1", "people@2", test=TEST.drop("hours"))
