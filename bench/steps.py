"""What a step costs beyond its own work: recorded, cached, and 100 cached ones in a row."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from clewline import project as projects
from clewline.flow import environment
from clewline.flow.pipeline_files import find_pipeline
from clewline.flow.run import execute
from clewline.flow.run_recorder import RunEvent
from clewline.flow.runs import list_runs
from clewline.project import Project
from clewline.store import Store

RESULTS = Path(__file__).parent / "results"

PIPELINES = """
import clewline as cl
import polars as pl

SHARE = 0.25


def halve(x: int) -> float:
    return x * SHARE


@cl.step
def number(x: int) -> float:
    return halve(x)


@cl.step
def table(x: int) -> pl.DataFrame:
    return pl.DataFrame({"x": range(1000), "y": [halve(x)] * 1000})


@cl.step
def total(table: pl.DataFrame, number: float) -> float:
    return float(table["y"].sum() + number)


@cl.pipeline
def numbers(count: int = 100, start: int = 0):
    for x in range(count):
        number(start + x)


@cl.pipeline
def chains(count: int = 33, start: int = 0):
    for x in range(count):
        total(table(start + x), number(start + x))
"""

GOALS_MS = {
    "recorded, a number": 5.0,
    "recorded, table and total": 5.0,
    "cached, a number": 1.0,
    "cached, table and total": 1.0,
    "100 cached steps": 100.0,
}


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-save", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder) / "bench", options.repeats)
    for name, value in figures.items():
        goal = f"  (goal {GOALS_MS[name]:g} ms)" if name in GOALS_MS else ""
        print(f"{name:<34}{value:9.3f} ms{goal}")
    if not options.no_save:
        save(figures)


def measure(root: Path, repeats: int) -> dict[str, float]:
    """Medians over repeats, in milliseconds."""
    root.mkdir()
    (root / "clewline.toml").write_text('[project]\nname = "bench"\nid = "0"\n')
    (root / "pipelines.py").write_text(PIPELINES)
    project = projects.load(root)
    with Store.create(project.store_root) as store:
        once(project, store, "chains", start=10**6, count=3)  # what loads once, loads now
        kept: dict[str, list[float]] = {}
        for repeat in range(repeats):
            for name, ms in figures_of(project, store, repeat).items():
                kept.setdefault(name, []).append(ms)
        list_runs(store)
    return {name: statistics.median(values) for name, values in kept.items()}


def figures_of(project: Project, store: Store, repeat: int) -> dict[str, float]:
    """One round: new steps, then the same ones again."""
    start = repeat * 1000
    fresh = once(project, store, "numbers", start=start)
    again = once(project, store, "numbers", start=start)
    chains = once(project, store, "chains", start=start)
    chains_again = once(project, store, "chains", start=start)
    return {
        "recorded, a number": fresh["steps"] / 100,
        "recorded, table and total": chains["steps"] / 99,
        "cached, a number": again["steps"] / 100,
        "cached, table and total": chains_again["steps"] / 99,
        "100 cached steps": again["steps"],
        "a run beside its steps": again["whole"] - again["steps"],
    }


def once(project: Project, store: Store, name: str, **params: Any) -> dict[str, float]:
    """Run, and give the time of the whole and that of its steps, in milliseconds."""
    marks: dict[str, float] = {}

    def hear(event: RunEvent) -> None:
        if event.kind != "step started":
            marks[event.kind] = time.perf_counter()

    begun = time.perf_counter()
    execute(find_pipeline(project, name), params, project=project, store=store, listener=hear)
    ended = time.perf_counter()
    return {
        "whole": (ended - begun) * 1000,
        "steps": (marks["step ended"] - marks["run started"]) * 1000,
    }


def save(figures: dict[str, float]) -> None:
    """Keep the figures with the machine and the versions."""
    machine = environment.record()
    RESULTS.mkdir(exist_ok=True)
    kept = {
        "when": time.strftime("%Y-%m-%d %H:%M:%S"),
        "unit": "ms, median",
        "figures": {name: round(value, 4) for name, value in figures.items()},
        "goals": GOALS_MS,
        "cpu": machine.cpu,
        "cpus": machine.cpus,
        "python": machine.python,
        "platform": machine.platform,
        "versions": {
            name: machine.distributions[name] for name in ("polars", "msgspec", "sqlalchemy")
        },
    }
    path = RESULTS / "steps.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=2) + b"\n")
    print(f"kept in {path.relative_to(Path.cwd())}", file=sys.stderr)


if __name__ == "__main__":
    main()
