"""Ten thousand distinct models behind one server: what a cold call costs, and how much memory.

    python bench/density.py --models 10000 --folder /tmp/density

Every model is registered, sealed and applied as any other; each is called once,
cold, then they are called at random. The folder is deleted afterwards.
"""

from __future__ import annotations

import argparse
import http.client
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import psutil
from shared.demo import CLEWLINE
from shared.keep import keep
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clewline.model import seal
from clewline.model.package import PackageMetadata
from clewline.model.register import convert_model
from clewline.model.registry import Registry
from clewline.project import Project, load
from clewline.serve import revision as revisions
from clewline.serve.endpoint_file import parse_endpoint
from clewline.store.records import LiveRevision
from clewline.store.store import Store

SEEDS = 8
FIELDS = 8
MIB = 1 << 20
GOAL_BYTES = 2 << 30
GOAL_COLD_S = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--random", type=int, default=20_000, help="calls at random afterwards")
    parser.add_argument("--budget", default="", help="--model-memory of the server")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/clewline-density"))
    parser.add_argument("--stay", action="store_true", help="leave the folder, and use it again")
    given = parser.parse_args()
    try:
        figures = _measure(given)
    finally:
        if not given.stay:
            shutil.rmtree(given.folder, ignore_errors=True)
    keep("density", figures, versions=("onnxruntime", "msgspec"))


def _measure(given: argparse.Namespace) -> dict[str, Any]:
    spent_s = build(given.folder, given.models)
    print(f"{given.models} models registered and applied in {spent_s:.0f} s")
    start = time.perf_counter()
    with _server(given.folder, given.budget) as (process, port):
        ready_s = time.perf_counter() - start
        idle = _memory(process)
        print(f"ready in {ready_s:.2f} s with {idle['rss'] / MIB:.0f} MiB")
        caller = _Caller(port)
        once, first_curve = _call(caller, range(given.models), process)
        picks = random.Random(7).choices(range(given.models), k=given.random)
        often, second_curve = _call(caller, picks, process)
        resident = _resident(caller)
    figures = {
        "models": given.models,
        "budget": given.budget or "default",
        "build_s": round(spent_s, 1),
        "ready_s": round(ready_s, 2),
        "idle": idle,
        "cold": _spread(once),
        "at_random": _spread(often),
        "curve": first_curve + second_curve,
        "most_rss": max(point["rss"] for point in first_curve + second_curve),
        "resident": resident,
        "goals": {"rss": GOAL_BYTES, "cold_p99_s": GOAL_COLD_S},
    }
    _print(figures)
    return figures


def build(folder: Path, models: int) -> float:
    """Make a project of so many models, each behind an endpoint; or take what is there."""
    start = time.perf_counter()
    project = load(folder) if (folder / "clewline.toml").exists() else _project(folder)
    with Store.open(project.store_root) as store:
        have = store.catalog.count(LiveRevision)
        if have < models:
            _register(project, store, range(have, models))
    return time.perf_counter() - start


def _project(folder: Path) -> Project:
    Store.create(folder / ".clewline").close()
    public = seal.make_keys(folder / ".clewline" / "keys" / "seal.key")
    (folder / "clewline.toml").write_text(
        f'[project]\nname = "density"\nid = "0123456789abcdef"\n[keys]\npublic = "{public}"\n'
    )
    return load(folder)


def _register(project: Project, store: Store, numbers: range) -> None:
    fitted = [_fit(seed) for seed in range(SEEDS)]
    registry = Registry(project, store)
    for number in numbers:
        made = fitted[number % SEEDS]
        files = made.files | {"model.onnx": _distinct(made.files["model.onnx"], number)}
        about = PackageMetadata(
            name=_name(number),
            number=0,
            runtime=made.compiled.runtime,
            task="binary",
            target="late",
            created=0.0,
        )
        registry.add(files, about)
        model = f"{_name(number)}@1"
        text = f"endpoint: {_name(number)}\nmodel: {model}\n".encode()
        revisions.apply(project, store, parse_endpoint(text, Path(f"{_name(number)}.yaml")))
        if number % 1000 == 999:
            print(f"{number + 1} registered", flush=True)


def _name(number: int) -> str:
    return f"m{number:05d}"


def _fit(seed: int) -> Any:
    """Fit a small forest, or a logistic regression, of its own fields' names."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(300, FIELDS))
    table = pl.DataFrame({f"x{i}": values[:, i] for i in range(FIELDS)})
    late = np.where(values[:, 0] + values[:, 1] ** 2 > 1, "yes", "no")
    model: Any = make_pipeline(StandardScaler(), LogisticRegression())
    if seed % 2:
        model = RandomForestClassifier(10, max_depth=5, random_state=seed)
    train = table.with_columns(late=late)
    return convert_model(model.fit(table, late), train=train, test=train, target="late")


def _distinct(model: bytes, number: int) -> bytes:
    """Give the bytes of an ONNX model with a `doc_string` (field 6) of its own."""
    text = f"model {number}".encode()
    return model + b"\x32" + bytes([len(text)]) + text


@contextmanager
def _server(folder: Path, budget: str) -> Iterator[tuple[psutil.Process, int]]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [*CLEWLINE, "serve", "--port", "0", *(["--model-memory", budget] if budget else [])]
    with open(folder / "server.log", "wb") as log:
        started = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        yield psutil.Process(started.pid), _port(folder / "server.log", started)
    finally:
        started.send_signal(signal.SIGTERM)
        started.wait(60)


def _port(log: Path, started: subprocess.Popen[bytes]) -> int:
    until = time.monotonic() + 60
    while time.monotonic() < until and started.poll() is None:
        if found := re.search(rb"http://127\.0\.0\.1:(\d+)", log.read_bytes()):
            return int(found[1])
        time.sleep(0.01)
    raise SystemExit(f"the server did not start: {log.read_text()}")


class _Caller:
    """One connection that asks one row at a time."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._body = msgspec.json.encode({f"x{i}": 0.25 * i for i in range(FIELDS)})

    def predict(self, name: str) -> float:
        """Ask for one row; give the seconds that the answer took."""
        start = time.perf_counter()
        path, headers = f"/v1/endpoints/{name}/predict", {"content-type": "application/json"}
        self._connection.request("POST", path, self._body, headers)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{name}: {answer.status} {body.decode()}")
        return time.perf_counter() - start

    def get(self, path: str) -> str:
        self._connection.request("GET", path)
        return self._connection.getresponse().read().decode()


def _call(
    caller: _Caller, numbers: Any, process: psutil.Process
) -> tuple[list[float], list[dict[str, int]]]:
    spent, curve = [], []
    for count, number in enumerate(numbers):
        spent.append(caller.predict(_name(number)))
        if count % 1000 == 999:
            curve.append({"calls": count + 1, **_memory(process)})
            print(f"{count + 1} calls: {curve[-1]['rss'] / MIB:.0f} MiB", flush=True)
    return spent, curve


def _memory(process: psutil.Process) -> dict[str, int]:
    """Add up resident and proportional memory over the server's processes."""
    all_ = [process, *process.children(recursive=True)]
    found = [each.memory_full_info() for each in all_]
    return {"rss": sum(each.rss for each in found), "pss": sum(each.pss for each in found)}


def _resident(caller: _Caller) -> int:
    """Count the endpoints whose models are in memory."""
    listed = msgspec.json.decode(caller.get("/v1/endpoints"))["endpoints"]
    return sum("models" in endpoint for endpoint in listed)


def _spread(spent: list[float]) -> dict[str, float]:
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
    ordered = sorted(spent)
    found = {name: ordered[int(share * (len(ordered) - 1))] for name, share in shares.items()}
    return {name: round(value, 5) for name, value in (found | {"most": ordered[-1]}).items()}


def _print(figures: dict[str, Any]) -> None:
    for kind in ("cold", "at_random"):
        print(f"{kind}: " + ", ".join(f"{k} {v * 1e3:.2f} ms" for k, v in figures[kind].items()))
    print(f"most resident: {figures['most_rss'] / MIB:.0f} MiB; {figures['resident']} in memory")


if __name__ == "__main__":
    main()
