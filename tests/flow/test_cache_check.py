"""A sample of cached steps is run again, and false hits are told from what else may happen."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from scipy.stats import binomtest

from clewline.cli.replay import make_project
from clewline.errors import NotFound, UsageError
from clewline.flow.cache_check import CacheCheck, check_cache, wilson_interval
from clewline.store.records import CacheEntry, Run, StepRun

PIPELINE = """
    import random

    @cl.step
    def read(path: Path) -> int:
        return len(path.read_text())

    @cl.step
    def double(x: int) -> int:
        return x * 2

    @cl.step
    def draw() -> float:
        return random.random()

    @cl.pipeline
    def main():
        double(read(Path("in.txt")))
        draw()
"""


@pytest.fixture
def ran(bench: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A project with a run of three steps, in its folder."""
    monkeypatch.chdir(bench.root)
    (bench.root / "in.txt").write_text("four")
    bench.write("pipelines.py", PIPELINE)
    bench.run()
    return bench


def check(bench: Any, share: float = 1.0, seed: int = 0) -> CacheCheck:
    return check_cache(bench.project, bench.store, share=share, seed=seed, prepare=make_project)


def verdicts(found: CacheCheck) -> dict[str, str]:
    return {step.step.partition("/")[2]: step.verdict for step in found.steps}


def replace_output(bench: Any, function: str, digest: str) -> None:
    """Let the cache hold another output for a step, as a missed dependency would."""
    [entry] = bench.store.catalog.find(CacheEntry, function=f"pipelines:{function}", limit=None)
    step = bench.store.catalog.get(StepRun, entry.step_run)
    bench.store.record(replace(entry, outputs=[digest]), replace(step, outputs=[digest]))


def test_steps_that_return_the_same_are_equal(ran: Any) -> None:
    found = check(ran)
    assert verdicts(found) == {"00-read": "equal", "01-double": "equal", "02-draw": "equal"}
    assert (found.cached, found.rerun, found.false_hits, found.rate) == (3, 3, 0, 0.0)
    assert ran.store.catalog.count(Run) == 1
    assert not list(ran.root.glob("clewline-check-*"))


def test_a_false_hit_is_named_with_its_difference(ran: Any) -> None:
    [run] = ran.store.catalog.find(Run, limit=None)
    read = ran.steps(run)[0]
    replace_output(ran, "double", read.outputs[0])  # 4 instead of 8
    found = check(ran)
    assert verdicts(found)["01-double"] == "false hit"
    assert "4" in found.steps[1].differences[0]
    assert (found.false_hits, found.rate) == (1, pytest.approx(1 / 3))


def test_a_step_that_differs_each_time_is_not_deterministic(bench: Any) -> None:
    """Addresses of objects are nowhere in a key, and differ from process to process."""
    bench.write(
        "pipelines.py",
        """
        class Named:
            pass

        @cl.step
        def shaky() -> list[float]:
            return [float(id(Named()) % 9973), float(hash(Named()) % 9967)]

        @cl.pipeline
        def main():
            shaky()
        """,
    )
    bench.run()
    found = check(bench)
    assert verdicts(found) == {"00-shaky": "not deterministic"}
    assert (found.rerun, found.rate, found.interval) == (0, None, None)


def test_a_step_with_another_key_is_counted_apart(ran: Any) -> None:
    (ran.root / "in.txt").write_text("other")
    found = check(ran)
    assert verdicts(found) == {"00-read": "not rerun", "01-double": "not rerun", "02-draw": "equal"}
    assert "have changed" in (found.steps[0].reason or "")
    ran.write("pipelines.py", "raise RuntimeError\n")
    found = check(ran)
    assert set(verdicts(found).values()) == {"not rerun"}
    assert "did not get there" in (found.steps[0].reason or "")


def test_the_seed_chooses_the_sample(ran: Any) -> None:
    assert check(ran, 0.5, seed=7) == check(ran, 0.5, seed=7)
    assert len(check(ran, 0.01, seed=7).steps) == 1


def test_a_share_out_of_range_and_an_empty_cache_are_refused(bench: Any) -> None:
    with pytest.raises(NotFound, match="holds no steps"):
        check(bench)
    for share in (0.0, -1.0, 1.01, float("nan")):
        with pytest.raises(UsageError, match=r"not in \(0, 1\]"):
            check(bench, share)


@pytest.mark.parametrize(("hits", "trials"), [(0, 1), (0, 10), (1, 10), (10, 10), (3, 977)])
def test_the_interval_is_that_of_scipy(hits: int, trials: int) -> None:
    theirs = binomtest(hits, trials).proportion_ci(method="wilson")
    assert wilson_interval(hits, trials) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
