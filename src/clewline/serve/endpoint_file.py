"""`endpoints/NAME.yaml`: what answers under a name, as people wrote it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from clewline import config
from clewline.errors import InvalidConfig, NotFound, did_you_mean
from clewline.project import Project
from clewline.serve.conformal_sets import check_option as check_conformal
from clewline.serve.explain_rules import check_explain_rules
from clewline.serve.graph.parser import DeclaredNode, GraphParser
from clewline.serve.graph.problems import Problem, Problems

Durability = Literal["process", "fsync"]

KEYS = (
    *("endpoint", "model", "graph", "nodes", "shadow"),
    *("timeout_ms", "pin", "log", "explain", "conformal"),
)
LOG_KEYS = ("durability",)
PLANNED = ("log.drop", "log.hash", "log.keep", "policy", "slo")
"""Known keys that are not built yet; they are refused, so that nobody relies on them."""

NODE_KEYS = frozenset({"transform", "route", "arms", "combine", "branches", "after", "isolate"})
"""Keys of a node, which stand below `graph:`."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)
_LONGEST_MS = 86_400_000


class EndpointSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint's file: a model or a graph of nodes behind a name."""

    endpoint: str
    root: DeclaredNode | None  # the outermost node; None if something is wrong with it
    is_graph: bool = False  # False: a model alone
    document: dict[str, Any] = {}  # the YAML as it was read
    problems: tuple[Problem, ...] = ()  # that `resolve` reports together with its own

    @property
    def file(self) -> str:
        """Return the path of the file in the project."""
        return f"endpoints/{self.endpoint}.yaml"


def endpoint_names(project: Project) -> list[str]:
    """List the endpoints that have a file, sorted."""
    return sorted(path.stem for path in project.endpoints.glob("*.yaml"))


def read_endpoint(project: Project, name: str, *, refuse: bool = True) -> EndpointSpec:
    """
    Read the file of an endpoint.

    Args:
        project: The project.
        name: Name of the endpoint.
        refuse: Whether to raise an error for its mistakes. Otherwise they stand under
            `problems`, and `resolve` raises them together with those that it finds.

    Raises:
        NotFound: There is no such file.
        InvalidConfig: It is not YAML, or has a key or value that is unknown or not
            built yet; names all mistakes (`problems.InvalidEndpoint`).
    """
    path = project.endpoints / f"{name}.yaml"
    if not path.is_file():
        otherwise = "Create it: `endpoint:` and `model:` are enough."
        hint = did_you_mean(Path(name).stem, endpoint_names(project), otherwise)
        raise NotFound(f"There is no file {path}.", hint)
    spec = parse_endpoint(path.read_bytes(), path, refuse=refuse)
    if spec.endpoint != name and not spec.problems:
        raise InvalidConfig(
            f"{path} says endpoint: {spec.endpoint}.",
            "The file must have the name of its endpoint; rename one of them.",
        )
    return spec


def parse_endpoint(text: bytes, path: Path, *, refuse: bool = True) -> EndpointSpec:
    """Parse the text of an endpoint's file, as `read_endpoint`; errors name `path`."""
    document = config.parse(text, path, "Fix its syntax.")
    if not isinstance(document, dict):
        raise InvalidConfig(
            f"{path} has no keys.", "Write endpoint: NAME and model: NAME@champion."
        )
    try:  # dates become strings and every key a string, as a revision keeps them
        document = msgspec.json.decode(msgspec.json.encode(document))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidConfig(
            f"{path} holds a value that JSON cannot hold: {error}.",
            "Use strings, numbers, lists and mappings.",
        ) from error
    problems = Problems()
    _check_keys(document, KEYS, "", problems)
    is_graph = "graph" in document or "shadow" in document
    root = _root(document, is_graph, problems)
    name = document.get("endpoint")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        fix = "Write a name of lower-case letters, digits, - and _, such as endpoint: income."
        problems.add_wrong_value("endpoint", name, fix)
    _check_options(document, problems)
    if refuse:
        problems.require_none(path)
    return EndpointSpec(
        endpoint=str(name),
        root=root,
        is_graph=is_graph,
        document=document,
        problems=tuple(problems),
    )


def _check_keys(
    found: dict[str, Any], known: tuple[str, ...], prefix: str, problems: Problems
) -> None:
    for key in found:
        full = f"{prefix}{key}"
        if key in known:
            continue
        if full in PLANNED:
            problems.add("planned_key", full)
        elif full in NODE_KEYS:
            problems.add("node_key", full)
        else:
            planned = [k.removeprefix(prefix) for k in PLANNED if k.startswith(prefix)]
            hint = did_you_mean(key, [*known, *planned], did_you_mean(key, known))
            problems.add("unknown_key", full, nearest=hint)


def _root(document: dict[str, Any], is_graph: bool, problems: Problems) -> DeclaredNode | None:
    """Read the node that answers: a model alone, or a graph, perhaps with shadows."""
    nodes = document.get("nodes", {})
    if not isinstance(nodes, dict):
        problems.add_wrong_value("nodes", nodes, "Write NAME: NODE for each.")
        nodes = {}
    parser = GraphParser(nodes, problems)
    model = document.get("model")
    root = None
    if "graph" in document:
        if "model" in document:
            problems.add("two_answers", "model")
        root = parser.node(document["graph"], "graph")
    elif isinstance(model, dict) and "from" not in model:
        fix = "Options of a model stand in a graph: write graph: {model: …, isolate: true}."
        problems.add_wrong_value("model", model, fix)
    elif parser.model(model, "model") is not None:
        root = parser.node(model, "model")
    if "shadow" in document:
        root = parser.wrap("shadow", document["shadow"], root)
    for name in nodes:
        if name not in parser.used:
            problems.add("unused_node", f"nodes.{name}")
    return root


def _check_options(document: dict[str, Any], problems: Problems) -> None:
    timeout, log = document.get("timeout_ms"), document.get("log", {})
    is_number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if timeout is not None and not (is_number and 0 < timeout <= _LONGEST_MS):
        fix = f"Write milliseconds, more than 0 and at most {_LONGEST_MS} (a day)."
        problems.add_wrong_value("timeout_ms", timeout, fix)
    if not isinstance(document.get("pin", False), bool):
        fix = "Write true to keep its models in memory."
        problems.add_wrong_value("pin", document["pin"], fix)
    check_explain_rules(document.get("explain"), problems)
    check_conformal(document.get("conformal"), problems)
    if not isinstance(log, dict):
        problems.add_wrong_value("log", log, "Write log: {durability: process}.")
        return
    _check_keys(log, LOG_KEYS, "log.", problems)
    durability = log.get("durability", "process")
    if durability not in get_args(Durability):
        fix = "Choose process (survives a kill of the server) or fsync (survives a power cut)."
        problems.add_wrong_value("log.durability", durability, fix)
