"""
Run probes: `python run_probes.py FOLDER JOBS NAME...` prints one JSON line for each.

Every run has a process of its own, forked from one that has imported the libraries:
a fresh interpreter for each would take minutes.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

TESTS = str(Path(__file__).parents[2])
LIBRARIES = (
    "numpy pandas polars pyarrow.parquet pyarrow.csv pyarrow.dataset sklearn.linear_model "
    "sklearn.pipeline sklearn.preprocessing lightgbm xgboost onnxruntime joblib yaml tomlkit"
)
EMPTY = "empty-store"
LONGEST_S = 120  # of one process, on a machine that is busy elsewhere


def run(probe: Any, root: Path, *, params: dict[str, Any], cache: bool = True) -> dict[str, Any]:
    """Run the probe's pipeline in this process, and return what its steps did."""
    from clewline import project as projects
    from clewline.flow.pipeline_files import find_pipeline
    from clewline.flow.run import execute
    from clewline.flow.runs import steps_of
    from clewline.store import Store

    project = projects.load(root)
    if probe.script:
        sys.path.insert(0, str(root))
        pipeline = importlib.import_module("pipelines").main
    else:
        pipeline = find_pipeline(project, "main")
    with Store.open(project.store_root) as store:
        run = execute(pipeline, params, project=project, store=store, cache=cache)
        steps = steps_of(store, run)
    return {
        "status": [step.status for step in steps],
        "outputs": [step.outputs for step in steps],
        "uncacheable": [step.uncacheable for step in steps],
    }


def create(probe: Any, root: Path) -> None:
    """Write the project, with a copy of an empty store."""
    port = os.environ.get("PROBE_PORT", "")
    for name, text in probe.files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text.replace("PROBE_PORT", port))
    (root / "clewline.toml").write_text('[project]\nname = "probe"\nid = "0"\n')
    shutil.copytree(root.parent / EMPTY, root / ".clewline")
    if probe.setup is not None:
        probe.setup(root)


def warm_up(folder: Path) -> list[str]:
    """Create an empty store, run a first probe, and return the modules that this needed."""
    from clewline.store import Store

    Store.create(folder / EMPTY).close()
    first = PROBES[0]
    (root := folder / "warm-up").mkdir()
    create(first, root)
    run(first, root, params=dict(first.params))
    return [name for name in sys.modules if name.partition(".")[0] not in ("__main__", "pipelines")]


def observe(probe: Any, root: Path) -> dict[str, Any]:
    """Run the probe before and after its change, and once without the cache."""
    root.mkdir(parents=True)
    os.chdir(root)
    os.environ.update(probe.environ)
    if any("PROBE_PORT" in text for text in probe.files.values()):
        os.environ["PROBE_PORT"] = str(serve())
    before, change = dict(probe.params), probe.change
    after = before | change.params
    if probe.setup is None:
        create(probe, root)
    else:
        in_child(lambda: create(probe, root))
    if change.in_process:
        return in_child(lambda: observe_in_process(probe, root, before, after))
    first = in_child(lambda: run(probe, root, params=before))
    if change.act is not None and change.needs_process:
        in_child(lambda: change.act(root) and None)
    elif change.act is not None:
        change.act(root)
    for name, value in change.environ.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    second = in_child(lambda: run(probe, root, params=after))
    truth = second  # a run that took nothing from the cache is the truth itself
    if "cached" in second["status"]:
        truth = in_child(lambda: run(probe, root, params=after, cache=False))
    return {"first": first, "second": second, "truth": truth}


def observe_in_process(
    probe: Any, root: Path, before: dict[str, Any], after: dict[str, Any]
) -> dict[str, Any]:
    """Do the same in one process, whose modules live on."""
    first = run(probe, root, params=before)
    probe.change.act(root)
    second = run(probe, root, params=after)
    return {"first": first, "second": second, "truth": run(probe, root, params=after, cache=False)}


def in_child(function: Callable[[], Any]) -> Any:
    """Return what a function returns in a forked process; raise what went wrong there."""
    with tempfile.TemporaryFile("w+") as file:
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                signal.alarm(LONGEST_S)
                answer = {"answer": function()}
            except BaseException:
                answer = {"error": traceback.format_exc()}
            json.dump(answer, file)
            file.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # its pools of processes
        file.seek(0)
        text = file.read()
    if not text:
        raise ChildProcessError(f"the process ended with {os.waitstatus_to_exitcode(status)}")
    answer = json.loads(text)
    if "error" in answer:
        raise ChildProcessError(answer["error"])
    return answer["answer"]


class Counter(BaseHTTPRequestHandler):
    """Answers each request with a CSV file of one number, which grows by one."""

    count = 0

    def do_GET(self) -> None:
        Counter.count += 1
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"x\n{Counter.count}\n".encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def serve() -> int:
    """Serve a counter on a port of this machine for as long as this process lives."""
    server = HTTPServer(("127.0.0.1", 0), Counter)
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, prctl(2)
        server.serve_forever()
    server.server_close()
    return server.server_port


def report(probe: Any, folder: Path) -> None:
    """Observe one probe, and print the result as a line."""
    try:
        found = observe(probe, folder / probe.name)
    except BaseException:
        found = {"error": traceback.format_exc()}
    line = json.dumps({"name": probe.name, **found}) + "\n"
    os.write(REPORT, line.encode())


def main(folder: Path, jobs: int, names: list[str]) -> None:
    """Observe the named probes, some at a time."""
    for module in in_child(lambda: warm_up(folder)):
        importlib.import_module(module)
    gc.freeze()
    running = 0
    for probe in (each for each in PROBES if each.name in names):
        if running == jobs:
            os.wait()
            running -= 1
        if os.fork() == 0:
            try:
                report(probe, folder)
            finally:
                os._exit(0)
        running += 1
    for _ in range(running):
        os.wait()


if __name__ == "__main__":
    sys.path.insert(0, TESTS)
    from flow.probes.corpus import PROBES

    sys.path.remove(TESTS)
    sys.path.remove(str(Path(__file__).parent))  # a project's modules may have any name
    for library in LIBRARIES.split():
        importlib.import_module(library)
    REPORT = os.dup(1)
    os.dup2(2, 1)  # what the probes print is no report
    main(Path(sys.argv[1]).resolve(), int(sys.argv[2]), sys.argv[3:])
