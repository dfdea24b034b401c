"""Runs are found by conditions on their parameters and metrics, also those of an older store."""

from __future__ import annotations

import math
import socket
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from clewline.errors import UsageError
from clewline.flow.run_query import read_filter, read_order
from clewline.store.records import Run, RunValue
from clewline.store.run_search import count_runs, pipelines_run, search_runs, value_names
from clewline.store.store import Store

STARTED = 1_790_000_000.0


def record(store: Store, id_: str, age_s: float = 0.0, **more: Any) -> Run:
    made = Run(
        **{
            "id": id_,
            "pipeline": "income",
            "status": "done",
            "started": STARTED - age_s,
            "process": "",
            **more,
        }
    )
    store.record(made)
    return made


@pytest.fixture
def three(store: Store) -> Store:
    record(store, "a1", 30, params={"model": "forest", "opt": {"rate": 0.1}}, metrics={"auc": 0.9})
    record(store, "b2", 20, params={"model": "linear"}, metrics={"auc": 0.7, "loss": math.nan})
    record(store, "c3", 10, pipeline="tumours", status="failed", seed=7)
    return store


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, ["c3", "b2", "a1"]),
        ({"pipeline": "income"}, ["b2", "a1"]),
        ({"status": "failed"}, ["c3"]),
        ({"metrics": ["auc > 0.7"]}, ["a1"]),
        ({"metrics": ["auc >= 0.7"]}, ["b2", "a1"]),
        ({"metrics": ["auc != 0.7"]}, ["a1"]),
        ({"metrics": ["loss = nan"]}, ["b2"]),
        ({"metrics": ["loss < 1e9"]}, []),
        ({"params": ["model = forest"]}, ["a1"]),
        ({"params": ["model != forest"]}, ["b2"]),
        ({"params": ["opt.rate <= 0.1"]}, ["a1"]),
        ({"params": ["seed==7"]}, ["c3"]),
        ({"params": ["model=forest"], "metrics": ["auc<0.8"]}, []),
        ({"since": "2026-09-21T13:46:30Z"}, ["c3", "b2", "a1"]),
        ({"until": "2026-01-01"}, []),
    ],
)
def test_all_that_is_asked_must_hold(three: Store, asked: Any, found: list[str]) -> None:
    where = read_filter(**asked)
    assert search_runs(three.catalog, where, read_order(None), limit=10) == found
    assert count_runs(three.catalog, where) == len(found)


@pytest.mark.parametrize(
    ("sort", "found"),
    [
        ("-auc", ["a1", "b2", "c3"]),
        ("auc", ["b2", "a1", "c3"]),
        ("param.model", ["a1", "b2", "c3"]),
        ("-param.model", ["b2", "a1", "c3"]),
        ("started", ["a1", "b2", "c3"]),
    ],
)
def test_runs_without_the_value_that_sorts_come_last(
    three: Store, sort: str, found: list[str]
) -> None:
    order = read_order(sort)
    assert search_runs(three.catalog, read_filter(), order, limit=10) == found
    assert search_runs(three.catalog, read_filter(), order, limit=1, offset=1) == found[1:2]


def test_a_run_whose_process_died_counts_as_interrupted(store: Store) -> None:
    record(store, "a1", status="running", process=f"{socket.gethostname()}:999999999:1.00")
    (dead,) = search_runs(
        store.catalog, read_filter(status="interrupted"), read_order(None), limit=9
    )
    assert dead == "a1"
    assert count_runs(store.catalog, read_filter(status="running")) == 0


def test_the_values_of_a_run_follow_its_record(three: Store) -> None:
    record(three, "a1", 30, params={"model": "tree"}, metrics={"recall": 1.0})
    values = three.catalog.find(RunValue, limit=None)
    assert {(v.kind, v.name) for v in values if v.run == "a1"} == {
        ("param", "model"),
        ("metric", "recall"),
    }
    assert value_names(three.catalog, "metric") == ["auc", "loss", "recall"]
    assert value_names(three.catalog, "param") == ["model", "seed"]
    assert pipelines_run(three.catalog) == ["income", "tumours"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"metrics": ["auc"]}, "is not a condition"),
        ({"params": ["model > forest"]}, "not a number"),
        ({"since": "soon"}, "not a time"),
        ({"status": "lost"}, "never 'lost'"),
        ({"metrics": ["auc > 0"] * 21}, "at most 20"),
    ],
)
def test_what_cannot_be_asked_is_refused(three: Store, asked: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        search_runs(three.catalog, read_filter(**asked), read_order(None), limit=1)


def test_a_store_of_the_version_before_gets_the_values_of_its_runs(three: Store) -> None:
    expected = three.catalog.find(RunValue, limit=None)
    assert len(expected) == 7
    three.close()
    with closing(sqlite3.connect(three.catalog.path)) as connection:
        connection.executescript(
            "DROP TABLE run_value; DROP INDEX ix_run_started_pipeline_status; "
            "CREATE INDEX ix_run_started ON run (started); "
            "UPDATE alembic_version SET version_num = '0002';"
        )
    with Store.open(three.root) as upgraded:
        assert upgraded.catalog.find(RunValue, limit=None) == expected
        best = search_runs(upgraded.catalog, read_filter(), read_order("-auc"), limit=1)
    assert best == ["a1"]
