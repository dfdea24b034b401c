"""`@step`: a function whose calls in a pipeline are recorded and remembered."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar, cast, overload

from clewline.errors import UsageError
from clewline.flow import context
from clewline.flow.definition import Step

P = ParamSpec("P")
R = TypeVar("R")


@overload
def step(fn: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def step(
    *, cache: bool = ..., store_output: bool = ..., env: Sequence[str] = ..., name: str | None = ...
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def step(
    fn: Callable[P, R] | None = None,
    /,
    *,
    cache: bool = True,
    store_output: bool = True,
    env: Sequence[str] = (),
    name: str | None = None,
) -> Callable[P, R] | Callable[[Callable[P, R]], Callable[P, R]]:
    """
    Make a function a step.

    Outside a pipeline it stays the plain function. Inside one, a call returns a
    handle, is recorded, and is not executed again while nothing that it depends
    on has changed.

    Args:
        cache: Whether its outputs are remembered under its key.
        store_output: Whether its outputs are stored. When not, a handle gives the
            value in this process only, and steps that take it are not remembered.
        env: Names of environment variables that the function reads; they are
            part of its key.
        name: Its name in the record, the function's by default.

    Raises:
        UsageError: What is decorated is not a plain function.
    """
    if fn is None:
        return functools.partial(_make, cache=cache, store_output=store_output, env=env, name=name)
    return _make(fn, cache=cache, store_output=store_output, env=env, name=name)


def _make(
    fn: Callable[P, R], *, cache: bool, store_output: bool, env: Sequence[str], name: str | None
) -> Callable[P, R]:
    _refuse_unfit(fn, env)
    made = Step(fn, _fit_name(name or fn.__name__), cache, store_output, env)

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        engine = context.current_engine()
        if engine is None and context.current_step() is None:
            with context.plain_call():
                return fn(*args, **kwargs)
        if engine is None:
            return fn(*args, **kwargs)
        return cast(R, engine.call(made, args, kwargs))

    call.__clewline_step__ = made  # type: ignore[attr-defined]
    return call


def _refuse_unfit(fn: object, env: Sequence[str]) -> None:
    is_plain = inspect.isfunction(fn) and not inspect.iscoroutinefunction(fn)
    if not is_plain or inspect.isgeneratorfunction(fn):
        raise UsageError(
            f"@step takes a plain function, and {fn!r} is not one.",
            "Put the work into a `def` function that returns its value.",
        )
    if isinstance(env, str):
        raise UsageError(f"@step(env={env!r}) is a text.", f"Write env=({env!r},).")


def _fit_name(name: str) -> str:
    if not re.fullmatch(r"[\w.-]+", name):
        raise UsageError(
            f"A step cannot be named {name!r}.",
            "Give it a name of letters, digits, _, - and . with @step(name=…).",
        )
    return name
