"""Executes a pipeline and records the run."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from clewline.errors import Fault, RunFailed, UsageError
from clewline.flow import environment, error_report, step_log
from clewline.flow.capture import capturing
from clewline.flow.code import snapshot
from clewline.flow.context import building
from clewline.flow.definition import PipelineDefinition, is_path, resolved_hints
from clewline.flow.executors import load_executor
from clewline.flow.input_paths import InputPaths
from clewline.flow.params import describe_signature, to_record
from clewline.flow.run_recorder import RunEvent, RunRecorder
from clewline.flow.runs import close_dead_runs, merged_metrics
from clewline.store.ids import run_id
from clewline.store.locks import this_process
from clewline.store.records import Edge, Run, RunStatus, StepRun

if TYPE_CHECKING:
    from clewline.project import Project
    from clewline.store import Store


def execute(
    pipeline: PipelineDefinition,
    params: Mapping[str, Any],
    *,
    project: Project,
    store: Store,
    seed: int | None = None,
    cache: bool = True,
    listener: Callable[[RunEvent], None] | None = None,
    command: str = "",
    executor: str = "inline",
    places: InputPaths | None = None,
    replay_of: str | None = None,
) -> Run:
    """
    Execute a pipeline and record the run: code, environment, parameters, every step.

    Args:
        params: By name; what is left out takes its default.
        seed: Of the run, 0 by default. When given it also fills a parameter named
            `seed` that `params` leaves out.
        cache: Whether remembered outputs are taken. Outputs are remembered in any case.
        listener: Is told what happens, in the thread in which it happens.
        places: Where `Path` inputs lie; as named, from the current directory, by default.

    Returns:
        The finished run.

    Raises:
        RunFailed: A step or the pipeline raised; finished steps are remembered.
        UsageError: The parameters do not fit.
        Fault: The store cannot take the records.
        KeyboardInterrupt: It was interrupted (also by SIGTERM), and is recorded as such.
    """
    close_dead_runs(store)
    places = places or InputPaths()
    given = complete(pipeline, params, seed)
    steps = load_executor(executor)
    run = _begin(pipeline, project, store, seed or 0, command, replay_of)
    recording = RunRecorder(
        run, project, store, steps, cache=cache, places=places, listener=listener
    )
    try:
        with _terminable(), capturing():
            try:
                _build(pipeline, given, recording)
            finally:
                steps.close()  # what still runs when another step has raised is recorded too
    except KeyboardInterrupt:
        _end(recording, "interrupted")
        raise
    except Fault as error:
        _end(recording, "failed", error)
        told = _account(recording.steps, recording.failed_step(error))
        raise type(error)(error.message, f"{error.fix or ''} {told}".strip()) from error
    except BaseException as error:  # sys.exit in a step, too, ends the run, not the record
        ended = _end(recording, "failed", error)
        raise _failure(ended, recording, error) from error
    return _end(recording, "done")


def _build(pipeline: PipelineDefinition, given: dict[str, Any], recording: RunRecorder) -> None:
    located = _locate(given, recording)
    recording.tell("run started")
    with building(recording):
        pipeline.fn(**located)
    recording.finish()
    recording.recorder.drain()  # what the catalog refuses fails the run


def complete(
    pipeline: PipelineDefinition, params: Mapping[str, Any], seed: int | None
) -> dict[str, Any]:
    """All parameters, defaults and the run's seed filled in, `Path` where that is annotated."""
    if seed is not None and not -(2**63) <= seed < 2**63:
        raise UsageError(f"The seed {seed} is too large.", "Give one of at most 18 digits.")
    given = dict(params)
    if seed is not None and "seed" in pipeline.signature.parameters:
        given.setdefault("seed", seed)
    try:
        bound = pipeline.signature.bind(**given)
    except TypeError as error:
        raise UsageError(
            f"The pipeline {pipeline.name!r} was called with parameters that do not fit: {error}.",
            f"It is called as {describe_signature(pipeline)}.",
        ) from error
    bound.apply_defaults()
    paths = {name for name, hint in resolved_hints(pipeline.fn).items() if is_path(hint)}
    return {
        name: Path(value) if name in paths and isinstance(value, str) else value
        for name, value in bound.arguments.items()
    }


def _begin(
    pipeline: PipelineDefinition,
    project: Project,
    store: Store,
    seed: int,
    command: str,
    replay_of: str | None,
) -> Run:
    import numpy  # noqa: F401  its global generator is seeded before each step

    code = snapshot.take(project.root, store.blobs)
    run = Run(
        id=run_id(),
        pipeline=pipeline.name,
        status="running",
        seed=seed,
        command=command,
        snapshot=store.blobs.put(code.encode()),
        environment=_environment(store),
        commit=code.commit,
        changed=code.changed,
        replay_of=replay_of,
        process=this_process(),
        started=time.time(),
    )
    edge = Edge(source=f"code:{run.snapshot}", target=f"run:{run.id}", role="code")
    store.record(run, edge)
    return run


def _environment(store: Store) -> Any:
    return store.blobs.put(msgspec.json.encode(environment.record()))


def _locate(given: Mapping[str, Any], recording: RunRecorder) -> dict[str, Any]:
    """Record the parameters, and give each path as where its content is read."""
    named: dict[str, Any] = {}
    located = {name: _located(name, value, recording, named) for name, value in given.items()}
    run = replace(recording.run, params=to_record({**given, **named}))
    recording.run = run
    recording.recorder.add(run)
    return located


def _located(name: str, value: Any, recording: RunRecorder, named: dict[str, Any]) -> Any:
    if isinstance(value, Path):
        place, _ = recording.keep_path(value)
        named[name] = place.recorded
        return place.actual
    if type(value) in (list, tuple) and any(isinstance(each, Path) for each in value):
        inner: dict[str, Any] = {}
        made = [_located(str(i), each, recording, inner) for i, each in enumerate(value)]
        named[name] = [inner.get(str(i), each) for i, each in enumerate(value)]
        return type(value)(made)
    return value


def _end(recording: RunRecorder, status: RunStatus, error: BaseException | None = None) -> Run:
    """Make everything durable, then the run's last state, and only then drop the journals."""
    store = recording.store
    try:
        recording.recorder.drain()
    except UsageError as refused:  # the run has failed by then, and its last state must be told
        if error is None:
            raise
        error.add_note(f"Not all of it could be recorded: {refused}")
    run = replace(
        recording.run,
        status=status,
        metrics=merged_metrics(recording.steps),
        environment=_environment(store),  # numeric libraries are seen once they are loaded
        error=_error(recording, error),
        ended=time.time(),
    )
    store.record(run)
    step_log.remove(store.root, run.id)
    recording.run = run
    recording.recorder.close()
    recording.tell("run ended")
    return run


def _error(recording: RunRecorder, error: BaseException | None) -> dict[str, Any] | None:
    if error is None:
        return None
    step = recording.failed_step(error)
    return {
        **error_report.describe(error, recording.project.root),
        "step": step.id if step else None,
    }


def _failure(run: Run, recording: RunRecorder, error: BaseException) -> RunFailed:
    """Say what was done, what was not, and that finished steps are remembered."""
    failed = recording.failed_step(error)
    what = f"Step {_short(failed)}" if failed else f"The pipeline {run.pipeline!r}"
    told = error_report.render(run.error or {})
    return RunFailed(
        f"{what} of run {run.id} raised {told}",
        f"{_account(recording.steps, failed)} `clewline runs show {run.id} --logs` shows what the "
        "steps printed.",
        run=run.id,
        step=failed.id if failed else None,
    )


def _account(steps: list[StepRun], failed: StepRun | None) -> str:
    finished = [step for step in steps if step.status in ("done", "cached")]
    remembered = [_short(step) for step in finished if not step.uncacheable]
    again = [_short(step) for step in finished if step.uncacheable]
    parts = []
    if remembered:
        parts.append(
            f"Done: {', '.join(remembered)}; remembered, so that the next run will not execute "
            f"{'them' if len(remembered) > 1 else 'it'} again."
        )
    if again:
        parts.append(f"Done, to be executed again: {', '.join(again)}.")
    not_done = f"{_short(failed)} and the steps after it" if failed else "the steps that follow"
    parts.append(f"Not done: {not_done}.")
    return " ".join(parts)


def _short(step: StepRun) -> str:
    return step.id.partition("/")[2]


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM interrupt the run as Ctrl-C does, unless somebody else handles it already."""
    is_ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if is_ours:
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        if is_ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt("SIGTERM")
