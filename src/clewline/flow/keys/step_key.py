"""The key of a step call: everything that its result depends on, named part by part."""

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
from clewline.flow.keys.code_dependencies import CodeDependencies, constant_text
from clewline.flow.keys.file_access import MemoisedCode
from clewline.flow.keys.impure_calls import FACTS
from clewline.flow.keys.object_content import Guards, imported_type
from clewline.store.changes import Change, changes
from clewline.store.digest import Digest, digest_bytes
from clewline.store.records import Artifact

FORMAT = 1
"""Increased whenever keys are made in another way, so that no older key matches by chance."""

PARTS = {
    "code": "code",
    "constants": "constant",
    "packages": "package",
    "params": "parameter",
    "inputs": "input",
    "environ": "environment variable",
}
"""The parts of a key that are mappings, each with the name of one entry."""


class StepKey(msgspec.Struct, frozen=True):
    """A step's key: its digest and the parts that made it, or the reason why there is none."""

    digest: Digest | None
    parts: dict[str, Any]  # function, code, constants, packages, params, inputs, environ …
    uncacheable: str | None
    places: tuple[str, ...] = ()  # files and folders outside of the project that code names
    memoised: tuple[MemoisedCode, ...] = ()  # code whose earlier reads the step may use


class FunctionParts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a function depends on, whatever its arguments."""

    name: str  # pipelines.py:fit
    root: str
    code: dict[str, str]  # function, class, module or file → digest
    constants: dict[str, str]  # global, default, closure value or class attribute → content
    packages: dict[str, str]  # distribution → version and record digest
    environ: tuple[str, ...]  # variables that the code reads; `?WHERE` by a computed name
    places: tuple[str, ...] = ()
    memoised: tuple[MemoisedCode, ...] = ()
    uncacheable: str | None = None


_walked: dict[int, tuple[Any, str, FunctionParts, Guards]] = {}


def function_parts(fn: Callable[..., Any], root: Path) -> FunctionParts:
    """
    Return everything that a function's result depends on, except its arguments.

    That is all code of the project that the function reaches: functions, classes,
    constants, defaults and closure values; and the packages that this code uses. The
    result is reused within the process while nothing in it changed.

    Args:
        fn: The function, as the user wrote it.
        root: The project; names and paths are relative to it.
    """
    known = _walked.get(id(fn))
    if known is not None and known[1] == str(root) and known[3].hold():
        return known[2]
    found = CodeDependencies(root)
    found.content(fn, "the step")
    if not isinstance(fn, FunctionType):  # a partial, a bound method, a callable object
        found.constant("the step itself", fn)
    found.drain()
    inner = getattr(fn, "__clewline_step__", None)
    real = inner.fn if inner is not None else fn
    name = f"{getattr(real, '__module__', '')}:{getattr(real, '__qualname__', real)}"
    parts = FunctionParts(
        name=found.names.get(id(real)) or name,
        root=str(root),
        code=dict(sorted(found.code.items())),
        constants=dict(sorted(found.constants.items())),
        packages=_package_versions(found.modules),
        environ=tuple(sorted(found.environ)),
        places=tuple(sorted(found.places)),
        memoised=tuple(sorted(found.memoised)),
        uncacheable="; ".join(found.reasons) or None,
    )
    _walked[id(fn)] = (fn, str(root), parts, found.guards)
    return parts


def step_key(
    parts: FunctionParts,
    params: Mapping[str, Any],
    inputs: Mapping[str, Digest | Artifact],
    *,
    seed: int | None,
    env: Mapping[str, str | None],
) -> StepKey:
    """
    Return the key of one call.

    Args:
        parts: What the function depends on.
        params: Arguments passed by value. Functions and classes among them count
            by their code.
        inputs: Arguments that are outputs of other steps or contents of files, by
            digest. Pass the artifact itself where there is one: objects of the
            project's classes then count with the code of their class.
        seed: The seed of the step.
        env: Declared environment variables and their values, None when unset.

    Returns:
        The key; without digest, and with the reason, if it could miss a dependency.
    """
    found = CodeDependencies(Path(parts.root))
    given = {
        name: constant_text(value, found.content(value, f"the parameter {name}"))
        for name, value in params.items()
    }
    found.note_places(params)
    digests: dict[str, str] = {}
    for name, value in inputs.items():
        if not isinstance(value, Artifact):
            digests[name] = value
            continue
        digests[name] = value.digest
        for path in value.meta.get("types", ()):
            module, _, qualname = str(path).partition(":")
            cls = imported_type(module, qualname)
            if cls is None:
                found.give_up(f"the input {name} holds a {path}, whose module is not imported")
            else:  # objects of the project's classes count with the code of their class
                found.content(cls, f"the input {name}")
    found.drain()
    read = sorted({*parts.environ, *found.environ})
    environ = {name: _surrounding(name) for name in read if not name.startswith("?")}
    computed = [name[1:] for name in read if name.startswith("?")]
    reasons = [text for text in (parts.uncacheable, *found.reasons) if text]
    if computed and not env:
        reasons.append(
            f"{computed[0]} reads environment variables by a computed name; "
            "declare them with @step(env=…)"
        )
    whole: dict[str, Any] = {
        "format": FORMAT,
        "function": parts.name,
        # An argument's closure may have the name of one that the step itself reaches, and
        # hold another value; neither may hide the other.
        "code": parts.code | {f"{name} (given)": each for name, each in found.code.items()},
        "constants": parts.constants
        | {f"{name} (given)": each for name, each in found.constants.items()},
        "packages": parts.packages | _package_versions(found.modules),
        "params": given,
        "inputs": digests,
        "environ": environ | dict(env),
        "seed": seed,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": f"{sys.platform}-{platform.machine()}",
    }
    digest = None
    if not reasons:
        digest = digest_bytes(msgspec.json.encode(whole, order="deterministic"))
    return StepKey(
        digest,
        whole,
        "; ".join(reasons) or None,
        places=(*parts.places, *found.places),
        memoised=(*parts.memoised, *found.memoised),
    )


def _surrounding(name: str) -> str | None:
    """Return an environment variable, or a fact of the machine, as the key holds it."""
    fact = FACTS.get(name)
    return os.environ.get(name) if fact is None else str(fact())


def key_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """
    Return which parts differ from one key to another.

    >>> key_changes({"params": {"trees": "100 (int)"}}, {"params": {"trees": "200 (int)"}})[0].new
    '200 (int)'
    """
    scalars = ("seed", "python", "platform", "function", "format")
    return [
        *(
            change
            for part, noun in PARTS.items()
            for change in changes(noun, old.get(part) or {}, new.get(part) or {})
        ),
        *changes("key", *({name: side.get(name) for name in scalars} for side in (old, new))),
    ]


def _package_versions(modules: set[str]) -> dict[str, str]:
    """Return the versions of the named packages; `*` stands for all that are installed."""
    found = packages.versions(sorted(modules - {"*"}))
    if "*" not in modules:
        return found
    return {name: each.version for name, each in packages.distributions().items()} | found
