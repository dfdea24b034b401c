"""`@step` makes a function a step: a pipeline records its calls and caches their outputs."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast, overload

from clewline.errors import UsageError
from clewline.flow import context

P = ParamSpec("P")
R = TypeVar("R")


class Step:
    """The definition of a step, found on its function as `__clewline_step__`."""

    def __init__(
        self, fn: Callable[..., Any], name: str, cache: bool, store_output: bool, env: Sequence[str]
    ) -> None:
        self.fn = fn
        self.name = name
        self.cache = cache
        self.store_output = store_output
        self.env = tuple(env)
        self.function = f"{fn.__module__}:{fn.__qualname__}"

    def __repr__(self) -> str:
        return f"<step {self.name}>"

    @functools.cached_property
    def signature(self) -> inspect.Signature:
        """The parameters of the function."""
        return inspect.signature(self.fn)

    @functools.cached_property
    def paths(self) -> frozenset[str]:
        """The parameters annotated `Path`, which are content inputs."""
        return path_parameters(self.fn)

    @functools.cached_property
    def count(self) -> int | None:
        """The number of outputs that an annotation `tuple[A, B]` promises, or None for one."""
        hint = resolved_hints(self.fn).get("return")
        if not isinstance(hint, str):
            arms = typing.get_args(hint) if typing.get_origin(hint) is tuple else ()
            return len(arms) if arms and arms[-1] is not Ellipsis else None
        try:
            tree = ast.parse(hint, mode="eval").body
        except SyntaxError:
            return None
        match tree:
            case ast.Subscript(value=value, slice=ast.Tuple(elts=[*_, last] as elements)):
                is_tuple = ast.unparse(value).rsplit(".", 1)[-1] in ("tuple", "Tuple")
                is_open = isinstance(last, ast.Constant) and last.value is ...
                return len(elements) if is_tuple and not is_open else None
        return None


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
    handle and is recorded. It is not executed again while nothing that it depends
    on has changed.

    Args:
        cache: Whether its outputs are cached under its key.
        store_output: Whether its outputs are stored. If not, a handle gives the
            value in this process only, and steps that take it are not cached.
        env: Names of environment variables that the function reads; they are
            part of its key.
        name: Its name in the record; the function's by default.

    Raises:
        UsageError: The decorated object is not a plain function.
    """
    if fn is None:  # called with options: `@step(cache=False)`
        options: dict[str, Any] = {"cache": cache, "store_output": store_output, "env": env}
        return functools.partial(step, **options, name=name)
    is_plain = inspect.isfunction(fn) and not inspect.iscoroutinefunction(fn)
    if not is_plain or inspect.isgeneratorfunction(fn):
        raise UsageError(
            f"@step takes a plain function, and {fn!r} is not one.",
            "Put the work into a `def` function that returns its value.",
        )
    if isinstance(env, str):
        raise UsageError(f"@step(env={env!r}) must be a list of names.", f"Write env=({env!r},).")
    name = name or fn.__name__
    if not re.fullmatch(r"[\w.-]+", name):
        raise UsageError(
            f"A step cannot be named {name!r}.",
            "Give it a name of letters, digits, _, - and . with @step(name=…).",
        )
    definition = Step(fn, name, cache, store_output, env)

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        engine = context.current_engine()
        if engine is not None:
            return cast(R, engine.call(definition, args, kwargs))
        if context.current_step() is not None:
            return fn(*args, **kwargs)
        with context.plain_call():
            return fn(*args, **kwargs)

    call.__clewline_step__ = definition  # type: ignore[attr-defined]
    return call


# Annotations


def resolved_hints(fn: Callable[..., Any]) -> dict[str, Any]:
    """
    Return the annotations of a function, each resolved to an object where possible.

    A name that exists for the type checker alone (`if TYPE_CHECKING`) must not hide
    the others, so an annotation that cannot be resolved stays a string.
    """
    names = getattr(inspect.unwrap(fn), "__globals__", {})
    raw: dict[str, Any] = getattr(fn, "__annotations__", {})
    found = {}
    for name, hint in raw.items():
        holder = type("Holder", (), {"__annotations__": {"hint": hint}})
        try:
            found[name] = typing.get_type_hints(holder, names)["hint"]
        except (NameError, AttributeError, TypeError, SyntaxError):
            found[name] = hint
    return found


def path_parameters(fn: Callable[..., Any]) -> frozenset[str]:
    """Return the parameters annotated `Path`, or a union with `Path` and without `str`."""
    found = set()
    for name, hint in resolved_hints(fn).items():
        if isinstance(hint, str):
            arms: Any = [
                {"Path": Path, "str": str}.get(arm.strip().rsplit(".", 1)[-1])
                for arm in hint.split("|")
            ]
        else:
            arms = typing.get_args(hint) or (hint,)
        if name != "return" and Path in arms and str not in arms:
            found.add(name)
    return frozenset(found)
