"""What is known of a function that was made a step or a pipeline."""

from __future__ import annotations

import ast
import functools
import inspect
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


class Step:
    """What is known of a step function. Found on the function as `__clewline_step__`."""

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


class PipelineDefinition:
    """A function made of steps, with its name; `pipeline.Pipeline` is one that can be run."""

    def __init__(self, fn: Callable[..., Any], name: str) -> None:
        self.fn = fn
        self.name = name

    @functools.cached_property
    def signature(self) -> inspect.Signature:
        """The parameters of the function."""
        return inspect.signature(self.fn)


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
