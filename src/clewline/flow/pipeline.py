"""`@pipeline` makes a function a pipeline: each of its executions is recorded as a run."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from clewline.errors import UsageError
from clewline.flow import context
from clewline.flow.params import PipelineDefinition

if TYPE_CHECKING:
    from clewline.store.records import Run

P = ParamSpec("P")
R = TypeVar("R")


class Pipeline(PipelineDefinition, Generic[P, R]):
    """
    A function made of steps.

    `clewline run NAME` executes it, or `.run(…)` from Python. If another pipeline
    calls it, its steps become part of that run. Called anywhere else it is the plain
    function, and nothing is recorded.
    """

    fn: Callable[P, R]

    def __init__(self, fn: Callable[P, R], name: str) -> None:
        super().__init__(fn, name)
        functools.update_wrapper(self, fn)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<pipeline {self.name}>"

    def run(self, *args: P.args, **kwargs: P.kwargs) -> Run:
        """
        Execute the pipeline in the project of the current directory, and record it.

        Raises:
            RunFailed: A step raised; finished steps stay cached.
            NotFound: The current directory is not inside a project.
            UsageError: Another run is executing, or the arguments do not fit.
        """
        from clewline.flow.run import execute
        from clewline.project import find
        from clewline.store import Store

        if context.current_engine() is not None or context.current_step() is not None:
            raise UsageError(
                f"{self!r}.run() was called inside another run.",
                f"Call it plainly, {self.name}(…): its steps then become part of this run.",
            )
        params: dict[str, Any] = self.signature.bind(*args, **kwargs).arguments
        project = find()
        with Store.open(project.store_root) as store:
            return execute(self, params, project=project, store=store)


@overload
def pipeline(fn: Callable[P, R], /, *, name: str | None = ...) -> Pipeline[P, R]: ...


@overload
def pipeline(*, name: str | None = ...) -> Callable[[Callable[P, R]], Pipeline[P, R]]: ...


def pipeline(
    fn: Callable[P, R] | None = None, /, *, name: str | None = None
) -> Pipeline[P, R] | Callable[[Callable[P, R]], Pipeline[P, R]]:
    """
    Make a function a pipeline: the steps that it calls are recorded as one run.

    Args:
        name: The name for `clewline run`; the function's name by default.

    Raises:
        UsageError: The decorated object is not a plain function.
    """
    if fn is None:  # called with options: `@pipeline(name="income")`
        return lambda fn: pipeline(fn, name=name)
    if not inspect.isfunction(fn):
        raise UsageError(
            f"@pipeline takes a plain function, and {fn!r} is not one.",
            "Put the step calls into a `def` function.",
        )
    return Pipeline(fn, name or fn.__name__)
