"""A run is recorded, its steps are cached, and a failure names the step."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clewline.errors import NotFound, NotStorable, NotSupported, RunFailed, UsageError
from clewline.flow import executors
from clewline.flow.pipeline_files import find_pipeline
from clewline.flow.run import execute
from clewline.flow.run_recorder import RunEvent
from clewline.flow.runs import find_run, inputs_of, list_runs, log_of, snapshot_of
from clewline.store import lineage
from clewline.store.records import Artifact, CacheEntry, Edge, Run
from clewline.store.ref import RecordRef

PAIR = """
    @cl.step
    def load(size: int = 3) -> list[int]:
        return list(range(size))

    @cl.step
    def split(table: list[int], *, at: int = 1) -> tuple[list[int], list[int]]:
        return table[:at], table[at:]

    @cl.step
    def add(tables: list[list[int]], extra: dict) -> int:
        cl.log_metric("total", sum(map(sum, tables)))
        return sum(map(sum, tables)) + extra["more"][0]

    @cl.pipeline
    def main(size: int = 3, seed: int = 7):
        first, second = split(load(size), at=2)
        total = add([first, second], {"more": (load(1).value()[0] + 5,)})
        assert total.value() == sum(range(size)) + 5
"""


def test_a_run_records_params_steps_outputs_metrics_code_and_environment(bench: Any) -> None:
    bench.write("pipelines.py", PAIR)
    run = bench.run(size=4)
    stored = bench.store.catalog.get(Run, run.id)
    assert msgspec.structs.replace(stored, process="") == msgspec.structs.replace(run, process="")
    assert (run.status, run.params, run.seed) == ("done", {"size": 4, "seed": 7}, 0)
    assert run.metrics == {"total": 6.0}
    assert run.environment is not None
    assert "pipelines.py" in snapshot_of(bench.store, run).files
    names = [step.id for step in bench.steps(run)]
    assert names == [f"{run.id}/{name}" for name in ("00-load", "01-split", "02-load", "03-add")]
    assert [len(step.outputs) for step in bench.steps(run)] == [1, 2, 1, 1]
    assert all(step.wall_s is not None and step.peak_bytes for step in bench.steps(run))


def test_handles_inside_lists_dicts_and_tuples_count_as_inputs(bench: Any) -> None:
    bench.write(
        "pipelines.py",
        """
        @cl.step
        def one(n: int) -> int:
            return n

        @cl.step
        def take(a: list, b: dict, c: tuple) -> list:
            return [a, b, c]

        @cl.pipeline
        def main(n: int = 1):
            got = take([one(n), 0], {"k": {"deep": one(2)}}, (one(3), [one(4)]))
            assert got.value() == [[n, 0], {"k": {"deep": 2}}, (3, [4])]
        """,
    )
    run = bench.run()
    take = bench.steps(run)[-1]
    named = {name: entry["from"] for name, entry in take.inputs.items() if "from" in entry}
    assert named == {
        "a[0]": f"{run.id}/00-one#0",
        "b.k.deep": f"{run.id}/01-one#0",
        "c[0]": f"{run.id}/02-one#0",
        "c[1][0]": f"{run.id}/03-one#0",
    }
    edges = bench.store.catalog.find(Edge, target=f"step:{take.id}", limit=None)
    assert {(edge.source, edge.role) for edge in edges} == {
        (f"step:{run.id}/0{index}-one", f"input:{name}") for index, name in enumerate(named)
    }
    assert bench.steps(bench.run(n=9))[-1].status == "done"


def test_a_value_that_the_pipeline_read_is_still_known_as_the_output_of_its_step(
    bench: Any,
) -> None:
    bench.write(
        "pipelines.py",
        """
        import numpy as np

        @cl.step
        def make() -> np.ndarray:
            return np.arange(3)

        @cl.step
        def take(table) -> int:
            return len(table)

        @cl.pipeline
        def main():
            take(make().value())
        """,
    )
    for run in (bench.run(), bench.run()):
        make, take = bench.steps(run)
        assert take.inputs["table"]["from"] == f"{make.id}#0"
        edges = bench.store.catalog.find(Edge, target=f"step:{take.id}", role="input:table")
        assert [edge.source for edge in edges] == [f"step:{make.id}"]


VALUES = {
    "table": "pl.DataFrame({'x': [1, 2]})",
    "frame": "pd.DataFrame({'x': [1, 2]})",
    "array": "np.arange(3.0)",
    "model": "Ridge().fit([[0.0], [1.0]], [0.0, 2.0])",
    "list": "['age', 'pay', 'town']",
    "dict": "{'depth': 3, 'names': ['a', 'b']}",
    "tuple": "('age', 3)",
}
FOLLOWED = """
    import copy
    import pickle

    import numpy as np
    import pandas as pd
    import polars as pl
    from sklearn.linear_model import Ridge

    @cl.step
    def make() -> object:
        return VALUE

    @cl.step
    def take(given: object) -> int:
        return 1

    @cl.pipeline
    def main():
        value = make().value()
        take(value)
        take(copy.deepcopy(value))
        take(pickle.loads(pickle.dumps(value)))

    @cl.pipeline
    def other():
        take(VALUE)
"""


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_its_copy_and_its_reloaded_copy_keep_the_line(bench: Any, kind: str) -> None:
    bench.write("pipelines.py", FOLLOWED.replace("VALUE", VALUES[kind]))
    for run in (bench.run(), bench.run()):
        make, *takes = bench.steps(run)
        for take in takes:
            edges = bench.store.catalog.find(Edge, target=f"step:{take.id}", limit=None)
            before = [edge.source for edge in edges if edge.role == "input:given"]
            assert before == [f"step:{make.id}"]


@pytest.mark.parametrize("kind", ["table", "frame", "array", "model"])
def test_a_value_of_another_run_is_said_to_be_made_by_its_step(bench: Any, kind: str) -> None:
    bench.write("pipelines.py", FOLLOWED.replace("VALUE", VALUES[kind]))
    first = bench.run()
    [take] = bench.steps(bench.run("other"))
    reader = bench.store.catalog
    tree = lineage.why(reader, RecordRef("step", take.id), full=True)
    made = [node.facts["made_by"] for node in tree.children if node.kind == "artifact"]
    assert made == [f"{first.id}/00-make"]


@pytest.mark.parametrize("value", ["5", "0.25", "True", "None", "'gini'", "[]", "{}"])
def test_a_value_that_may_come_from_anywhere_is_not_followed(bench: Any, value: str) -> None:
    bench.write("pipelines.py", FOLLOWED.replace("VALUE", value))
    _, *takes = bench.steps(bench.run())
    for take in takes:
        edges = bench.store.catalog.find(Edge, target=f"step:{take.id}", limit=None)
        assert [edge for edge in edges if edge.role.startswith("input:")] == []


def test_unchanged_steps_are_taken_from_the_earlier_run(bench: Any) -> None:
    bench.write("pipelines.py", PAIR)
    first, second = bench.run(), bench.run()
    assert [step.status for step in bench.steps(second)] == ["cached"] * 4
    assert second.metrics == first.metrics
    assert bench.steps(second)[0].cached_from == f"{first.id}/00-load"
    third = bench.run(size=5)
    statuses = [step.status for step in bench.steps(third)]
    assert statuses == ["done", "done", "cached", "done"]


def test_a_call_that_repeats_within_a_run_is_taken_from_it(bench: Any) -> None:
    bench.write(
        "pipelines.py",
        """
        @cl.step
        def load(size: int = 3) -> list[int]:
            return list(range(size))

        @cl.pipeline
        def main():
            for _ in range(3):
                load()
        """,
    )
    run = bench.run()
    assert [step.status for step in bench.steps(run)] == ["done", "cached", "cached"]


def test_an_edited_helper_runs_its_steps_again_and_equal_outputs_stop_there(bench: Any) -> None:
    bench.write("helper.py", "def size():\n    return 3\n")
    bench.write(
        "pipelines.py",
        """
        from helper import size

        @cl.step
        def load() -> list[int]:
            return list(range(size()))

        @cl.step
        def count(table: list[int]) -> int:
            return len(table)

        @cl.pipeline
        def main():
            count(load())
        """,
    )
    bench.run()
    bench.write("helper.py", "def size():\n    return 2 + 1\n")
    assert [step.status for step in bench.steps(bench.run())] == ["done", "cached"]


def test_without_cache_everything_is_executed(bench: Any) -> None:
    bench.write("pipelines.py", PAIR)
    bench.run()
    assert {step.status for step in bench.steps(bench.run(cache=False))} == {"done"}


def test_the_seed_fills_a_parameter_and_moves_the_global_generators(bench: Any) -> None:
    bench.write(
        "pipelines.py",
        """
        import random
        import numpy as np

        @cl.step
        def draw() -> list[float]:
            return [random.random(), float(np.random.rand())]

        @cl.pipeline
        def main(seed: int = 0):
            draw()
        """,
    )
    first, same, other = bench.run(), bench.run(cache=False), bench.run(seed=5)
    outputs = [bench.steps(run)[0].outputs for run in (first, same, other)]
    assert outputs[0] == outputs[1] != outputs[2]
    assert (other.seed, other.params["seed"]) == (5, 5)


def test_a_step_that_changes_its_argument_does_not_reach_other_steps(bench: Any) -> None:
    bench.write(
        "pipelines.py",
        """
        @cl.step
        def load() -> list[int]:
            return [1, 2]

        @cl.step
        def spoil(table: list[int]) -> int:
            table.append(9)
            return len(table)

        @cl.step
        def count(table: list[int]) -> int:
            return len(table)

        @cl.pipeline
        def main():
            table = load()
            spoil(table)
            assert count(table).value() == 2
        """,
    )
    bench.run()


def test_a_path_is_an_input_by_its_content_and_name(bench: Any, tmp_path: Path) -> None:
    bench.write(
        "pipelines.py",
        """
        @cl.step
        def read(path: Path) -> str:
            return path.read_text()

        @cl.pipeline
        def main(data: Path):
            read(data / "a.txt")
        """,
    )
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.txt").write_text("one")
    first = bench.run(data=folder)
    seen = inputs_of(bench.store, first)
    assert set(seen) == {str(folder), str(folder / "a.txt")}
    assert first.params == {"data": str(folder)}
    (folder / "b.txt").write_text("beside")
    assert bench.steps(bench.run(data=str(folder)))[0].status == "cached"
    (folder / "a.txt").write_text("two")
    again = bench.run(data=folder)
    assert bench.steps(again)[0].status == "done"
    step = bench.steps(again)[0]
    edges = bench.store.catalog.find(Edge, target=f"step:{step.id}")
    source = f"input:{seen[str(folder / 'a.txt')]}"
    assert [edge.source.partition(":")[0] for edge in edges] == ["input"]
    assert edges[0].source != source


def test_a_path_that_is_not_there_is_refused(bench: Any) -> None:
    bench.write("pipelines.py", "@cl.pipeline\ndef main(data: Path):\n    pass\n")
    with pytest.raises(RunFailed, match="does not exist"):
        bench.run(data="nowhere/x")


FAILING = """
    @cl.step
    def load() -> list[int]:
        print("loading")
        return [1, 2]

    @cl.step
    def fit(table: list[int]) -> int:
        cl.log_metric("progress", 0.5)
        return deeper(table)

    def deeper(table):
        return {}["missing"]

    @cl.step
    def after(x: int) -> int:
        return x

    @cl.pipeline
    def main():
        after(fit(load()))
"""


def test_a_failed_run_lists_the_finished_steps_and_shows_the_users_frames_only(bench: Any) -> None:
    bench.write("pipelines.py", FAILING)
    with pytest.raises(RunFailed) as caught:
        bench.run()
    error = str(caught.value)
    assert "Step 01-fit" in error
    assert "KeyError: 'missing'" in error
    assert "pipelines.py:16 in deeper" in error
    assert "run_recorder.py" not in error
    assert "Done and cached, so the next run skips them: 00-load" in error
    assert "Not done: 01-fit and the steps after it" in error
    run = find_run(bench.store, caught.value.run)
    assert run.status == "failed"
    assert run.error["step"] == caught.value.step == f"{run.id}/01-fit"
    assert [frame["function"] for frame in run.error["frames"]] == ["main", "fit", "deeper"]
    load, fit = bench.steps(run)
    assert (load.status, fit.status, fit.metrics) == ("done", "failed", {"progress": 0.5})
    bench.write("pipelines.py", FAILING.replace('{}["missing"]', "1"))
    assert [step.status for step in bench.steps(bench.run())] == ["cached", "done", "done"]


def test_a_step_that_leaves_by_sys_exit_fails_its_run(bench: Any) -> None:
    bench.write("pipelines.py", FAILING.replace('{}["missing"]', "exit(3)"))
    with pytest.raises(RunFailed, match="SystemExit: 3"):
        bench.run()
    assert list_runs(bench.store)[0].status == "failed"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ('ValueError("caf\\udce9.csv")', r"ValueError: caf\\udce9\.csv"),
        ("Mute()", r"Mute: <str\(\) of the exception raised RuntimeError>"),
    ],
)
def test_a_message_that_is_not_utf8_does_not_hide_the_failure(
    bench: Any, error: str, message: str
) -> None:
    mute = "class Mute(Exception):\n        def __str__(self):\n            raise RuntimeError"
    text = FAILING.replace('{}["missing"]', f"raise {error}").replace("return raise", "raise")
    bench.write("pipelines.py", f"\n    {mute}\n{text}")
    with pytest.raises(RunFailed, match=message):
        bench.run()
    assert list_runs(bench.store)[0].status == "failed"


def test_a_run_continues_when_its_output_is_no_longer_read(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

        flush = close = lambda self: None

    bench.write(
        "pipelines.py",
        """
        @cl.step
        def speak():
            print("hello", flush=True)

        @cl.pipeline
        def main():
            speak()
        """,
    )
    monkeypatch.setattr("sys.stdout", Closed())
    run = bench.run()
    assert run.status == "done"
    assert bench.store.blobs.get(bench.steps(run)[0].logs) == b"hello\n"


def test_a_seed_that_cannot_be_recorded_is_refused_before_anything_runs(bench: Any) -> None:
    bench.write("pipelines.py", FAILING)
    with pytest.raises(UsageError, match="too large"):
        bench.run(seed=2**64)
    assert list_runs(bench.store) == []


def test_an_executor_that_is_not_there_leaves_no_run(bench: Any) -> None:
    bench.write("pipelines.py", "@cl.pipeline\ndef main():\n    pass\n")
    found = find_pipeline(bench.project, "main")
    with pytest.raises(NotSupported, match="No installed package offers 'elsewhere'"):
        execute(found, {}, project=bench.project, store=bench.store, executor="elsewhere")
    assert bench.store.catalog.count(Run) == 0


ODD = """
    @cl.step(cache=False)
    def note(name: str, folder: str) -> int:
        (Path(folder) / name).touch()
        {call}
        return 1

    @cl.pipeline
    def main(folder: str, name: str = ""):
        note("odd" + chr(0xDC80), folder)
"""


@pytest.mark.parametrize(
    "call",
    [
        "cl.log_metric(name, 1)",
        "cl.log_artifact(Path(folder) / name)",
        "cl.log_artifact(folder)",
        "cl.log_metric(main, 1)",
    ],
)
def test_a_name_that_is_not_utf8_is_refused_and_later_runs_are_recorded(
    bench: Any, tmp_path: Path, call: str
) -> None:
    """The name of a file may be bytes that are no UTF-8."""
    (tmp_path / "data").mkdir()
    bench.write("pipelines.py", ODD.format(call=call))
    given = {"name": "odd\udc80"} if "main" in call else {}
    with pytest.raises(RunFailed, match=r"udc80.* not valid UTF-8"):
        bench.run(folder=str(tmp_path / "data"), **given)
    bench.write("pipelines.py", "@cl.pipeline\ndef main():\n    pass\n")
    assert bench.run().status == "done"
    assert [run.status for run in list_runs(bench.store)] == ["done", "failed"]


def test_a_file_name_that_is_not_utf8_is_refused(bench: Any) -> None:
    bench.write("pipelines.py", "@cl.pipeline\ndef main():\n    pass\n")
    (bench.root / "caf\udce9.csv").touch()
    with pytest.raises(NotStorable, match=r"caf\\udce9\.csv"):
        bench.run()
    assert list_runs(bench.store) == []


FORKING = """
    import os, signal, sys

    @cl.step
    def work() -> list[str]:
        Path("made").touch()
        calls = (lambda: cl.log_metric("a", 1), lambda: cl.log_artifact("made"))
        return [error_of(call) for call in calls]

    def error_of(call):
        read, write = os.pipe()
        if (child := os.fork()) == 0:
            signal.alarm(10)
            print("from the child", flush=True)
            try:
                call()
            except BaseException as error:
                os.write(write, str(error).encode())
            os._exit(0)
        os.close(write)
        os.waitpid(child, 0)
        return os.read(read, 1000).decode()

    @cl.pipeline
    def main():
        for each in work().value():
            assert "in a child process that the step forked" in each, each
"""


def test_a_forked_child_of_a_step_prints_into_its_log_and_may_not_record(
    bench: Any,
) -> None:
    """What it recorded would be lost with it, or wait for a thread that it has not."""
    bench.write("pipelines.py", FORKING)
    run = bench.run()
    assert log_of(bench.store, bench.steps(run)[0]) == "from the child\n" * 2


class Threads:
    """Steps in threads of their own."""

    name = "threads"

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor()
        self.submit = self.pool.submit
        self.close = self.pool.shutdown


def test_steps_that_run_beside_a_failing_one_are_recorded_to_their_end(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "load_entry_point", lambda group, name: Threads)
    bench.write(
        "pipelines.py",
        """
        import time

        @cl.step
        def slow() -> int:
            while not Path("failed").exists():
                time.sleep(0.01)
            time.sleep(0.2)
            return 1

        @cl.step
        def fails() -> int:
            open("failed", "w").close()
            raise ValueError("no")

        @cl.pipeline
        def main():
            slow()
            fails().value()
        """,
    )
    found = find_pipeline(bench.project, "main")
    with pytest.raises(RunFailed, match="ValueError: no"):
        execute(found, {}, project=bench.project, store=bench.store, executor="threads")
    (run,) = list_runs(bench.store)
    assert [step.status for step in bench.steps(run)] == ["done", "failed"]


def test_a_pipeline_may_catch_the_exception_of_a_step(bench: Any) -> None:
    bench.write(
        "pipelines.py",
        FAILING.replace(
            "        after(fit(load()))",
            "        try:\n            fit(load())\n        except KeyError:\n            after(3)",
        ),
    )
    run = bench.run()
    assert run.status == "done"
    assert [step.status for step in bench.steps(run)] == ["done", "failed", "done"]


def test_a_step_must_return_as_many_outputs_as_it_promises(bench: Any) -> None:
    bench.write(
        "pipelines.py",
        """
        @cl.step
        def split() -> tuple[int, int]:
            return 1, 2, 3

        @cl.pipeline
        def main():
            split()
        """,
    )
    with pytest.raises(RunFailed, match="2 outputs and returned 3"):
        bench.run()


def test_arguments_that_do_not_fit_name_the_definition(bench: Any) -> None:
    bench.write(
        "pipelines.py",
        "@cl.step\ndef f(a: int) -> int:\n    return a\n\n@cl.pipeline\ndef main():\n    f(b=1)\n",
    )
    with pytest.raises(RunFailed, match="missing a required argument: 'a'"):
        bench.run()


def test_an_interrupted_run_is_recorded_as_such(bench: Any) -> None:
    bench.write(
        "pipelines.py",
        """
        @cl.step
        def wait() -> int:
            cl.log_metric("epoch", 3)
            print("started")
            raise KeyboardInterrupt

        @cl.pipeline
        def main():
            wait()
        """,
    )
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    run = list_runs(bench.store)[0]
    step = bench.steps(run)[0]
    assert (run.status, step.status) == ("interrupted", "interrupted")
    assert run.metrics == {"epoch": 3.0}
    assert log_of(bench.store, step) == "started\n"


def test_the_output_of_a_step_is_kept_and_still_shown(
    bench: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a process of its own
    bench.write(
        "pipelines.py",
        """
        import logging, sys, warnings, threading

        @cl.step
        def speak() -> int:
            print("to stdout")
            print("to stderr", file=sys.stderr)
            logging.getLogger("mine").info("quietly")
            logging.getLogger("mine").warning("loudly")
            thread = threading.Thread(target=print, args=("from a thread",))
            thread.start()
            thread.join()
            return 1

        @cl.pipeline
        def main():
            print("not in a step")
            speak()
        """,
    )
    run = bench.run()
    log = log_of(bench.store, bench.steps(run)[0])
    for text in ("to stdout", "to stderr", "INFO mine: quietly", "WARNING mine: loudly"):
        assert text in log
    assert "from a thread" in log
    assert "not in a step" not in log
    shown = capsys.readouterr()
    assert "to stdout" in shown.out
    assert "loudly" in shown.err
    assert "quietly" not in shown.err
    assert logging.getLogger().level == logging.WARNING
    again = bench.run()
    assert log_of(bench.store, bench.steps(again)[0]) == log


def test_nothing_is_left_of_the_journals_when_a_run_has_ended(bench: Any) -> None:
    bench.write("pipelines.py", FAILING)
    with pytest.raises(RunFailed):
        bench.run()
    assert not list((bench.project.store_root / "tmp").glob("run-*"))


def test_a_step_can_do_without_cache_or_storage(bench: Any) -> None:
    bench.write(
        "pipelines.py",
        """
        @cl.step(cache=False)
        def fresh() -> int:
            return 1

        @cl.step(store_output=False)
        def held() -> object:
            return {1, 2}

        @cl.step
        def use(x: object) -> int:
            return len(x)

        @cl.pipeline
        def main():
            fresh()
            assert use(held()).value() == 2
        """,
    )
    bench.run()
    steps = bench.steps(bench.run())
    assert [step.status for step in steps] == ["done"] * 3
    assert steps[0].uncacheable == "cache=False"
    assert steps[1].outputs == []
    assert steps[2].uncacheable == "its input 'x' is not stored"
    assert bench.store.catalog.count(CacheEntry) == 0


def test_a_declared_environment_variable_is_part_of_the_key(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write(
        "pipelines.py",
        """
        import os

        @cl.step(env=("REGION",))
        def where() -> str:
            return os.environ.get("REGION", "none")

        @cl.pipeline
        def main():
            where()
        """,
    )
    monkeypatch.setenv("REGION", "north")
    bench.run()
    assert bench.steps(bench.run())[0].status == "cached"
    monkeypatch.setenv("REGION", "south")
    assert bench.steps(bench.run())[0].status == "done"


@pytest.mark.parametrize("code", ["len(x)", "x.shape", "x > 1", "bool(x)", "x + 1", "float(x)"])
def test_using_a_handle_as_a_value_says_what_to_do(bench: Any, code: str) -> None:
    bench.write(
        "pipelines.py",
        "@cl.step\ndef f() -> int:\n    return 1\n\n"
        f"@cl.pipeline\ndef main():\n    x = f()\n    {code}\n",
    )
    with pytest.raises(RunFailed, match=r"\.value\(\)"):
        bench.run()


def test_figures_and_files_are_kept_with_the_step(bench: Any, tmp_path: Path) -> None:
    bench.write(
        "pipelines.py",
        f"""
        @cl.step
        def draw() -> int:
            path = Path({str(tmp_path)!r}) / "notes.txt"
            path.write_text("kept")
            cl.log_artifact(path)
            cl.log_artifact(path, name="again")
            path.unlink()
            return 1

        @cl.pipeline
        def main():
            draw()
        """,
    )
    for run in (bench.run(), bench.run()):
        assert set(bench.steps(run)[0].files) == {"notes.txt", "again"}


def test_recording_outside_a_step_is_refused_with_the_way_out() -> None:
    import clewline as cl

    with pytest.raises(UsageError, match=r"inside a function decorated with @cl\.step"):
        cl.log_metric("x", 1)
    with pytest.raises(UsageError, match="outside a step"):
        cl.log_artifact("x")


@pytest.mark.parametrize(("value", "ok"), [("1", False), (True, False), (None, False), (2, True)])
def test_a_metric_is_a_number(bench: Any, value: Any, ok: bool) -> None:
    bench.write(
        "pipelines.py",
        f"@cl.step\ndef f() -> int:\n    cl.log_metric('x', {value!r})\n    return 1\n\n"
        "@cl.pipeline\ndef main():\n    f()\n",
    )
    if ok:
        assert bench.run().metrics == {"x": 2.0}
        return
    with pytest.raises(RunFailed, match="must be a number"):
        bench.run()


def test_a_listener_hears_each_step_begin_and_end(bench: Any) -> None:
    bench.write("pipelines.py", PAIR)
    heard: list[RunEvent] = []
    bench.run(listener=heard.append)
    kinds = [event.kind for event in heard]
    assert kinds == ["run started", *["step started", "step ended"] * 4, "run ended"]
    assert heard[-1].run.status == "done"


def test_runs_are_found_by_a_start_of_their_id(bench: Any) -> None:
    bench.write("pipelines.py", PAIR)
    run = bench.run()
    assert find_run(bench.store, run.id[:5]).id == run.id
    for wrong in (run.id[:3], "zzzzzz"):
        with pytest.raises(NotFound, match="runs list"):
            find_run(bench.store, wrong)


def test_a_pipeline_inside_a_pipeline_gives_its_steps_to_the_run(bench: Any) -> None:
    bench.write(
        "pipelines.py",
        """
        @cl.step
        def one() -> int:
            return 1

        @cl.step
        def both(x: int) -> int:
            return one() + x

        @cl.pipeline
        def inner():
            return one()

        @cl.pipeline
        def main():
            both(inner())
        """,
    )
    assert [step.name for step in bench.steps(bench.run())] == ["one", "both"]


def test_a_step_with_an_undeclared_read_is_not_cached_and_says_why(bench: Any) -> None:
    (bench.root / "side.txt").write_text("1")
    bench.write(
        "pipelines.py",
        """
        @cl.step
        def sneak(name: str) -> str:
            return Path(name).read_text()

        @cl.step
        def make() -> Path:
            made = Path("made.txt")
            made.write_text("made")
            return made

        @cl.step
        def use(path: Path) -> str:
            return path.read_text()

        @cl.pipeline
        def main():
            sneak("side.txt")
            assert use(make()).value() == "made"
        """,
    )
    bench.run()
    (bench.root / "made.txt").unlink()
    sneak, make, use = bench.steps(bench.run())
    assert (sneak.status, make.status, use.status) == ("done", "cached", "cached")
    assert "side.txt" in sneak.uncacheable


def test_a_figure_is_kept_as_a_picture(bench: Any) -> None:
    bench.write(
        "pipelines.py",
        """
        import matplotlib
        matplotlib.use("Agg")
        from matplotlib.figure import Figure

        @cl.step
        def draw() -> int:
            figure = Figure()
            figure.subplots().plot([1, 3, 2])
            cl.log_figure(figure, name="curve")
            return 1

        @cl.pipeline
        def main():
            draw()
        """,
    )
    digest = bench.steps(bench.run())[0].files["curve"]
    assert bench.store.catalog.get(Artifact, digest).kind == "figure"


def test_a_reader_that_is_imported_by_name_is_watched(bench: Any) -> None:
    (bench.root / "side.csv").write_text("x\n1\n")
    bench.write(
        "pipelines.py",
        """
        from polars import read_csv

        @cl.step
        def sneak() -> int:
            return read_csv("side.csv").height

        @cl.pipeline
        def main():
            sneak()
        """,
    )
    # In a fresh process, where nothing has watched Polars before the pipeline imports it.
    command = [sys.executable, "-m", "clewline.cli.main", "run", "main", "--json"]
    done = subprocess.run(command, cwd=bench.root, capture_output=True, text=True, check=True)
    [sneak] = json.loads(done.stdout)["steps"]
    assert "side.csv" in sneak["uncacheable"]
