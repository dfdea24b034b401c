"""What is going on right now: the run that a pipeline builds, and the step inside it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from clewline.flow.definition import Step
    from clewline.flow.handle import Handle
    from clewline.project import Project
    from clewline.store import Store
    from clewline.store.records import Artifact


class Notes(Protocol):
    """What a step says of itself while it runs. Kept even when the process is killed."""

    def metrics(self, values: Mapping[str, float]) -> None: ...

    def attach(self, name: str, artifact: Artifact) -> None: ...


class Engine(Protocol):
    """What turns the step calls of a pipeline into handles: a run, or an explanation of one."""

    def call(self, step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Handle: ...


@dataclass(frozen=True, slots=True, eq=False)
class StepContext:
    """
    The step run that is going on.

    `inputs` maps each parameter (`train`, or `tables[0]` for a handle inside a
    list) to `{"artifact": DIGEST, "from": "RUN/NN-name#0"}`, or to
    `{"value": …}` when it was given plainly.
    """

    project: Project
    store: Store
    run_id: str
    step_id: str
    inputs: Mapping[str, Any]
    seed: int  # of this step, made from the run's seed and the step's name
    started: float
    notes: Notes
    process: int = field(default_factory=os.getpid)


_engine: ContextVar[Engine | None] = ContextVar("clewline_engine", default=None)
_step: ContextVar[StepContext | None] = ContextVar("clewline_step", default=None)
_plain: ContextVar[bool] = ContextVar("clewline_plain", default=False)
_running: list[StepContext] = []


def current_step() -> StepContext | None:
    """
    The step run that this code belongs to, None outside of one.

    A thread that a step started does not inherit its context; while only one
    step runs in this process, such a thread belongs to it.
    """
    found = _step.get()
    if found is None and len(_running) == 1 and _engine.get() is None:
        return _running[0]
    return found


def current_engine() -> Engine | None:
    """The engine that a step call goes to: None outside a pipeline, and inside a step."""
    return None if _step.get() is not None else _engine.get()


def is_plain_call() -> bool:
    """Whether this code belongs to a step that was called as the plain function it is."""
    return _plain.get()


@contextmanager
def plain_call() -> Iterator[None]:
    """Say that the step of this block was called outside a pipeline, where nothing is recorded."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


@contextmanager
def building(current_engine: Engine) -> Iterator[None]:
    """Send the step calls of this block to an engine."""
    token = _engine.set(current_engine)
    try:
        yield
    finally:
        _engine.reset(token)


@contextmanager
def stepping(context: StepContext) -> Iterator[None]:
    """Make `context` the step run that is going on in this block."""
    token = _step.set(context)
    _running.append(context)
    try:
        yield
    finally:
        _running.remove(context)
        _step.reset(token)
