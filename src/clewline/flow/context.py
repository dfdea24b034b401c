"""Context variables: the run that a pipeline is building, and the step that is running."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from clewline.project import Project
    from clewline.store import Store
    from clewline.store.records import Artifact

T = TypeVar("T")


class StepNotes(Protocol):
    """Keeps what a step records while it runs, even when the process is killed."""

    def metrics(self, values: Mapping[str, float]) -> None: ...

    def attach(self, name: str, artifact: Artifact) -> None: ...


class Engine(Protocol):
    """Turns the step calls of a pipeline into handles: a run, or a cache plan."""

    def call(self, step: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...


@dataclass(frozen=True, slots=True, eq=False)
class StepContext:
    """
    The step run that is going on.

    `inputs` maps each parameter (`train`, or `tables[0]` for a handle inside a
    list) to `{"artifact": DIGEST, "from": "RUN/NN-name#0"}`, or to
    `{"value": …}` when a plain value was passed.
    """

    project: Project
    store: Store
    run_id: str
    step_id: str
    inputs: Mapping[str, Any]
    seed: int  # of this step, derived from the run's seed and the step's name
    started: float
    notes: StepNotes
    process: int = field(default_factory=os.getpid)


_engine: ContextVar[Engine | None] = ContextVar("clewline_engine", default=None)
_step: ContextVar[StepContext | None] = ContextVar("clewline_step", default=None)
_plain: ContextVar[bool] = ContextVar("clewline_plain", default=False)
_running: list[StepContext] = []


def current_step() -> StepContext | None:
    """
    Return the step run that this code belongs to, or None outside of a step.

    A thread that a step started does not inherit its context. While only one
    step runs in this process, such a thread belongs to it.
    """
    found = _step.get()
    if found is None and len(_running) == 1 and _engine.get() is None:
        return _running[0]
    return found


def current_engine() -> Engine | None:
    """Return the engine of the pipeline, or None outside of a pipeline and inside a step."""
    return None if _step.get() is not None else _engine.get()


def is_plain_call() -> bool:
    """Return whether this code belongs to a step that was called as a plain function."""
    return _plain.get()


@contextmanager
def _set(variable: ContextVar[T], value: T) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def plain_call() -> Any:
    """Mark the block as a step called outside a pipeline, where nothing is recorded."""
    return _set(_plain, True)


def use_engine(engine: Engine) -> Any:
    """Send the step calls of the block to an engine."""
    return _set(_engine, engine)


@contextmanager
def run_step(context: StepContext) -> Iterator[None]:
    """Make `context` the current step run of the block."""
    _running.append(context)
    try:
        with _set(_step, context):
            yield
    finally:
        _running.remove(context)
