"""`endpoints/NAME.yaml`: what an endpoint is to be, as its people wrote it."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, Literal, cast, get_args

import msgspec

from clewline import config
from clewline.errors import InvalidConfig, NotFound
from clewline.project import Project
from clewline.serve.graph import declared
from clewline.serve.graph.model_import import DeclaredImport, of_text
from clewline.serve.graph.model_import import read as read_imported
from clewline.serve.graph.parser import Grammar, is_model
from clewline.serve.graph.problems import Problem, Problems, nearest

Durability = Literal["process", "fsync"]

KEYS = ("endpoint", "model", "graph", "nodes", "shadow", "timeout_ms", "pin", "log")
LOG_KEYS = ("durability",)
PLANNED = frozenset({"policy", "explain", "slo", "log.keep", "log.drop", "log.hash"})
"""Keys that are known and not built yet: refused, so that nobody relies on them unheard."""

INSIDE = frozenset({"transform", "route", "arms", "combine", "branches", "after", "isolate"})
"""Keys of a node, which stand below `graph:`."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)
_LONGEST_MS = 86_400_000


class EndpointSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint: a model or a graph of nodes behind a name, and how its answers are logged."""

    endpoint: str
    model: str | DeclaredImport | None = (
        None  # income@3, or income@champion, which `apply` resolves
    )
    graph: declared.Node | None = None  # in place of a model alone
    durability: Durability = "process"
    timeout_ms: float | None = None  # within which an answer is due
    pin: bool = False  # never evicted from memory
    source: dict[str, Any] = {}  # the YAML as it was read
    problems: tuple[Problem, ...] = ()  # that `resolve` is still to tell, with its own

    @property
    def root(self) -> declared.Node:
        """The outermost node."""
        if self.graph is not None:
            return self.graph
        return declared.Model(at="model", name="model", model=self.model or "")


def names(project: Project) -> list[str]:
    """List the endpoints that have a file, sorted."""
    return sorted(path.stem for path in project.endpoints.glob("*.yaml"))


def read(project: Project, name: str, *, refuse: bool = True) -> EndpointSpec:
    """
    Read the file of an endpoint.

    Args:
        project: Whose it is.
        name: Of the endpoint.
        refuse: Whether to raise what is wrong with it; otherwise it stands under
            `problems`, and `resolve` raises it together with what it finds.

    Raises:
        NotFound: There is no such file.
        InvalidConfig: It is not YAML, or holds a key or value that is not known or not
            built; names all that is wrong (`problems.InvalidEndpoint`).
    """
    path = project.endpoints / f"{name}.yaml"
    if not path.is_file():
        near = difflib.get_close_matches(name, names(project), n=1)
        hint = f"Did you mean {near[0]}?" if near else "Write it: endpoint: and model: are enough."
        raise NotFound(f"There is no file {path}.", hint)
    spec = parse(path.read_bytes(), path, refuse=refuse)
    if spec.endpoint != name and not spec.problems:
        raise InvalidConfig(
            f"{path} says endpoint: {spec.endpoint}.",
            "The file bears the name of its endpoint; rename one of them.",
        )
    return spec


def parse(text: bytes, path: Path, *, refuse: bool = True) -> EndpointSpec:
    """Read the text of an endpoint's file, as `read`; `path` is for the errors."""
    source = config.parse(text, path, "Mend its syntax.")
    if not isinstance(source, dict):
        raise InvalidConfig(
            f"{path} holds no keys.", "Write endpoint: NAME and model: NAME@champion."
        )
    problems = Problems()
    spec = _spec(_as_json(source, path), problems)
    if refuse:
        problems.require_none(path)
    return msgspec.structs.replace(spec, problems=tuple(problems))


def _as_json(source: dict[Any, Any], path: Path) -> dict[str, Any]:
    """The values as a revision keeps them: dates as texts, every key a text."""
    try:
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(source))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidConfig(
            f"{path} holds what JSON cannot: {error}.", "Use texts, numbers, lists and mappings."
        ) from error
    return plain


def _spec(source: dict[str, Any], problems: Problems) -> EndpointSpec:
    _check_keys(source, KEYS, "", problems)
    log = source.get("log", {})
    if not isinstance(log, dict):
        problems.add("log", f"log is {log!r}.", "Write log: {durability: process}.")
        log = {}
    _check_keys(log, LOG_KEYS, "log.", problems)
    model, graph = _answering(source, problems)
    return EndpointSpec(
        endpoint=_name(source, problems),
        model=model,
        graph=graph,
        durability=_durability(log, problems),
        timeout_ms=_timeout(source, problems),
        pin=_pin(source, problems),
        source=source,
    )


def _check_keys(
    found: dict[Any, Any], known: tuple[str, ...], prefix: str, problems: Problems
) -> None:
    for key in found:
        full = f"{prefix}{key}"
        if key in known:
            continue
        if full in PLANNED:
            problems.add(full, f"the key {full} is planned and not built yet.", "Leave it out.")
        elif full in INSIDE:
            fix = f"It belongs to a node: write it below graph:, such as graph: {{{key}: …}}."
            problems.add(full, f"the key {full} does not stand at the top.", fix)
        else:
            planned = [k.removeprefix(prefix) for k in sorted(PLANNED) if k.startswith(prefix)]
            near = difflib.get_close_matches(str(key), [*known, *planned], n=1)
            hint = f"Did you mean {prefix}{near[0]}?" if near else nearest(key, known)
            problems.add(full, f"the key {full} is not known.", hint)


def _answering(
    source: dict[str, Any], problems: Problems
) -> tuple[str | DeclaredImport | None, declared.Node | None]:
    """What answers: a model alone, or a graph."""
    nodes = source.get("nodes", {})
    if not isinstance(nodes, dict):
        problems.add("nodes", f"nodes is {nodes!r}.", "Write NAME: NODE for each.")
        nodes = {}
    grammar = Grammar(nodes, problems)
    if "graph" not in source and "shadow" not in source:
        _unused(grammar, problems)
        return _model(source, problems), None
    root = _root(source, grammar, problems)
    if "shadow" in source:
        root = grammar.shadows(source["shadow"], root)
    _unused(grammar, problems)
    return None, root


def _root(source: dict[str, Any], grammar: Grammar, problems: Problems) -> declared.Node | None:
    if "graph" not in source:
        model = _model(source, problems)
        return None if model is None else grammar.node(source["model"], "model")
    if "model" in source:
        problems.add("model", "both model and graph say what answers.", "Leave one.")
    return grammar.node(source["graph"], "graph")


def _unused(grammar: Grammar, problems: Problems) -> None:
    for name in grammar.nodes:
        if name not in grammar.used:
            fix = "Name it in the graph, or take it out."
            problems.add(f"nodes.{name}", f"nodes.{name} is used nowhere.", fix)


def _name(source: dict[str, Any], problems: Problems) -> str:
    name = source.get("endpoint")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        fix = "Write a name of lower-case letters, digits, - and _, such as endpoint: income."
        problems.add("endpoint", f"endpoint is {name!r}.", fix)
    return str(name)


def _model(source: dict[str, Any], problems: Problems) -> str | DeclaredImport | None:
    model = source.get("model")
    if isinstance(model, dict) and "from" in model:
        return read_imported(model, "model", problems)
    if is_model(model):
        return of_text(str(model), "model")
    fix = "Write a version or an alias, such as model: income@3 or model: income@champion."
    if isinstance(model, dict):
        fix = "Options of a model stand in a graph: write graph: {model: …, isolate: true}."
    problems.add("model", f"model is {model!r}.", fix)
    return None


def _durability(log: dict[str, Any], problems: Problems) -> Durability:
    durability = log.get("durability", "process")
    if durability not in get_args(Durability):
        fix = "process survives a kill of the server, fsync a power cut; choose one."
        problems.add("log.durability", f"log.durability is {durability!r}.", fix)
    return cast(Durability, durability)


def _timeout(source: dict[str, Any], problems: Problems) -> float | None:
    value = source.get("timeout_ms")
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value <= _LONGEST_MS:
        fix = f"Write milliseconds, more than 0 and at most {_LONGEST_MS} (a day)."
        problems.add("timeout_ms", f"timeout_ms is {value!r}.", fix)
        return None
    return float(value)


def _pin(source: dict[str, Any], problems: Problems) -> bool:
    pin = source.get("pin", False)
    if not isinstance(pin, bool):
        problems.add("pin", f"pin is {pin!r}.", "Write true to keep its models in memory.")
    return pin is True
