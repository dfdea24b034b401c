"""`clewline runs`: list, show, diff."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from cyclopts import App

from clewline.cli.live import MARKS, seconds, told, when
from clewline.cli.output import console, emit
from clewline.cli.parameters import Limit, Offset

if TYPE_CHECKING:
    from clewline.flow.runs import RunDifference
    from clewline.store import Store
    from clewline.store.records import Run, StepRun

app = App(name="runs", help="List, show and compare runs.")


@app.command(name="list")
def list_(*, pipeline: str | None = None, limit: Limit = 20, offset: Offset = 0) -> None:
    """
    List runs, newest first.

    Parameters
    ----------
    pipeline
        Only runs of this pipeline.
    limit
        At most so many.
    offset
        Leave out so many of the newest.
    """
    from clewline.flow.runs import list_runs

    with opened() as store:
        found = list_runs(store, pipeline=pipeline, limit=limit, offset=offset)
    emit([summary(run) for run in found], show_list)


@app.command
def show(run: str, /, *, logs: bool = False) -> None:
    """
    Show a run: steps, parameters, metrics, code and environment.

    Parameters
    ----------
    run
        Its id, or the start of it.
    logs
        Also what each step printed.
    """
    from clewline.flow.runs import find_run

    with opened() as store:
        data = run_as_data(store, find_run(store, run), logs=logs)
    emit(data, show_run)


@app.command
def diff(first: str, second: str, /) -> None:
    """
    Compare two runs: parameters, inputs, metrics, code, environment, outputs.

    Parameters
    ----------
    first
        The id of one run, or the start of it.
    second
        The id of the other.
    """
    from clewline.flow.runs import compare, find_run

    with opened() as store:
        found = compare(store, find_run(store, first), find_run(store, second))
    emit(found, show_difference)


def opened() -> Store:
    """The store of this project, for reading."""
    from clewline.project import find
    from clewline.store import Store

    return Store.open(find().store_root, write=False)


def summary(run: Run) -> dict[str, Any]:
    """A run as one row."""
    return {
        "id": run.id,
        "pipeline": run.pipeline,
        "status": run.status,
        "started": run.started,
        "wall_s": run.ended - run.started if run.ended is not None else None,
        "params": run.params,
        "seed": run.seed,
        "metrics": run.metrics,
        "commit": run.commit,
        "changed": run.changed,
    }


def run_as_data(store: Store, run: Run, *, logs: bool = False) -> dict[str, Any]:
    """A run with its steps, as JSON."""
    from clewline.flow.runs import environment_of, inputs_of, log_of, steps_of

    environment = environment_of(store, run)
    return {
        **summary(run),
        "command": run.command,
        "replay_of": run.replay_of,
        "inputs": inputs_of(store, run),
        "error": run.error,
        "environment": msgspec.to_builtins(environment) if environment is not None else None,
        "steps": [
            {**msgspec.to_builtins(step), **({"log": log_of(store, step)} if logs else {})}
            for step in steps_of(store, run)
        ],
    }


def show_list(rows: list[dict[str, Any]]) -> None:
    """Runs as a table."""
    from rich.table import Table

    if not rows:
        console().print("No runs yet: clewline run PIPELINE makes one.")
        return
    table = Table("run", "pipeline", "status", "started", "took", "metrics", box=None)
    for row in rows:
        table.add_row(
            row["id"],
            row["pipeline"],
            row["status"],
            when(row["started"]),
            seconds(row["wall_s"]) if row["wall_s"] is not None else "",
            numbers(row["metrics"], most=3),
        )
    console().print(table)


def show_run(data: dict[str, Any]) -> None:
    """A run for a person."""
    out = console()
    for line in [*head(data), *steps(data), *failure(data)]:
        out.print(line, markup=False)


def head(data: dict[str, Any]) -> list[str]:
    """What is said of the run as a whole."""
    took = f" in {seconds(data['wall_s'])}" if data["wall_s"] is not None else ""
    lines = [f"run {data['id']} {data['pipeline']}: {data['status']}{took}"]
    facts = {
        "started": when(data["started"]),
        "command": data["command"],
        "params": plain(data["params"]),
        "seed": str(data["seed"]),
        "metrics": numbers(data["metrics"]),
        "code": code(data),
        "environment": environment(data["environment"]),
    }
    lines += [f"  {name:<12}{value}" for name, value in facts.items() if value]
    lines += [f"  {'input':<12}{path} {digest[:12]}" for path, digest in data["inputs"].items()]
    return lines


def code(data: dict[str, Any]) -> str:
    """Commit, and what differed from it."""
    if data["commit"] is None:
        return "no commit; all files are in the snapshot"
    changed = data["changed"]
    text = f"commit {data['commit'][:12]}"
    if not changed:
        return text
    more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
    return f"{text}, changed: {', '.join(changed[:5])}{more}"


def environment(found: dict[str, Any] | None) -> str:
    """The environment in one line."""
    if found is None:
        return ""
    return (
        f"Python {found['python']}, {found['platform']}, {found['cpu']}, "
        f"{found['cpus']} CPUs, {len(found['distributions'])} distributions"
    )


def steps(data: dict[str, Any]) -> list[str]:
    """A line for each step, and its log when that was asked for."""
    from clewline.store.records import StepRun

    lines = []
    for each in data["steps"]:
        step = msgspec.convert({k: v for k, v in each.items() if k != "log"}, StepRun)
        lines += [f"  {MARKS[step.status]} {told(step)}", *made(step)]
        lines += [f"      | {line}" for line in each.get("log", "").splitlines()]
    return lines


def made(step: StepRun) -> list[str]:
    """What a step put out."""
    files = [f"{name} {digest[:12]}" for name, digest in step.files.items()]
    outputs = [digest[:12] for digest in step.outputs]
    return [f"      → {', '.join([*outputs, *files])}"] if outputs or files else []


def failure(data: dict[str, Any]) -> list[str]:
    """The error, with the user's own frames."""
    from clewline.flow.error_report import render

    if data["error"] is None:
        return []
    return ["", *render(data["error"]).splitlines()]


def show_difference(found: RunDifference) -> None:
    """Two runs side by side."""
    lines = []
    for title in ("params", "inputs", "metrics", "code"):
        pairs = getattr(found, title)
        lines += [title] if pairs else []
        lines += [f"  {name}: {short(old)} → {short(new)}" for name, (old, new) in pairs.items()]
    for title in ("environment", "steps"):
        told_ = getattr(found, title)
        lines += [title] if told_ else []
        lines += [f"  {line}" for line in told_]
    out = console()
    for line in lines or [f"Runs {found.first} and {found.second} do not differ."]:
        out.print(line, markup=False)


def short(value: Any) -> str:
    """A value in a comparison; digests by their start."""
    if value is None:
        return "absent"
    text = str(value)
    is_digest = isinstance(value, str) and len(text) == 64
    return text[:12] if is_digest else f"{value:.6g}" if isinstance(value, float) else text


def numbers(metrics: dict[str, float], *, most: int | None = None) -> str:
    """Metrics in one line."""
    shown = list(metrics.items())[:most]
    more = " …" if len(shown) < len(metrics) else ""
    return " ".join(f"{name}={value:.4g}" for name, value in shown) + more


def plain(params: dict[str, Any]) -> str:
    """Parameters in one line."""
    return " ".join(f"{name}={value}" for name, value in params.items())
