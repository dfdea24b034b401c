"""`@step`: a function whose calls in a pipeline are recorded and remembered."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast, overload

from fairlead.errors import UsageError
from fairlead.flow import context

P = ParamSpec("P")
R = TypeVar("R")


class Step:
    """What is known of a step function. Found on the function as `__fairlead_step__`."""

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
        """Parameters annotated `Path`: content inputs."""
        hints = resolved_hints(self.fn)
        return frozenset(name for name, hint in hints.items() if is_path(hint) and name != "return")

    @functools.cached_property
    def count(self) -> int | None:
        """How many outputs an annotation `tuple[A, B]` promises; None for a single output."""
        return _outputs(resolved_hints(self.fn).get("return"))


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
        engine = context.engine()
        if engine is None and context.current() is None:
            with context.calling_plainly():
                return fn(*args, **kwargs)
        if engine is None:
            return fn(*args, **kwargs)
        return cast(R, engine.call(made, args, kwargs))

    call.__fairlead_step__ = made  # type: ignore[attr-defined]
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


def resolved_hints(fn: Callable[..., Any]) -> dict[str, Any]:
    """
    The annotations of a function, each as an object where it can be resolved.

    One name that exists for the type checker alone (`if TYPE_CHECKING`) must not
    hide the others, so what does not resolve is left as its text.
    """
    try:
        return typing.get_type_hints(fn)
    except (NameError, AttributeError, TypeError, SyntaxError):
        raw = getattr(fn, "__annotations__", {})
        return {name: _resolve(hint, fn) for name, hint in raw.items()}


def _resolve(hint: Any, fn: Callable[..., Any]) -> Any:
    if not isinstance(hint, str):
        return hint
    holder = type("Holder", (), {"__annotations__": {"it": hint}})
    try:
        return typing.get_type_hints(holder, fn.__globals__)["it"]
    except (NameError, AttributeError, TypeError, SyntaxError):
        return hint


def is_path(hint: Any) -> bool:
    """Whether an annotation is `Path`, or a union with it in which text has no place."""
    if isinstance(hint, str):
        names = [arm.strip().rsplit(".", 1)[-1] for arm in hint.split("|")]
        return "Path" in names and "str" not in names
    arms = typing.get_args(hint) or (hint,)
    return Path in arms and str not in arms


def _outputs(hint: Any) -> int | None:
    if isinstance(hint, str):
        return _outputs_of_text(hint)
    if typing.get_origin(hint) is not tuple:
        return None
    arms = typing.get_args(hint)
    return None if not arms or arms[-1] is Ellipsis else len(arms)


def _outputs_of_text(text: str) -> int | None:
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError:
        return None
    if not isinstance(tree, ast.Subscript) or not isinstance(tree.slice, ast.Tuple):
        return None
    if ast.unparse(tree.value).rsplit(".", 1)[-1] not in ("tuple", "Tuple"):
        return None
    arms = tree.slice.elts
    last = arms[-1]
    return None if isinstance(last, ast.Constant) and last.value is ... else len(arms)
