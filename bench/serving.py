"""Predictions a second with everything on: beside bare handlers, other protocols, other servers."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from shared import income, peers
from shared.keep import RESULTS, keep
from shared.load import Round, h2load, ratio, script, summary, wrk
from shared.plain import write as write_plain_model
from shared.servers import Running, Server, free_port, running

BENCH = Path(__file__).parent
CONNECTIONS = (1, 32, 128)
GOALS = {1: 1.3, 32: 2.5, 128: 2.5}
"""How many times the requests of the bare handler."""
REFERENCES = ("bare", "compiled")
"""The exact model as skl2onnx converts it, and the file that clewline compiled."""
CLIENTS = BENCH.parent / ".venv-clients" / "bin" / "python"

Figures = dict[str, Any]
Asked = tuple[str, Running, Sequence[Path]]
"""What is loaded: a name, the server, and wrk's scripts, used in turn."""


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--project", type=Path, help="one with a live endpoint income")
    parser.add_argument("--no-save", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        project = options.project or income.make_project(scratch / "income")
        figures = {}
        for name in options.only:
            print(f"== {name}", flush=True)
            figures[name] = SECTIONS[name](project, scratch, options.rounds, options.seconds)
    if not options.no_save:
        path = RESULTS / "serving.json"
        earlier = json.loads(path.read_bytes())["figures"] if path.exists() else {}
        kept = {name: earlier[name] for name in SECTIONS if name in earlier} | figures
        keep("serving", kept, versions=("granian", "onnxruntime", "orjson", "uvloop"))


# ---- beside handlers around the same model


def handlers(project: Path, scratch: Path, rounds: int, seconds: float) -> Figures:
    """Compare with bare handlers, at 1, 32 and 128 connections."""
    plain = scratch / "plain.onnx"
    write_plain_model(income.EXAMPLE, income.DATA / "adult", plain)
    found = [
        income.ours(project),
        _granian("bare", {"PLAIN_MODEL": str(plain)}),
        _granian("compiled", {"BARE_PACKAGE": str(income.package(project))}),
        _granian("empty", {}),
    ]
    with ExitStack() as stack:
        lua = stack.enter_context(script(income.native(income.sample())))
        up = [stack.enter_context(running(server)) for server in found]
        asked = [(server.name, one, (lua,)) for server, one in zip(found, up, strict=True)]
        seen = in_turn(asked, CONNECTIONS, rounds, seconds)
        figures: Figures = {
            name: {"ready_s": round(one.ready_s, 2), "memory_mib": round(one.memory_mib)}
            | {str(c): summary(results) for c, results in seen[name].items()}
            for name, one, _ in asked
        }
    ours = seen["clewline"]
    for connections, goal in GOALS.items():
        compared = {name: ratio(ours[connections], seen[name][connections]) for name in REFERENCES}
        figures["clewline"] |= {f"{connections} to {name}": it for name, it in compared.items()}
        bare, compiled = compared["bare"], compared["compiled"]
        print(
            f"{connections:>4} connections: {bare['requests']:.2f} times the bare handler "
            f"(goal {goal}), p99 {bare['p99']:.2f} and CPU {bare['cpu']:.2f} times its; "
            f"{compiled['requests']:.2f} times the handler around our compiled file"
        )
    return figures


def _granian(name: str, environment: dict[str, str]) -> Server:
    program = str(Path(sys.executable).with_name("granian"))
    words = (program, "--interface", "rsgi", "--no-ws", f"handlers.{name}:app")
    words += ("--workers", "1", "--loop", "uvloop", "--port")
    question = income.native(income.sample(1))
    return Server(name, lambda port: (*words, str(port)), BENCH, question, environment)


# ---- the same server by other protocols


def protocols(project: Path, scratch: Path, rounds: int, seconds: float) -> Figures:
    """Compare our protocols with native REST at 1 and 32 connections; and gRPC with MLServer's."""
    rows = income.sample(whole=True)
    grpc_port = free_port()
    questions = {
        "native": [income.native(rows)],
        "oip json": [income.oip_json(rows)],
        "oip binary": income.oip_binary(rows)[: max(1, rounds)],
    }
    with ExitStack() as stack:
        one = stack.enter_context(running(income.ours(project, "--grpc-port", str(grpc_port))))
        asked = [
            (name, one, [stack.enter_context(script(q)) for q in several])
            for name, several in questions.items()
        ]
        seen = in_turn(asked, (1, 32), rounds, seconds)
        figures = {
            name: {str(c): summary(r) for c, r in by.items()}
            | {f"{c} to native": ratio(r, seen["native"][c]) for c, r in by.items()}
            for name, by in seen.items()
        }
        figures["grpc"] = _grpc(one, grpc_port, rows[0], scratch, rounds, seconds)
    for name, by in figures.items():
        if "32 to native" in by:
            print(f"{name}: {by['32 to native']['requests']:.2f} of native REST at 32 connections")
    return figures


def _grpc(
    ours: Running, port: int, row: income.Row, scratch: Path, rounds: int, seconds: float
) -> Figures:
    """Load our gRPC and MLServer's in turn, the same row, 32 connections."""
    folder = scratch / "mlserver-grpc"
    folder.mkdir()
    model = income.package(ours.server.folder)
    server = peers.server("mlserver", "onnx", model, [row], folder)
    bodies = {
        "clewline": grpc_body(
            [dict(t) for t in json.loads(income.oip_json([row]).bodies[0])["inputs"]]
        ),
        "mlserver": grpc_body(income.mlserver_tensors(row)),
    }
    with running(server) as theirs:
        targets = {
            "clewline": (ours, port),
            "mlserver": (theirs, int(server.environment["GRPC_PORT"])),
        }
        seen: dict[str, list[Round]] = {name: [] for name in targets}
        for name, (one, at) in targets.items():
            h2load(one, at, bodies[name], 32, 500)  # warm
        for _ in range(rounds):
            for name, (one, at) in targets.items():
                rate = seen[name][-1].requests_s if seen[name] else 500
                seen[name].append(h2load(one, at, bodies[name], 32, int(rate * seconds) + 32))
    figures: Figures = {name: summary(results) for name, results in seen.items()}
    figures["to mlserver"] = ratio(seen["clewline"], seen["mlserver"])
    print(
        f"gRPC: {figures['clewline']['requests_s']:,.0f} calls/s, "
        f"{figures['to mlserver']['requests']:.1f} times MLServer's (goal 3)"
    )
    return figures


def grpc_body(tensors: list[dict[str, Any]]) -> bytes:
    """Encode a ModelInfer request with tritonclient's own messages."""
    code = """
import json, sys
from tritonclient.grpc import service_pb2 as p
request = p.ModelInferRequest(model_name="income")
for t in json.load(sys.stdin):
    tensor = request.inputs.add(name=t["name"], datatype=t["datatype"], shape=t["shape"])
    for key, value in t.get("parameters", {}).items():
        tensor.parameters[key].string_param = value
    if t["datatype"] == "BYTES":
        tensor.contents.bytes_contents.extend(text.encode() for text in t["data"])
    elif t["datatype"] == "INT64":
        tensor.contents.int64_contents.extend(t["data"])
    else:
        tensor.contents.fp64_contents.extend(t["data"])
sys.stdout.buffer.write(request.SerializeToString())
"""
    subprocess.run([BENCH.parent / "scripts" / "install", "clients"], check=True)
    done = subprocess.run(
        [CLIENTS, "-c", code], input=json.dumps(tensors).encode(), capture_output=True, check=True
    )
    return done.stdout


# ---- other servers


def others(project: Path, scratch: Path, rounds: int, seconds: float) -> Figures:
    """Compare with each peer, round by round, serving scikit-learn and serving our ONNX file."""
    pipeline = scratch / "income.joblib"
    income.save_sklearn(pipeline)
    models: dict[peers.Kind, Path] = {"sklearn": pipeline, "onnx": income.package(project)}
    rows = income.sample(whole=True)
    figures: Figures = {}
    with ExitStack() as stack:
        ours = stack.enter_context(running(income.ours(project)))
        native = stack.enter_context(script(income.native(rows)))
        for name in peers.NAMES:
            for kind, model in models.items():
                folder = scratch / f"{name}-{kind}"
                folder.mkdir()
                server = peers.server(name, kind, model, rows, folder)
                figures[server.name] = _beside(ours, native, server, rounds, seconds)
    return figures


def _beside(ours: Running, native: Path, server: Server, rounds: int, seconds: float) -> Figures:
    with running(server) as one, script(server.question) as lua:
        asked: list[Asked] = [("clewline", ours, (native,)), (server.name, one, (lua,))]
        seen = in_turn(asked, (1, 32), rounds, seconds)
        figures: Figures = {
            "ready_s": round(one.ready_s, 2),
            "memory_mib": round(one.memory_mib),
            **{str(c): summary(results) for c, results in seen[server.name].items()},
        }
    for connections in (1, 32):
        compared = ratio(seen["clewline"][connections], seen[server.name][connections])
        figures[f"clewline to it at {connections}"] = compared
    goal = 200 if server.name.endswith("sklearn") else 5
    times = figures["clewline to it at 32"]["requests"]
    print(f"{server.name}: we answer {times:,.1f} times as many at 32 connections (goal {goal})")
    return figures


# ---- more workers


def workers(project: Path, scratch: Path, rounds: int, seconds: float) -> Figures:
    """Compare two workers with one, and tell what the load generator took of the two cores."""
    found = {n: income.ours(project, "--workers", str(n)) for n in (1, 2)}
    with ExitStack() as stack:
        lua = stack.enter_context(script(income.native(income.sample())))
        asked = [
            (f"{n} workers", stack.enter_context(running(server)), (lua,))
            for n, server in found.items()
        ]
        seen = in_turn(asked, (32, 128), rounds, seconds)
        figures: Figures = {
            name: {"memory_mib": round(one.memory_mib), "ready_s": round(one.ready_s, 2)}
            | {str(c): summary(results) for c, results in seen[name].items()}
            for name, one, _ in asked
        }
    for connections in (32, 128):
        compared = ratio(seen["2 workers"][connections], seen["1 workers"][connections])
        figures[f"2 to 1 at {connections}"] = compared
        load = figures["2 workers"][str(connections)]["load_cpu"]
        print(
            f"{connections:>4} connections: two workers answer {compared['requests']:.2f} times "
            f"what one does (aim 1.7 where a core is free); the load took {load:.2f} cores"
        )
    return figures


# ---- at rest


def footprint(project: Path, scratch: Path, rounds: int, seconds: float) -> Figures:
    """Start `clewline up` again and again: time to the first prediction, memory at rest."""
    ready, memory = [], []
    for _ in range(max(3, rounds)):
        with running(income.ours(project)) as one:
            ready.append(one.ready_s)
            memory.append(one.memory_mib)
    figures = {
        "ready_s": round(statistics.median(ready), 2),
        "memory_mib": round(statistics.median(memory)),
    }
    print(
        f"first prediction after {figures['ready_s']} s (goal 3), "
        f"{figures['memory_mib']} MiB in all processes (goal 300)"
    )
    return figures


# ---- how all are loaded


def in_turn(
    asked: Sequence[Asked], connections: Sequence[int], rounds: int, seconds: float
) -> dict[str, dict[int, list[Round]]]:
    """Load all in turn, again and again, so that noise of the machine meets them all."""
    seen: dict[str, dict[int, list[Round]]] = {
        name: {c: [] for c in connections} for name, _, _ in asked
    }
    for _, one, scripts in asked:
        wrk(one, scripts[0], connections[-1], 1.0)  # warm
    for number in range(rounds):
        for count in connections:
            for name, one, scripts in asked:
                result = wrk(one, scripts[number % len(scripts)], count, seconds)
                seen[name][count].append(result)
                _print(name, count, result)
    return seen


def _print(name: str, connections: int, result: Round) -> None:
    print(
        f"  {name:<18} {connections:>4} connections {result.requests_s:>10,.1f} requests/s"
        f"  p50 {result.p50_ms:.2f} ms  p99 {result.p99_ms:.2f} ms"
        f"  CPU {result.cpu_us:.0f} us  {result.failed} failed",
        flush=True,
    )


SECTIONS: dict[str, Callable[[Path, Path, int, float], Figures]] = {
    "footprint": footprint,
    "handlers": handlers,
    "protocols": protocols,
    "others": others,
    "workers": workers,
}

if __name__ == "__main__":
    main()
