"""A cache plan names hits, misses and reasons, and executes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from clewline.errors import CheckFailed
from clewline.flow.pipeline_files import find_pipeline
from clewline.flow.step_cache import StepPlan, plan_cache
from clewline.store.records import Run

CHAIN = """
    from helper import scale

    @cl.step
    def load(size: int) -> list[int]:
        Path("executed").touch()
        return list(range(size))

    @cl.step
    def grow(table: list[int], by: int = 2) -> list[int]:
        return [scale(x) * by for x in table]

    @cl.step(cache=False)
    def tell(table: list[int]) -> int:
        return len(table)

    @cl.pipeline
    def main(size: int = 3, by: int = 2, look: bool = False):
        table = grow(load(size), by=by)
        tell(table)
        if look:
            load(table.value()[0])
"""


def plan(bench: Any, **params: Any) -> list[StepPlan]:
    found = find_pipeline(bench.project, "main")
    return plan_cache(found, params, project=bench.project, store=bench.store)


def prepared(bench: Any) -> Run:
    bench.write("helper.py", "def scale(x):\n    return x * 2\n")
    bench.write("pipelines.py", CHAIN)
    return bench.run()


def test_before_the_first_run_nothing_is_cached(bench: Any) -> None:
    bench.write("helper.py", "def scale(x):\n    return x * 2\n")
    bench.write("pipelines.py", CHAIN)
    steps = plan(bench, look=True)
    assert [step.verdict for step in steps] == ["miss", "unknown", "never", "unknown"]
    assert steps[0].first_call
    assert steps[1].depends_on == ["00-load"]
    assert steps[3].depends_on == ["01-grow"]


def test_after_a_run_its_steps_are_hits(bench: Any) -> None:
    run = prepared(bench)
    steps = plan(bench)
    assert [(step.step, step.verdict) for step in steps] == [
        ("00-load", "hit"),
        ("01-grow", "hit"),
        ("02-tell", "never"),
    ]
    assert steps[0].from_step == f"{run.id}/00-load"
    assert steps[2].reason == "cache=False"


def test_the_changed_part_is_named(bench: Any) -> None:
    prepared(bench)
    [change] = plan(bench, by=5)[1].changes
    assert (change.part, change.name, change.new) == ("parameter", "by", "5 (int)")
    bench.write("helper.py", "def scale(x):\n    return x * 3\n")
    load, grow = plan(bench)[:2]
    assert load.verdict == "hit"
    assert grow.verdict == "miss"
    assert any("scale" in change.name for change in grow.changes)


def test_a_plan_executes_and_records_nothing(bench: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(bench.root)
    bench.write("helper.py", "def scale(x):\n    return x * 2\n")
    bench.write("pipelines.py", CHAIN)
    plan(bench)
    assert not (bench.root / "executed").exists()
    assert bench.store.catalog.count(Run) == 0


def test_an_error_in_the_pipeline_itself_shows_its_lines(bench: Any) -> None:
    bench.write("pipelines.py", "@cl.pipeline\ndef main():\n    1 / 0\n")
    with pytest.raises(CheckFailed, match=r"(?s)ZeroDivisionError.*pipelines\.py:\d+ in main"):
        plan(bench)
