"""The key of a step: everything that its result depends on, named part by part."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

import msgspec

from clewline.flow.code import packages
from clewline.flow.environment import distributions
from clewline.flow.keys.code_dependencies import CodeDependencies, shown
from clewline.flow.keys.guards import Guards
from clewline.flow.keys.object_content import imported_type
from clewline.store.digest import Digest, digest_bytes
from clewline.store.records import Artifact

FORMAT = 1
"""Raised when keys are made in another way, so that none made before is met by chance."""


class StepKey(msgspec.Struct, frozen=True):
    """A step's key: its digest and the parts that made it, or the reason why there is none."""

    digest: Digest | None
    parts: dict[str, Any]  # function, code, constants, packages, params, inputs, environ …
    uncacheable: str | None


class FunctionParts(msgspec.Struct, frozen=True, kw_only=True):
    """All that a function reaches, whatever it is called with."""

    name: str  # pipelines.py:fit
    root: str
    code: dict[str, str]  # function, class, module or file → digest
    constants: dict[str, str]  # global, default, closure value or class attribute → content
    packages: dict[str, str]  # distribution → version and record digest
    modules: tuple[str, ...]  # of packages, that the code itself names
    environ: tuple[str, ...]  # variables that the code reads; `?WHERE` by a computed name
    uncacheable: str | None = None


_walked: dict[int, tuple[Any, str, FunctionParts, Guards]] = {}


def function_parts(fn: Callable[..., Any], root: Path) -> FunctionParts:
    """
    What a function's result depends on apart from its arguments.

    The closure of first-party code: functions, classes, constants, defaults and
    closure values, however they are reached, and the packages that it uses.
    Remembered within the process for as long as nothing in it changed.

    Args:
        fn: The function, as the user wrote it.
        root: The project; names and paths are told relative to it.
    """
    known = _walked.get(id(fn))
    if known is not None and known[1] == str(root) and known[3].hold():
        return known[2]
    reach = CodeDependencies(root)
    reach.piece(fn, "the step")
    if not isinstance(fn, FunctionType):  # a partial, a bound method, an object that is called
        reach.constant("the step itself", fn)
    reach.drain()
    parts = FunctionParts(
        name=name_of(fn, reach),
        root=str(root),
        code=dict(sorted(reach.code.items())),
        constants=dict(sorted(reach.constants.items())),
        packages=package_versions(reach.modules),
        modules=tuple(sorted(reach.modules)),
        environ=tuple(sorted(reach.environ)),
        uncacheable="; ".join(reach.reasons) or None,
    )
    _walked[id(fn)] = (fn, str(root), parts, reach.guards)
    return parts


def name_of(fn: Callable[..., Any], reach: CodeDependencies) -> str:
    """The name of a function as its key tells it."""
    inner = getattr(fn, "__clewline_step__", None)
    real = inner.fn if inner is not None else fn
    label = reach.names.get(id(real))
    return label or f"{getattr(real, '__module__', '')}:{getattr(real, '__qualname__', real)}"


def package_versions(modules: set[str]) -> dict[str, str]:
    """Versions of the packages named; all that are installed when a name is not known."""
    found = packages.versions(sorted(modules - {"*"}))
    return distributions() | found if "*" in modules else found


def step_key(
    parts: FunctionParts,
    params: Mapping[str, Any],
    inputs: Mapping[str, Digest | Artifact],
    *,
    seed: int | None,
    env: Mapping[str, str | None],
) -> StepKey:
    """
    The key of one call.

    Args:
        parts: What the function reaches.
        params: Arguments given as values. Functions and classes among them count
            by their code.
        inputs: Arguments that are outputs of other steps or contents of files, by
            digest. Give the artifact itself where there is one: objects of the
            project's classes then count with the code of their class.
        seed: The seed that the step runs under.
        env: Declared environment variables and their values, None when unset.

    Returns:
        The key; without digest, and with the reason, where none can be vouched for.
    """
    reach = CodeDependencies(Path(parts.root))
    given = {name: parameter(name, value, reach) for name, value in params.items()}
    taken = {name: source_digest(name, value, reach) for name, value in inputs.items()}
    reach.drain()
    environ, reason = environment(parts, reach, env)
    reasons = [text for text in (parts.uncacheable, *reach.reasons, reason) if text]
    whole: dict[str, Any] = {
        "format": FORMAT,
        "function": parts.name,
        "code": parts.code | as_given(reach.code),
        "constants": parts.constants | as_given(reach.constants),
        "packages": parts.packages | package_versions(reach.modules),
        "params": given,
        "inputs": taken,
        "environ": environ,
        "seed": seed,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": f"{sys.platform}-{platform.machine()}",
    }
    if reasons:
        return StepKey(None, whole, "; ".join(reasons))
    return StepKey(digest_bytes(msgspec.json.encode(whole, order="deterministic")), whole, None)


def as_given(met: Mapping[str, str]) -> dict[str, str]:
    """
    What arguments reach, under names of its own.

    A closure among the arguments may bear the name of one that the step reaches,
    and hold another value; neither may hide the other.
    """
    return {f"{name} (given)": content for name, content in met.items()}


def parameter(name: str, value: Any, reach: CodeDependencies) -> str:
    """A parameter as the key tells it."""
    return shown(value, reach.piece(value, f"the parameter {name}"))


def source_digest(name: str, value: Digest | Artifact, reach: CodeDependencies) -> str:
    """An input's digest; the classes of the project in it are met by the walk."""
    if not isinstance(value, Artifact):
        return value
    for path in value.meta.get("types", ()):
        module, _, qualname = str(path).partition(":")
        cls = imported_type(module, qualname)
        if cls is None:
            reach.give_up(f"the input {name} holds a {path}, whose module is not imported")
        else:
            reach.piece(cls, f"the input {name}")
    return value.digest


def environment(
    parts: FunctionParts, reach: CodeDependencies, declared: Mapping[str, str | None]
) -> tuple[dict[str, str | None], str | None]:
    """Environment variables of the key, and why they may not be all."""
    read = {*parts.environ, *reach.environ}
    computed = sorted(name[1:] for name in read if name.startswith("?"))
    values = {name: os.environ.get(name) for name in sorted(read) if not name.startswith("?")}
    if computed and not declared:
        return values, (
            f"{computed[0]} reads environment variables by a computed name; "
            "declare them with @step(env=…)"
        )
    return values | dict(declared), None


# ── in words ────────────────────────────────────────────────────────────────

NOUNS = {
    "code": "code",
    "constants": "constant",
    "packages": "package",
    "params": "parameter",
    "inputs": "input",
    "environ": "environment variable",
}


def key_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """
    Say in words which parts differ from one key to another.

    >>> explain({"params": {"trees": "100 (int)"}}, {"params": {"trees": "200 (int)"}})
    ['parameter trees: 100 (int) → 200 (int)']
    """
    lines = []
    for part in (*NOUNS, "seed", "python", "platform", "function", "format"):
        before, after = old.get(part), new.get(part)
        if part in NOUNS:
            lines += changed(NOUNS[part], before or {}, after or {})
        elif before != after:
            lines.append(f"{part}: {before} → {after}")
    return lines


def changed(noun: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """A line for each name that came, went or changed."""
    lines = []
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            lines.append(f"{noun} {name} is no longer used")
        elif name not in old:
            lines.append(f"{noun} {name} is used now")
        elif old[name] != new[name]:
            lines.append(f"{noun} {name}{how(noun, old[name], new[name])}")
    return lines


def how(noun: str, old: Any, new: Any) -> str:
    """What became of one part."""
    if noun == "package":
        before, after = str(old).partition(" ")[0], str(new).partition(" ")[0]
        return f": {before} → {after}" if before != after else f" {after} was installed anew"
    if noun in ("code", "input"):
        return " changed"
    if is_digest(old) or is_digest(new):
        return " changed"
    return f": {old} → {new}"


def is_digest(text: Any) -> bool:
    """Whether a part is told by a digest, which says nothing to a person."""
    last = str(text).rpartition(" ")[2]
    return len(last) == 32 and set(last) <= set("0123456789abcdef")
