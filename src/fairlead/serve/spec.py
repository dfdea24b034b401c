"""`endpoints/NAME.yaml`: what an endpoint is to be, as its people wrote it."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, Literal, cast, get_args

import msgspec

from fairlead import config
from fairlead.errors import InvalidConfig, NotFound
from fairlead.project import Project

Durability = Literal["process", "fsync"]

KEYS = ("endpoint", "model", "log")
LOG_KEYS = ("durability",)
PLANNED = frozenset(
    {"graph", "transform", "route", "arms", "shadow", "policy", "explain", "slo"}
    | {"log.keep", "log.drop", "log.hash"}
)
"""Keys that are known and not built yet: refused, so that nobody relies on them unheard."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)


class EndpointSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint: one model behind a name, and how its answers are logged."""

    endpoint: str
    model: str  # income@3, or income@champion, which `apply` resolves
    durability: Durability = "process"
    source: dict[str, Any] = {}  # the YAML as it was read


def names(project: Project) -> list[str]:
    """List the endpoints that have a file, sorted."""
    return sorted(path.stem for path in project.endpoints.glob("*.yaml"))


def read(project: Project, name: str) -> EndpointSpec:
    """
    Read the file of an endpoint.

    Raises:
        NotFound: There is no such file.
        InvalidConfig: It is not YAML, or holds a key or value that is not known or not built.
    """
    path = project.endpoints / f"{name}.yaml"
    if not path.is_file():
        near = difflib.get_close_matches(name, names(project), n=1)
        hint = f"Did you mean {near[0]}?" if near else "Write it: endpoint: and model: are enough."
        raise NotFound(f"There is no file {path}.", hint)
    spec = parse(path.read_bytes(), path)
    if spec.endpoint != name:
        raise InvalidConfig(
            f"{path} says endpoint: {spec.endpoint}.",
            "The file bears the name of its endpoint; rename one of them.",
        )
    return spec


def parse(text: bytes, path: Path) -> EndpointSpec:
    """Read the text of an endpoint's file; `path` is for the errors."""
    source = config.parse(text, path, "Mend its syntax.")
    if not isinstance(source, dict):
        raise InvalidConfig(
            f"{path} holds no keys.", "Write endpoint: NAME and model: NAME@champion."
        )
    _check_keys(source, KEYS, "", path)
    log = source.get("log", {})
    if not isinstance(log, dict):
        raise InvalidConfig(f"{path}: log is {log!r}.", "Write log: {durability: process}.")
    _check_keys(log, LOG_KEYS, "log.", path)
    return EndpointSpec(
        endpoint=_name(source, path),
        model=_model(source, path),
        durability=_durability(log, path),
        source=source,
    )


def _check_keys(found: dict[Any, Any], known: tuple[str, ...], prefix: str, path: Path) -> None:
    for key in found:
        if key in known:
            continue
        if f"{prefix}{key}" in PLANNED:
            raise InvalidConfig(
                f"{path}: the key {prefix}{key} is planned and not built yet.", "Leave it out."
            )
        planned = {k.removeprefix(prefix) for k in PLANNED if k.startswith(prefix)}
        near = difflib.get_close_matches(str(key), [*known, *planned], n=1)
        hint = f"Did you mean {prefix}{near[0]}?" if near else f"Known here: {', '.join(known)}."
        raise InvalidConfig(f"{path}: the key {prefix}{key} is not known.", hint)


def _name(source: dict[str, Any], path: Path) -> str:
    name = source.get("endpoint")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidConfig(
            f"{path}: endpoint is {name!r}.",
            "Write a name of lower-case letters, digits, - and _, such as endpoint: income.",
        )
    return name


def _model(source: dict[str, Any], path: Path) -> str:
    model = source.get("model")
    if not isinstance(model, str) or not all(model.partition("@")):
        raise InvalidConfig(
            f"{path}: model is {model!r}.",
            "Write a version or an alias, such as model: income@3 or model: income@champion.",
        )
    return model


def _durability(log: dict[str, Any], path: Path) -> Durability:
    durability = log.get("durability", "process")
    if durability not in get_args(Durability):
        raise InvalidConfig(
            f"{path}: log.durability is {durability!r}.",
            "process survives a kill of the server, fsync a power cut; choose one.",
        )
    return cast(Durability, durability)
