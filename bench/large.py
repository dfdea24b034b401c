"""Large requests: their share of the model's own rate, and what single rows feel beside them.

python bench/large.py [--seconds 5]
"""

from __future__ import annotations

import argparse
import http.client
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
from shared import income
from shared.keep import keep
from shared.servers import running

from clewline import project as projects
from clewline.model.registry import Registry, load_predictor
from clewline.model.runtime import Predictor
from clewline.model.runtime.outputs import take_rows
from clewline.serve import revision as revisions
from clewline.serve.loaded_revision import LoadedRevision
from clewline.serve.model_cache.loaded_models import SharedModels
from clewline.signature.columns import Columns
from clewline.store.store import Store

ROWS = 1000
MANY = 10_000
OWN_SIZES = (64, 128, 256, 512, ROWS)
"""Batch sizes at which the model alone is asked; what is served is held against the last."""
SHARES = {1: 0.65, 4: 0.9}
"""Connections → the share of the model's own rate that is the goal."""
GOAL_P99_S = 0.02
PAUSE_S = 0.002


def main() -> None:
    sys.setswitchinterval(0.0005)  # callers that share a process must not wait for each other
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--project", type=Path, help="the income example, trained and applied")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = given.project or income.make_project(Path(folder) / "income")
        figures = measure(project, given.seconds, given.rounds)
    keep("large", figures, versions=("onnxruntime", "msgspec", "uvloop"))


def measure(project: Path, seconds: float, rounds: int) -> dict[str, Any]:
    """Compare the server with the model alone, in turn, and watch single rows beside 10,000."""
    body = msgspec.json.encode({"rows": income.sample(ROWS)})
    many = msgspec.json.encode({"rows": income.sample(MANY)})
    single = msgspec.json.encode({"rows": income.sample(1)})
    own: list[dict[int, float]] = []
    served: dict[int, list[float]] = {connections: [] for connections in SHARES}
    with running(income.ours(project)) as up:
        for _ in range(rounds):
            own.append(_own_rates(project, seconds))
            for connections in SHARES:
                served[connections].append(_rate(up.port, body, connections, seconds))
        alone = _singles(up.port, single, None, seconds)
        beside = _singles(up.port, single, many, seconds * rounds)
    at_rows = [rates[ROWS] for rates in own]
    figures: dict[str, Any] = {
        f"own rows/s at {ROWS}": [round(rate) for rate in at_rows],
        "own rows/s at its best size": [_best(rates) for rates in own],
    }
    for connections, goal in SHARES.items():
        shares = [rate / mine for rate, mine in zip(served[connections], at_rows, strict=True)]
        figures[f"{connections} connections"] = {
            "rows/s": [round(rate) for rate in served[connections]],
            "share": round(sorted(shares)[len(shares) // 2], 3),
            "goal": goal,
        }
    figures |= {
        "single alone": alone,
        "single beside 10,000 rows": beside,
        "goal p99_s": GOAL_P99_S,
    }
    print(msgspec.json.format(msgspec.json.encode(figures), indent=2).decode())
    return figures


def _own_rates(project: Path, seconds: float) -> dict[int, float]:
    """Rows a second of the model alone by batch size, called with encoded rows in a process."""
    done = subprocess.run(
        [sys.executable, __file__, "--own", str(project), str(seconds)],
        capture_output=True,
        text=True,
        check=True,
    )
    return msgspec.json.decode(done.stdout, type=dict[int, float])


def _best(rates: dict[int, float]) -> dict[str, int]:
    size = max(rates, key=rates.__getitem__)
    return {"rows": size, "rows/s": round(rates[size])}


def own(folder: str, seconds: str) -> None:
    """Print the model's own rates; each size has its share of the seconds, the last all of them."""
    project = projects.load(Path(folder))
    with Store.open(project.store_root, write=False) as store:
        live = revisions.require_live(store.catalog, "income")
        loaded = LoadedRevision.load(live, SharedModels(project))
        (ref,) = live.packages
        predictor = load_predictor(Registry(project, store).open(ref))
    body = msgspec.json.encode({"rows": income.sample(ROWS)})
    rows = loaded.checker.columns(loaded.json_reader.read(body).rows).columns
    shares = {size: 1.0 if size == ROWS else 1 / len(OWN_SIZES) for size in OWN_SIZES}
    rates = {size: _alone(predictor, rows, size, float(seconds) * shares[size]) for size in shares}
    print(msgspec.json.encode(rates).decode())


def _alone(predictor: Predictor, rows: Columns, size: int, seconds: float) -> float:
    """Ask in batches of one size, each of other rows than the one before."""
    batches = [take_rows(rows, slice(at, at + size)) for at in range(0, ROWS - size + 1, size)]
    predictor.predict(batches[0])
    calls, start = 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        predictor.predict(batches[calls % len(batches)])
        calls += 1
    return calls * size / (time.perf_counter() - start)


def _rate(port: int, body: bytes, connections: int, seconds: float) -> float:
    """Rows a second that so many callers get together."""
    until = time.perf_counter() + seconds
    counts = [0] * connections

    def ask(place: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while time.perf_counter() < until:
            _post(connection, body)
            counts[place] += ROWS
        connection.close()

    start = time.perf_counter()
    callers = [threading.Thread(target=ask, args=(place,)) for place in range(connections)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return sum(counts) / (time.perf_counter() - start)


def _singles(port: int, single: bytes, many: bytes | None, seconds: float) -> dict[str, Any]:
    """Ask for single rows, one after another, while another caller asks for very many at once."""
    stop = threading.Event()
    counts = [0]

    def load() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while many is not None and not stop.is_set():
            _post(connection, many)
            counts[0] += 1
        connection.close()

    beside = threading.Thread(target=load)
    beside.start()
    spent = _ask_singles(port, single, seconds)
    stop.set()
    beside.join()
    ordered = sorted(spent)
    shares = {"p50_s": 0.5, "p99_s": 0.99, "most_s": 1.0}
    found = {key: round(ordered[int(q * (len(ordered) - 1))], 5) for key, q in shares.items()}
    return {"calls": len(spent), "large calls": counts[0], **found}


def _ask_singles(port: int, single: bytes, seconds: float) -> list[float]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    spent, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = time.perf_counter()
        _post(connection, single)
        spent.append(time.perf_counter() - start)
        time.sleep(PAUSE_S)
    connection.close()
    return spent


def _post(connection: http.client.HTTPConnection, body: bytes) -> None:
    connection.request("POST", income.NATIVE, body, {"content-type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise SystemExit(f"the server answered {answer.status}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--own"]:
        own(*sys.argv[2:])
    else:
        main()
