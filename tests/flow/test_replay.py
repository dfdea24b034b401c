"""The replay of a run is equal, or the report says where and by how much it differs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from clewline.cli.replay import make_project
from clewline.errors import NotSupported, RunFailed
from clewline.flow.replay import RunReplay, replay
from clewline.store.records import Run

STEADY = """
    import numpy as np
    import polars as pl
    from helper import scale

    @cl.step
    def read(path: Path) -> pl.DataFrame:
        return pl.read_csv(path)

    @cl.step
    def near(path: Path = Path("data/weights.txt")) -> list[float]:
        return [float(word) for word in path.read_text().split()]

    @cl.step
    def mix(table: pl.DataFrame, weights: list[float]) -> tuple[pl.DataFrame, float]:
        drawn = float(np.random.rand())
        Path("drawn.txt").write_text(str(drawn))
        cl.log_artifact("drawn.txt")
        return table.with_columns(pl.col("x") * scale(weights[0])), drawn

    @cl.pipeline
    def main(data: Path, seed: int = 0):
        mix(read(data / "table.csv"), near())
"""


def again(bench: Any, run: Run, *, keep: bool = False) -> RunReplay:
    return replay(bench.project, bench.store, run.id, prepare=make_project, keep=keep)


def test_a_run_with_inputs_helpers_and_randomness_replays_to_the_same(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write("helper.py", "def scale(x):\n    return x * 2\n")
    bench.write("pipelines.py", STEADY)
    (bench.root / "data").mkdir()
    (bench.root / "data" / "weights.txt").write_text("0.5 2")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "table.csv").write_text("x\n1\n2\n")
    monkeypatch.chdir(bench.root)
    bench.run(data=Path("../outside"), seed=3)
    run = bench.run(data=Path("../outside"), seed=3)  # all steps from the cache
    # What happens to code and inputs afterwards does not touch the record.
    for path in ("helper.py", "data/weights.txt", "../outside/table.csv"):
        (bench.root / path).unlink()
    bench.write("pipelines.py", "raise RuntimeError\n")

    found = again(bench, run)

    assert (found.error, found.first, found.cause) == (None, None, None)
    assert found.equal
    assert [(step.step, step.verdict, step.compared) for step in found.steps] == [
        ("00-read", "equal", 1),
        ("01-near", "equal", 1),
        ("02-mix", "equal", 3),
    ]
    assert found.artifacts == 5
    assert found.folder is None
    assert bench.store.catalog.count(Run) == 2


@pytest.mark.parametrize(
    ("number", "causes"),
    [
        ("int.from_bytes(os.urandom(2), 'big')", ["unrecorded"]),
        # The hash seed may differ, too.
        ("time.perf_counter_ns()", ["environment", "not deterministic"]),
    ],
)
def test_a_step_that_is_not_deterministic_is_named_with_the_distance(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str, causes: list[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    bench.write(
        "pipelines.py",
        f"""
        import os, time

        @cl.step
        def steady() -> int:
            return 1

        @cl.step
        def shaky(x: int) -> list[float]:
            return [1.0, float({number})]

        @cl.step
        def after(x: list[float]) -> float:
            return x[1]

        @cl.pipeline
        def main():
            after(shaky(steady()))
        """,
    )
    found = again(bench, bench.run(), keep=True)
    assert not found.equal
    assert found.first == "01-shaky"
    assert [step.verdict for step in found.steps] == ["equal", "differs", "differs"]
    assert "[1]: " in found.steps[1].differences[0]
    assert "ULP" in found.steps[1].differences[0]
    assert found.cause.kind in causes
    assert (Path(found.folder) / bench.root.name / "pipelines.py").is_file()


def test_a_step_that_fails_in_the_replay_is_missing(bench: Any, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    bench.write(
        "pipelines.py",
        f"""
        import os

        @cl.step
        def fussy() -> int:
            if not os.path.exists({str(flag)!r}):
                raise ValueError("the flag is gone")
            return 1

        @cl.pipeline
        def main():
            fussy()
        """,
    )
    run = bench.run()
    flag.unlink()
    found = again(bench, run)
    assert (found.equal, found.first, found.steps[0].verdict) == (False, "00-fussy", "missing")
    assert "the flag is gone" in found.error


def test_a_run_that_did_not_end_well_is_not_replayed(bench: Any) -> None:
    bench.write("pipelines.py", "@cl.pipeline\ndef main():\n    raise ValueError\n")
    with pytest.raises(RunFailed) as caught:
        bench.run()
    run = bench.store.catalog.get(Run, caught.value.run)
    with pytest.raises(NotSupported, match="is failed"):
        again(bench, run)
