"""Execute a pipeline, and record the run."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from clewline.errors import Fault, RunFailed, UsageError
from clewline.flow import environment, error_report
from clewline.flow.code import snapshot
from clewline.flow.context import use_engine
from clewline.flow.executors import load_executor
from clewline.flow.params import PipelineDefinition, complete_params, to_record
from clewline.flow.run_recorder import RunEvent, RunRecorder
from clewline.flow.runs import close_dead_runs, merged_metrics
from clewline.flow.step_arguments import InputPath, InputPaths, locate
from clewline.flow.step_log import capture_output, remove_logs
from clewline.store.digest import Digest
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
    paths: InputPaths | None = None,
    replay_of: str | None = None,
) -> Run:
    """
    Execute a pipeline and record the run: code, environment, parameters, every step.

    Args:
        params: Values by name; parameters left out take their defaults.
        seed: The seed of the run, 0 by default. If given, it also fills a parameter
            named `seed` that `params` leaves out.
        cache: Whether cached outputs are used. Outputs are cached in any case.
        listener: Receives each event, in the thread in which it happens.
        paths: Resolves `Path` inputs; from the current directory by default.

    Returns:
        The finished run.

    Raises:
        RunFailed: A step or the pipeline raised; finished steps stay cached.
        UsageError: The parameters do not fit.
        NotSupported: No installed package offers the executor.
        Fault: The store cannot take the records.
        KeyboardInterrupt: The run was interrupted (also by SIGTERM), and is recorded so.
    """
    import numpy  # noqa: F401  its global generator is seeded before each step

    close_dead_runs(store)
    given = complete_params(pipeline, params, seed)
    steps = load_executor(executor)
    code = snapshot.take(project.root, store.blobs)
    run = Run(
        id=run_id(),
        pipeline=pipeline.name,
        status="running",
        seed=seed or 0,
        command=command,
        snapshot=store.blobs.put(code.encode()),
        environment=_store_environment(store),
        commit=code.commit,
        changed=code.changed,
        replay_of=replay_of,
        process=this_process(),
        started=time.time(),
    )
    store.record(run, Edge(source=f"code:{run.snapshot}", target=f"run:{run.id}", role="code"))
    recorder = RunRecorder(
        *(run, project, store, steps),
        cache=cache,
        paths=paths or InputPaths(),
        listener=listener,
    )

    def store_path(path: Path) -> InputPath:
        return recorder.keep_path(path)[0]

    try:
        with _interrupt_on_sigterm(), capture_output():
            try:
                pairs = {name: locate(value, store_path) for name, value in given.items()}
                plain = to_record({name: recorded for name, (_, recorded) in pairs.items()})
                recorder.run = replace(run, params=plain)
                recorder.records.add(recorder.run)
                recorder.notify("run started")
                with use_engine(recorder):
                    pipeline.fn(**{name: actual for name, (actual, _) in pairs.items()})
                recorder.finish()
                recorder.records.drain()  # a record that the catalog refuses fails the run
            finally:
                steps.close()  # steps that still run when another one raised are recorded too
    except KeyboardInterrupt:
        _end(recorder, "interrupted")
        raise
    except Fault as error:
        _end(recorder, "failed", error)
        summary = _summary(recorder.steps, recorder.failed_step(error))
        raise type(error)(error.message, f"{error.fix or ''} {summary}".strip()) from error
    except BaseException as error:  # sys.exit in a step, too, ends the run, not the record
        run, failed = _end(recorder, "failed", error), recorder.failed_step(error)
        what = f"Step {failed.label}" if failed else f"The pipeline {run.pipeline!r}"
        raise RunFailed(
            f"{what} of run {run.id} raised {error_report.render(run.error or {})}",
            f"{_summary(recorder.steps, failed)} `clewline runs show {run.id} --logs` shows what "
            "the steps printed.",
            run=run.id,
            step=failed.id if failed else None,
        ) from error
    return _end(recorder, "done")


def _store_environment(store: Store) -> Digest:
    return store.blobs.put(msgspec.json.encode(environment.record()))


def _end(recorder: RunRecorder, status: RunStatus, error: BaseException | None = None) -> Run:
    """Make everything durable, then the run's last state, and only then remove the logs."""
    store = recorder.store
    try:
        recorder.records.drain()
    except UsageError as refused:  # a failed run must still get its last state
        if error is None:
            raise
        error.add_note(f"Not everything could be recorded: {refused}")
    report = None
    if error is not None:
        failed = recorder.failed_step(error)
        report = error_report.describe(error, recorder.project.root)
        report["step"] = failed.id if failed else None
    run = replace(
        recorder.run,
        status=status,
        metrics=merged_metrics(recorder.steps),
        environment=_store_environment(store),  # numeric libraries are visible once loaded
        error=report,
        ended=time.time(),
    )
    store.record(run)
    remove_logs(store.root, run.id)
    recorder.run = run
    recorder.records.close()
    recorder.notify("run ended")
    return run


def _summary(steps: list[StepRun], failed: StepRun | None) -> str:
    """Say which steps are done and cached, done and not cached, and not done."""
    finished = [step for step in steps if step.status in ("done", "cached")]
    cached = ", ".join(step.label for step in finished if not step.uncacheable)
    uncached = ", ".join(step.label for step in finished if step.uncacheable)
    parts = [f"Done and cached, so the next run skips them: {cached}."] if cached else []
    parts += [f"Done, but not cached: {uncached}."] if uncached else []
    not_done = f"{failed.label} and the steps after it" if failed else "the steps that follow"
    return " ".join([*parts, f"Not done: {not_done}."])


@contextmanager
def _interrupt_on_sigterm() -> Iterator[None]:
    """Let SIGTERM interrupt the run as Ctrl-C does, unless a handler is installed already."""
    is_free = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if is_free:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if is_free:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
