"""`clewline runs`: list, show, diff."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import App, Parameter

from clewline.cli.change_text import change_text
from clewline.cli.live import MARKS, step_line
from clewline.cli.output import console, emit, make_table, print_lines
from clewline.cli.parameters import Limit, Offset
from clewline.formatting import format_duration, format_time_ms

if TYPE_CHECKING:
    from clewline.flow.runs import RunDifference
    from clewline.store import Store
    from clewline.store.records import Run

app = App(name="runs", help="List, show and compare runs.")


@app.command(name="list")
def list_(
    *,
    pipeline: str | None = None,
    status: str | None = None,
    since: str | None = None,
    until: str | None = None,
    metric: list[str] | None = None,
    param: list[str] | None = None,
    sort: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    limit: Limit = 20,
    offset: Offset = 0,
) -> None:
    """
    List runs, newest first.

    Parameters
    ----------
    pipeline
        List only runs of this pipeline.
    status
        List only runs that are running, done, failed or interrupted.
    since
        List only runs that started at or after this time: 2026-11-30, 2026-11-30T12:00Z or 24h.
    until
        List only runs that started before this time.
    metric
        List only runs with such a metric: "accuracy > 0.9". May be given several times.
    param
        List only runs with such a parameter: "trees = 100". May be given several times.
    sort
        Metric to sort by, -accuracy for the largest first; param.trees for a parameter.
    limit
        Maximum number of runs.
    offset
        Number of runs to skip.
    """
    from clewline.flow.run_query import read_filter, read_order
    from clewline.flow.runs import list_runs

    where = read_filter(
        pipeline=pipeline,
        status=status,
        since=since,
        until=until,
        metrics=metric or (),
        params=param or (),
    )
    with _open_store() as store:
        found = list_runs(store, where, order=read_order(sort), limit=limit, offset=offset)
    is_filtered = where != read_filter() or offset > 0
    emit([_summary(run) for run in found], lambda rows: _show_list(rows, is_filtered))


@app.command
def show(run: str, /, *, logs: bool = False) -> None:
    """
    Show the steps, parameters, metrics, code and environment of a run.

    Parameters
    ----------
    run
        Id of the run, or its first characters.
    logs
        Show the printed output of each step too.
    """
    from clewline.flow.runs import find_run

    with _open_store() as store:
        data = run_as_data(store, find_run(store, run), logs=logs)
    emit(data, _show_run)


@app.command
def diff(first: str, second: str, /) -> None:
    """
    Compare two runs: parameters, inputs, metrics, code and outputs.

    Parameters
    ----------
    first
        Id of one run, or its first characters.
    second
        Id of the other run.
    """
    from clewline.flow.runs import compare_runs, find_run

    with _open_store() as store:
        found = compare_runs(store, find_run(store, first), find_run(store, second))
    emit(found, _show_difference)


def _open_store() -> Store:
    from clewline.project import find
    from clewline.store import Store

    return Store.open(find().store_root, write=False)


def _summary(run: Run) -> dict[str, Any]:
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
    """Return a run with its steps, as JSON."""
    from clewline.flow.runs import environment_of, inputs_of, log_of, steps_of

    environment = environment_of(store, run)
    return {
        **_summary(run),
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


def _show_list(rows: list[dict[str, Any]], is_filtered: bool) -> None:
    if not rows:
        start = "No runs yet. Start one with: clewline run PIPELINE"
        console().print("No runs match." if is_filtered else start)
        return
    table = make_table("run", "pipeline", "status", "started", "took", "metrics")
    for row in rows:
        table.add_row(
            row["id"],
            row["pipeline"],
            row["status"],
            format_time_ms(row["started"]),
            format_duration(row["wall_s"]) if row["wall_s"] is not None else "",
            _metrics(row["metrics"], most=3),
        )
    console().print(table)


def _show_run(data: dict[str, Any]) -> None:
    from clewline.flow.error_report import render

    took = f" in {format_duration(data['wall_s'])}" if data["wall_s"] is not None else ""
    facts = {
        "started": format_time_ms(data["started"]),
        "command": data["command"],
        "params": " ".join(f"{name}={value}" for name, value in data["params"].items()),
        "seed": str(data["seed"]),
        "metrics": _metrics(data["metrics"]),
        "code": _code(data),
        "environment": _environment(data["environment"]),
    }
    print_lines(
        [
            f"run {data['id']} {data['pipeline']}: {data['status']}{took}",
            *(f"  {name:<12}{value}" for name, value in facts.items() if value),
            *(f"  {'input':<12}{path} {digest[:12]}" for path, digest in data["inputs"].items()),
            *(line for step in data["steps"] for line in _step_lines(step)),
            *(["", *render(data["error"]).splitlines()] if data["error"] is not None else []),
        ]
    )


def _code(data: dict[str, Any]) -> str:
    if data["commit"] is None:
        return "no commit; all files are in the snapshot"
    changed = data["changed"]
    more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
    return f"commit {data['commit'][:12]}" + (
        f", changed: {', '.join(changed[:5])}{more}" if changed else ""
    )


def _environment(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    return (
        f"Python {found['python']}, {found['platform']}, {found['cpu']}, "
        f"{found['cpus']} CPUs, {len(found['distributions'])} distributions"
    )


def _step_lines(data: dict[str, Any]) -> list[str]:
    """Return the line of a step, its outputs, and its log if that was asked for."""
    from clewline.store.records import StepRun

    log = data.get("log", "")
    step = msgspec.convert({name: each for name, each in data.items() if name != "log"}, StepRun)
    outputs = [digest[:12] for digest in step.outputs]
    outputs += [f"{name} {digest[:12]}" for name, digest in step.files.items()]
    return [
        f"  {MARKS[step.status]} {step_line(step)}",
        *([f"      → {', '.join(outputs)}"] if outputs else []),
        *(f"      | {line}" for line in log.splitlines()),
    ]


def _show_difference(found: RunDifference) -> None:
    lines = []
    for title in ("params", "inputs", "metrics", "code", "environment", "steps"):
        changes = getattr(found, title)
        lines += [title] if changes else []
        lines += [f"  {change_text(change)}" for change in changes]
    print_lines(lines or [f"Runs {found.first} and {found.second} do not differ."])


def _metrics(metrics: dict[str, float], *, most: int | None = None) -> str:
    shown = list(metrics.items())[:most]
    more = " …" if len(shown) < len(metrics) else ""
    return " ".join(f"{name}={value:.4g}" for name, value in shown) + more
