"""Record the step calls of a run: execute each one, or take its outputs from the cache."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec.structs import replace

from clewline.errors import NotStorable, UsageError
from clewline.flow import error_report, values
from clewline.flow.context import StepContext, run_step
from clewline.flow.handle import Handle, StepCall, StepOutput
from clewline.flow.keys.file_access import watch_reads
from clewline.flow.keys.step_key import StepKey
from clewline.flow.resource_usage import measure_usage
from clewline.flow.step import Step
from clewline.flow.step_arguments import InputPath, InputPaths, StepArguments
from clewline.flow.step_cache import CacheHit, key_of, look_up, step_seed
from clewline.flow.step_log import StepLog, log_on_disk, run_folder
from clewline.store.digest import Digest
from clewline.store.records import Artifact, CacheEntry, Edge, Run, SeenFile, StepRun

if TYPE_CHECKING:
    from clewline.flow.executors import Executor
    from clewline.project import Project
    from clewline.store import Store

DURABLE_AFTER_S = 0.1
"""A step that took longer than this is made durable before the next one begins: compared with
the step, the wait is short. Shorter steps become durable in groups."""


class RunEvent(msgspec.Struct, frozen=True):
    """Something that happened in a run; both records are as they were at that moment."""

    kind: Literal["run started", "step started", "step ended", "run ended"]
    run: Run
    step: StepRun | None = None


class RunRecorder:
    """
    The engine of one run: turns its step calls into records.

    Owns nothing: store and executor belong to the caller.
    """

    def __init__(
        self,
        run: Run,
        project: Project,
        store: Store,
        executor: Executor,
        *,
        cache: bool,
        paths: InputPaths,
        listener: Callable[[RunEvent], None] | None,
    ) -> None:
        self.run = run
        self.project = project
        self.store = store
        self.steps: list[StepRun] = []  # by index, each in its latest state
        self.records = store.recorder()
        self._executor = executor
        self._cache = cache
        self._paths = paths
        self._listener = listener
        self._failures: list[tuple[BaseException, StepRun]] = []
        self._open: list[StepCall] = []
        # The catalog may not show yet what this run itself has recorded.
        self._fresh: dict[str, CacheHit] = {}
        self._outputs: dict[Digest, str] = {}  # content → the step output that has it
        self._has_json = False  # among them
        self._stored_paths: dict[str, tuple[tuple[Any, ...], Artifact]] = {}
        self._log_folder = run_folder(store.root, run.id)

    # Called by the pipeline

    def call(self, step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Handle:
        """Submit one step call; if it has failed by then, raise its exception here."""
        index = len(self.steps)
        record = StepRun(
            id=f"{self.run.id}/{index:02d}-{step.name}",
            run=self.run.id,
            index=index,
            name=step.name,
            function=step.function,
            status="running",
            started=time.time(),
        )
        self.steps.append(record)
        call = StepCall(record.id, step.name, step.count)
        call.outputs = self._executor.submit(lambda: self._perform(step, record, args, kwargs))
        if call.outputs.done():
            # Raised here, so that the pipeline may catch it. A done call is not kept: its
            # values live as long as its handles do.
            call.outputs.result()
        else:
            self._open.append(call)
        return Handle(call)

    def finish(self) -> None:
        """Wait for every step call, and raise the exception of the first that failed."""
        for call in self._open:
            call.outputs.result()

    def notify(self, kind: Any, step: StepRun | None = None) -> None:
        """Send an event to the listener."""
        if self._listener is not None:
            self._listener(RunEvent(kind, self.run, step))

    def failed_step(self, error: BaseException) -> StepRun | None:
        """Return the step run that raised this error, or None if the pipeline itself did."""
        return next((step for raised, step in self._failures if raised is error), None)

    # Storage of values and paths that are passed to steps

    def keep(self, value: Any) -> Artifact:
        """Store a value that a pipeline passes to a step."""
        artifact = values.save(value, self.store.blobs)
        self.records.add(artifact)
        return artifact

    def keep_path(self, path: Path) -> tuple[InputPath, Artifact]:
        """Store a file or folder by its content, once while it stays the same."""
        found = self._paths.find(path)
        stamp = _stamp(found.actual)
        known = self._stored_paths.get(found.recorded)
        if known is not None and known[0] == stamp:
            return found, known[1]
        artifact = self.keep(found.actual)
        self.records.add(SeenFile(path=found.recorded, digest=artifact.digest, run=self.run.id))
        self._stored_paths[found.recorded] = (stamp, artifact)
        return found, artifact

    def output_ref(self, digest: Digest) -> str | None:
        """Return the step output of this run with a content, `RUN/NN-name#0`; None if none has."""
        return self._outputs.get(digest)

    def output_of(self, value: Any) -> str | None:
        """Return the step output of this run that equals a list or dict, or None."""
        if not self._has_json:
            return None
        try:
            return self._outputs.get(values.digest(value))
        except NotStorable:
            return None

    # One step call

    def _perform(
        self, step: Step, record: StepRun, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> list[StepOutput]:
        try:
            given = StepArguments(step, args, kwargs, self)
            key = key_of(step, given, self.project.root, self.run.seed or 0)
            record = replace(
                record, inputs=given.record, key=key.digest, uncacheable=key.uncacheable
            )
            if self._cache and key.digest is not None:
                hit = self._fresh.get(key.digest) or look_up(self.store, key)
                if hit is not None:
                    return self._reuse(record, given, hit)
            return self._execute(step, record, given, key)
        except BaseException as error:  # record everything that the step had recorded until then
            is_interrupt = isinstance(error, KeyboardInterrupt)
            noted = self.steps[record.index]
            record = replace(
                record,
                status="interrupted" if is_interrupt else "failed",
                error=None if is_interrupt else error_report.describe(error, self.project.root),
                metrics=noted.metrics,
                files=noted.files,
                logs=noted.logs,
                wall_s=time.time() - record.started,
                ended=time.time(),
            )
            self._failures.append((error, record))
            self._note(record)
            self.notify("step ended", record)
            raise

    def _reuse(self, record: StepRun, given: StepArguments, hit: CacheHit) -> list[StepOutput]:
        entry, artifacts = hit
        run, _, name = entry.step_run.partition("/")
        if run == self.run.id:
            origin: StepRun | None = self.steps[int(name.partition("-")[0])]
        else:
            origin = self.store.catalog.get(StepRun, entry.step_run)
        record = replace(
            record,
            status="cached",
            cached_from=entry.step_run,
            outputs=entry.outputs,
            metrics=origin.metrics if origin else {},
            files=origin.files if origin else {},
            ended=time.time(),
        )
        edge = Edge(source=f"step:{entry.step_run}", target=f"step:{record.id}", role="cached")
        self._note(record, edge, *_edges(record, given))
        self.notify("step ended", record)
        self._note_outputs(record, artifacts)
        return [StepOutput(self.store.blobs, artifact) for artifact in artifacts]

    def _execute(
        self, step: Step, record: StepRun, given: StepArguments, key: StepKey
    ) -> list[StepOutput]:
        self._note(record, *_edges(record, given))
        self.notify("step started", record)
        index = record.index

        def attach(name: str, artifact: Artifact) -> None:
            now = self.steps[index]
            self._note(replace(now, files={**now.files, name: artifact.digest}), artifact)
            self.records.drain()

        log = StepLog(self._log_folder, record.id, attach)
        context = StepContext(
            project=self.project,
            store=self.store,
            run_id=self.run.id,
            step_id=record.id,
            inputs=given.record,
            seed=step_seed(step, self.run.seed or 0),
            started=record.started,
            notes=log,
        )
        blobs = self.store.blobs
        with measure_usage() as usage:
            try:
                args, kwargs = given.values()
                declared = list(_paths_in([args, kwargs]))
                watch = watch_reads(
                    self.project.root, kernel=True, places=key.places, declared=declared
                )
                with run_step(context), watch as reads:
                    random.seed(context.seed)
                    if (numpy := sys.modules.get("numpy")) is not None:
                        numpy.random.seed(context.seed)
                    result = step.fn(*args, **kwargs)
                reads.note_memoised(key.memoised)
                undeclared = reads.undeclared(declared)
                outputs = [
                    StepOutput(blobs, values.save(part, blobs) if step.store_output else None, part)
                    for part in _split(step, result)
                ]
            finally:
                log.close()
                printed = log_on_disk(self.store.root, record)
                self.steps[index] = replace(
                    record,
                    metrics=dict(log.values),
                    files={name: kept.digest for name, kept in log.files.items()},
                    logs=blobs.put_file(printed) if printed else None,
                )
        stored = [output.artifact for output in outputs if output.artifact]
        record = replace(
            self.steps[index],
            status="done",
            uncacheable=key.uncacheable or undeclared,
            key=None if undeclared else key.digest,
            outputs=[artifact.digest for artifact in stored],
            wall_s=usage.wall_s,
            cpu_s=usage.cpu_s,
            peak_bytes=usage.peak_bytes,
            energy_j=usage.energy_j,
            ended=time.time(),
        )
        new: list[Any] = [*stored]
        if record.key is not None and record.uncacheable is None:
            entry = CacheEntry(
                key=record.key,
                function=record.function,
                step_run=record.id,
                outputs=record.outputs,
                parts=blobs.put(msgspec.json.encode(key.parts)),
                created=time.time(),
            )
            self._fresh[entry.key] = (entry, stored)
            new.append(entry)
        self._note(record, *new)
        self._note_outputs(record, stored)
        if usage.wall_s > DURABLE_AFTER_S:
            self.records.drain()
        self.notify("step ended", record)
        return outputs

    def _note_outputs(self, record: StepRun, artifacts: list[Artifact]) -> None:
        self._has_json = self._has_json or any(each.kind == "json" for each in artifacts)
        for slot, digest in enumerate(record.outputs):
            self._outputs.setdefault(digest, f"{record.id}#{slot}")

    def _note(self, record: StepRun, *others: Any) -> None:
        self.steps[record.index] = record
        self.records.add(record, *others)


def _edges(record: StepRun, given: StepArguments) -> Iterator[Edge]:
    for source, parameter in given.edges:
        yield Edge(source=source, target=f"step:{record.id}", role=f"input:{parameter}")


def _split(step: Step, result: Any) -> tuple[Any, ...]:
    """Return the outputs of a step, one or as many as its annotation promises."""
    if step.count is None:
        return (result,)
    if not isinstance(result, tuple) or len(result) != step.count:
        what = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
        raise UsageError(
            f"The step {step.name!r} is annotated to return {step.count} outputs and returned "
            f"{what}.",
            "Make the return annotation tuple[A, B, …] and the return statement agree.",
        )
    return result


def _paths_in(value: Any) -> Iterator[Path]:
    """Return the paths among a step's arguments, including those that other steps return."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _paths_in(each)
    elif isinstance(value, dict):
        yield from _paths_in(list(value.values()))


def _stamp(path: Path) -> tuple[Any, ...]:
    """Return what changes when a file, or a file of a folder, does: inode, size and time."""
    if path.is_dir():
        files = (each for each in sorted(path.rglob("*")) if each.is_file())
        return tuple((str(each), *_stamp(each)) for each in files)
    stat = path.stat()
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns)
