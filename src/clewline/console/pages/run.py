"""One run: its steps as a graph, what it was given and gave, each step with its output."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from clewline.console.page import (
    Event,
    EventStream,
    PageAnswer,
    PageRequest,
    PageRoute,
    Redirect,
    View,
)
from clewline.console.rendering import line_address, page_address
from clewline.console.table import Column, Table, offset_source
from clewline.errors import InvalidInput, NotFound
from clewline.flow.error_report import render as error_text
from clewline.flow.run_launcher import param_text, start_run
from clewline.flow.runs import environment_of, find_run, inputs_of, log_of, steps_of
from clewline.html.page import show_chart
from clewline.html.run_drawing import draw_run
from clewline.store.records import ModelVersion, Run, StepRun
from clewline.store.run_values import flat_params

LOOK_S = 0.5
"""Between two looks at the log of a running step."""
LOG_CHARACTERS = 200_000
"""Of the end of a log."""


class RunPage:
    """One run, its steps, and running it again."""

    name = "run"
    title = "Run"
    place = None

    def routes(self) -> Sequence[PageRoute]:
        """Return its addresses."""
        return (
            PageRoute("/runs/{run}", show_run),
            PageRoute("/runs/{run}/again", run_again, method="POST", role="operate"),
            PageRoute("/runs/{run}/steps/{step}", show_step),
            PageRoute("/runs/{run}/steps/{step}/log", follow_log),
        )


def step_address(step: StepRun) -> str:
    """Return the address of a step."""
    return f"/runs/{quote(step.run, safe='')}/steps/{quote(step.label, safe='')}"


# The run


def show_run(request: PageRequest) -> PageAnswer:
    """Show a run: steps, parameters, metrics, inputs, code, and the form to run it again."""
    run = find_run(request.store, request.path["run"])
    steps = steps_of(request.store, run)
    chart = draw_run(request.store.catalog, run, steps, address=step_address)
    environment = environment_of(request.store, run)
    versions = request.store.catalog.find(ModelVersion, run=run.id, limit=50)
    return View(
        "run.html",
        title=f"Run {run.id}",
        values={
            "run": run,
            "steps": steps,
            "chart": show_chart(chart) if steps else None,
            "metrics": _metric_table(request, run),
            "inputs": _input_table(request, run),
            "environment": environment,
            "versions": [(each.ref, page_address("model", each.ref)) for each in versions],
            "error": error_text(run.error) if run.error is not None else None,
            "failed": next((step for step in steps if step.status == "failed"), None),
            "step_address": step_address,
            "params": {name: param_text(value) for name, value in run.params.items()},
            "flat": flat_params(run.params),
            "may_run": request.person.may("operate"),
            "line": line_address(f"run:{run.id}"),
        },
    )


def _metric_table(request: PageRequest, run: Run) -> Table:
    rows = [{"name": name, "value": value} for name, value in run.metrics.items()]
    return Table(
        "metrics",
        (
            Column("name", "Metric", link=lambda row: _sorted_by(run, row["name"])),
            Column("value", "Value", "number"),
        ),
        _sliced(rows),
        request,
        empty="No metrics. A step records them with cl.log_metric.",
        caption="Metrics of this run",
    )


def _sorted_by(run: Run, metric: str) -> str:
    name = quote(f"metric.{metric}", safe="")
    return f"/runs?pipeline={quote(run.pipeline, safe='')}&column={name}&runs-sort=-{name}"


def _input_table(request: PageRequest, run: Run) -> Table:
    rows = [
        {"path": path, "digest": digest} for path, digest in inputs_of(request.store, run).items()
    ]
    return Table(
        "inputs",
        (
            Column("path", "Path", link=lambda row: line_address(row["path"], "impact")),
            Column("digest", "Content", "id", link=lambda row: artifact_address(row["digest"])),
        ),
        _sliced(rows),
        request,
        empty="It read no files.",
        caption="Files that this run read",
    )


def artifact_address(digest: str) -> str:
    """Return the address of an artifact."""
    return page_address("artifact", digest)


def _sliced(rows: Sequence[Mapping[str, Any]]) -> Any:
    return offset_source(lambda offset, limit, _: rows[offset : offset + limit], len(rows))


def run_again(request: PageRequest) -> PageAnswer:
    """Start the pipeline of a run with the parameters of the form."""
    run = find_run(request.store, request.path["run"])
    params = {
        name: request.form.get(f"param.{name}", param_text(value))
        for name, value in run.params.items()
    }
    text = request.form.get("seed", "").strip()
    try:
        seed = int(text) if text else run.seed
    except ValueError as error:
        raise InvalidInput(f"The seed {text!r} is not a whole number.", "Write one.") from error
    started = start_run(request.project, request.store, run.pipeline, params, seed=seed)
    return Redirect(f"/runs/{started}")


# A step


def show_step(request: PageRequest) -> PageAnswer:
    """Show a step: what it took and gave, its metrics, and what it printed."""
    run, step = _find_step(request)
    log = log_of(request.store, step)
    return View(
        "run_step.html",
        title=step.label,
        values={
            "run": run,
            "step": step,
            "inputs": [_input_row(name, value) for name, value in step.inputs.items()],
            "outputs": [
                *((f"output {place}", digest) for place, digest in enumerate(step.outputs)),
                *step.files.items(),
            ],
            "artifact_address": artifact_address,
            "log": log[-LOG_CHARACTERS:],
            "log_shortened": len(log) > LOG_CHARACTERS,
            "is_live": step.status == "running",
            "log_address": f"{step_address(step)}/log",
            "error": error_text(step.error) if step.error is not None else None,
            "cached_from": step.cached_from,
            "origin": _origin_address(step.cached_from) if step.cached_from else None,
        },
    )


def _find_step(request: PageRequest) -> tuple[Run, StepRun]:
    run = find_run(request.store, request.path["run"])
    steps = steps_of(request.store, run)
    for step in steps:
        if step.label == request.path["step"]:
            return run, step
    raise NotFound(
        f"Run {run.id} has no step {request.path['step']!r}.",
        f"Its steps are {', '.join(step.label for step in steps) or 'none yet'}.",
    )


def _origin_address(step_id: str) -> str:
    run, _, label = step_id.partition("/")
    return f"/runs/{quote(run, safe='')}/steps/{quote(label, safe='')}"


def _input_row(name: str, value: Any) -> Mapping[str, Any]:
    """Say what one parameter of a step took: an artifact, a path, or a value."""
    held = value if isinstance(value, dict) else {"value": value}
    digest, source = held.get("artifact"), held.get("from")
    step = str(source).partition("#")[0] if source else None
    return {
        "name": name,
        "digest": digest if isinstance(digest, str) else None,
        "from": step,
        "address": _origin_address(step) if step else None,
        "path": held.get("path"),
        "value": param_text(held["value"]) if held.get("value") is not None else None,
    }


def follow_log(request: PageRequest) -> PageAnswer:
    """Send what a step prints, as it prints it, until it ends."""
    _find_step(request)
    return EventStream(log_events(request))


async def log_events(request: PageRequest, *, look_s: float = LOOK_S) -> AsyncIterator[Event]:
    """Yield the text of the log from its beginning (`log`, JSON text), and `end` at the end."""
    sent = 0
    while True:
        _, step = await asyncio.to_thread(_find_step, request)
        log = await asyncio.to_thread(log_of, request.store, step)
        if len(log) > sent or not sent:
            sent = max(sent, len(log) - LOG_CHARACTERS)
            yield Event("log", json.dumps(log[sent:]))
            sent = max(len(log), 1)
        if step.status != "running":
            yield Event("end", step.status)
            return
        await asyncio.sleep(look_s)
