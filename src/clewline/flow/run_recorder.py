"""The engine of a run: performs each step call, or takes what is remembered, and records it."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec.structs import replace

from clewline.errors import UsageError
from clewline.flow import error_report, step_arguments, values
from clewline.flow.context import StepContext, stepping
from clewline.flow.definition import Step
from clewline.flow.handle import Handle
from clewline.flow.input_paths import InputPath, InputPaths
from clewline.flow.keys.file_access import watch_reads
from clewline.flow.keys.step_key import StepKey
from clewline.flow.outcome import StepCall, StepOutput
from clewline.flow.resource_usage import measure_usage
from clewline.flow.step_arguments import Arguments
from clewline.flow.step_cache import key_of, look_up, step_seed
from clewline.flow.step_log import StepJournal, folder_of
from clewline.store.records import Artifact, CacheEntry, Edge, Run, SeenFile, StepRun

if TYPE_CHECKING:
    from clewline.flow.executors import Executor
    from clewline.project import Project
    from clewline.store import Store

DRAINED_S = 0.1
"""A step that took longer than this is durable before the next one begins: next to it, the
wait is small. Shorter ones become durable in groups."""


class RunEvent(msgspec.Struct, frozen=True):
    """Something that happened to a run; both records are as they were at that moment."""

    kind: Literal["run started", "step started", "step ended", "run ended"]
    run: Run
    step: StepRun | None = None


class RunRecorder:
    """
    Turns the step calls of one run into records.

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
        places: InputPaths,
        listener: Callable[[RunEvent], None] | None,
    ) -> None:
        self.run = run
        self.project = project
        self.store = store
        self.steps: list[StepRun] = []  # by index, each as it last was
        self._failures: list[tuple[BaseException, StepRun]] = []
        self.recorder = store.recorder()
        self._executor = executor
        self._cache = cache
        self._places = places
        self._listener = listener
        self._open: list[StepCall] = []
        # What this run made itself may not be readable yet.
        self._fresh: dict[str, tuple[CacheEntry, list[Artifact]]] = {}
        self._paths: dict[str, tuple[tuple[Any, ...], Artifact]] = {}
        self._journals = folder_of(store.root, run.id)

    # What a pipeline calls

    def call(self, step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Handle:
        """Perform one step call; what it raises is raised here when it is known by then."""
        record = self._begun(step)
        call = StepCall(record.id, step.name, step.count)
        call.future = self._executor.submit(lambda: self._perform(step, record, args, kwargs))
        if call.future.done():
            # What a done call raised is raised here, so that the pipeline may catch it; and
            # its values live as long as its handles do.
            call.future.result()
        else:
            self._open.append(call)
        return Handle(call)

    def finish(self) -> None:
        """Wait for every step call, and raise what the first failed one raised."""
        for call in self._open:
            call.future.result()

    def tell(self, kind: Any, step: StepRun | None = None) -> None:
        """Tell the listener."""
        if self._listener is not None:
            self._listener(RunEvent(kind, self.run, step))

    def failed_step(self, error: BaseException) -> StepRun | None:
        """The step run that raised this error, None when it was the pipeline itself."""
        return next((step for raised, step in self._failures if raised is error), None)

    # Storage of what is given plainly

    def keep(self, value: Any) -> Artifact:
        """Store a value that a pipeline gives to a step plainly."""
        artifact = values.save(value, self.store.blobs)
        self.recorder.add(artifact)
        return artifact

    def keep_path(self, path: Path) -> tuple[InputPath, Artifact]:
        """Store a file or folder by its content, once while it stays the same."""
        place = self._places.find(path)
        stamp = _stamp(place.actual)
        known = self._paths.get(place.recorded)
        if known is not None and known[0] == stamp:
            return place, known[1]
        artifact = self.keep(place.actual)
        self.recorder.add(SeenFile(path=place.recorded, digest=artifact.digest, run=self.run.id))
        self._paths[place.recorded] = (stamp, artifact)
        return place, artifact

    # One step call

    def _begun(self, step: Step) -> StepRun:
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
        return record

    def _perform(
        self, step: Step, record: StepRun, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> list[StepOutput]:
        try:
            given = step_arguments.describe(step, args, kwargs, self)
            key = key_of(step, given, self.project.root, self.run.seed or 0)
            record = replace(
                record, inputs=given.record, key=key.digest, uncacheable=key.uncacheable
            )
            hit = self._remembered(key)
            if hit is not None:
                return self._take(record, given, hit)
            return self._work(step, record, given, key)
        except BaseException as error:
            self._lost(self.steps[record.index], record, error)
            raise

    def _remembered(self, key: StepKey) -> tuple[CacheEntry, list[Artifact]] | None:
        if not self._cache or key.digest is None:
            return None
        return self._fresh.get(key.digest) or look_up(self.store, key)

    def _take(
        self, record: StepRun, given: Arguments, hit: tuple[CacheEntry, list[Artifact]]
    ) -> list[StepOutput]:
        entry, artifacts = hit
        origin = self._origin(entry.step_run)
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
        self.tell("step ended", record)
        return [StepOutput(self.store.blobs, artifact) for artifact in artifacts]

    def _origin(self, step_id: str) -> StepRun | None:
        run, _, name = step_id.partition("/")
        if run == self.run.id:
            return self.steps[int(name.partition("-")[0])]
        return self.store.catalog.get(StepRun, step_id)

    def _work(
        self, step: Step, record: StepRun, given: Arguments, key: StepKey
    ) -> list[StepOutput]:
        self._note(record, *_edges(record, given))
        self.tell("step started", record)
        journal = StepJournal(
            self._journals, record.id, lambda name, kept: self._attach(record.index, name, kept)
        )
        with measure_usage() as meter:
            try:
                result, undeclared = self._called(step, record, given, journal)
                outputs = self._saved(step, result)
            finally:
                journal.close()
                self.steps[record.index] = self._spoken(record, journal)
        record = replace(
            self.steps[record.index],
            status="done",
            uncacheable=key.uncacheable or undeclared,
            key=None if undeclared else key.digest,
            outputs=[output.artifact.digest for output in outputs if output.artifact],
            wall_s=meter.wall_s,
            cpu_s=meter.cpu_s,
            peak_bytes=meter.peak_bytes,
            energy_j=meter.energy_j,
            ended=time.time(),
        )
        self._done(record, key, outputs)
        return outputs

    def _called(
        self, step: Step, record: StepRun, given: Arguments, journal: StepJournal
    ) -> tuple[Any, str | None]:
        """What the function returns, and why that must not be remembered (None: it may be)."""
        context = StepContext(
            project=self.project,
            store=self.store,
            run_id=self.run.id,
            step_id=record.id,
            inputs=given.record,
            seed=step_seed(step, self.run.seed or 0),
            started=record.started,
            notes=journal,
        )
        args, kwargs = given.values()
        with stepping(context), _seeded(context.seed), watch_reads(self.project.root) as reads:
            result = step.fn(*args, **kwargs)
        return result, reads.undeclared(_paths_in([args, kwargs]))

    def _saved(self, step: Step, result: Any) -> list[StepOutput]:
        parts = [result] if step.count is None else list(_split(step, result))
        if not step.store_output:
            return [StepOutput(self.store.blobs, None, part) for part in parts]
        outputs = []
        for part in parts:
            artifact = values.save(part, self.store.blobs)
            outputs.append(StepOutput(self.store.blobs, artifact, part))
        return outputs

    def _spoken(self, record: StepRun, journal: StepJournal) -> StepRun:
        """The record with what the step has said so far."""
        return replace(
            record,
            metrics=dict(journal.values),
            files={name: kept.digest for name, kept in journal.files.items()},
            logs=self.store.blobs.put_file(journal.log) if journal.log else None,
        )

    def _attach(self, index: int, name: str, artifact: Artifact) -> None:
        step = self.steps[index]
        step = replace(step, files={**step.files, name: artifact.digest})
        self._note(step, artifact)
        self.recorder.drain()

    def _done(self, record: StepRun, key: StepKey, outputs: list[StepOutput]) -> None:
        made: list[Any] = [output.artifact for output in outputs if output.artifact]
        if record.key is not None and record.uncacheable is None:
            entry = CacheEntry(
                key=record.key,
                function=record.function,
                step_run=record.id,
                outputs=record.outputs,
                parts=self.store.blobs.put(msgspec.json.encode(key.parts)),
                created=time.time(),
            )
            kept = [output.artifact for output in outputs if output.artifact]
            self._fresh[entry.key] = (entry, kept)
            made.append(entry)
        self._note(record, *made)
        if (record.wall_s or 0) > DRAINED_S:
            self.recorder.drain()
        self.tell("step ended", record)

    def _lost(self, kept: StepRun, record: StepRun, error: BaseException) -> None:
        """Record a step call that raised, with what it had said until then."""
        interrupted = isinstance(error, KeyboardInterrupt)
        record = replace(
            record,
            status="interrupted" if interrupted else "failed",
            error=None if interrupted else error_report.describe(error, self.project.root),
            metrics=kept.metrics,
            files=kept.files,
            logs=kept.logs,
            wall_s=time.time() - record.started,
            ended=time.time(),
        )
        self._failures.append((error, record))
        self._note(record)
        self.tell("step ended", record)

    def _note(self, record: StepRun, *others: Any) -> None:
        self.steps[record.index] = record
        self.recorder.add(record, *others)


def _edges(record: StepRun, given: Arguments) -> Iterator[Edge]:
    for source, parameter in given.edges:
        yield Edge(source=source, target=f"step:{record.id}", role=f"input:{parameter}")


def _split(step: Step, result: Any) -> tuple[Any, ...]:
    if not isinstance(result, tuple) or len(result) != step.count:
        what = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
        raise UsageError(
            f"The step {step.name!r} is annotated to return {step.count} outputs and returned "
            f"{what}.",
            "Make the return annotation tuple[A, B, …] and the return statement agree.",
        )
    return result


def _paths_in(value: Any) -> Iterator[Path]:
    """The paths that a step was given, also those that other steps have made."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _paths_in(each)
    elif isinstance(value, dict):
        yield from _paths_in(list(value.values()))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed Python's and numpy's global generators; a library that brings its own is not reached."""
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed)
    yield


def _stamp(path: Path) -> tuple[Any, ...]:
    """What changes when a file or a file of a folder does: inode, size and times."""
    if path.is_dir():
        return tuple(
            (str(each), *_stamp(each)) for each in sorted(path.rglob("*")) if each.is_file()
        )
    stat = path.stat()
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns)
