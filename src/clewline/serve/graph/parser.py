"""
The grammar of `graph:`, `nodes:` and `shadow:` in an endpoint's file.

At any level stands a text (`income@champion`, or the name of a node under
`nodes:`) or a mapping: what to do before (`transform:`), one of `model:`,
`then:`, `route:` with `arms:`, `combine:` with `branches:` or `kind:`, and what
to do after (`after:`). Everything that is wrong is entered, nothing is raised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, get_args

import msgspec

from clewline.errors import NotSupported
from clewline.serve.graph import declared, model_import
from clewline.serve.graph.declared import Call, Node
from clewline.serve.graph.functions import FRAMES, is_function
from clewline.serve.graph.problems import Problems, nearest
from clewline.serve.graph.routing import combine_config, route_config
from clewline.signature.field import Field, Kind

CORES = ("model", "then", "route", "combine", "kind")
"""What a level may be; exactly one of them stands in it."""

BESIDE = {
    "model": ("pin", "isolate"),
    "then": (),
    "route": ("arms",),
    "combine": ("branches",),
    "kind": (),
}
"""The keys that go with each."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", re.ASCII)

MOST_NODES = 4000
"""Of a graph, where each mention of a node under `nodes:` counts anew."""
DEEPEST = 40
"""So many nodes may stand one in another, functions among them."""


def is_model(text: object) -> bool:
    """
    Whether a text says which model: a version, an alias, or where one is to be had.

    >>> is_model("income@champion"), is_model("scoring")
    (True, False)
    """
    if not isinstance(text, str):
        return False
    return all(text.partition("@")) or model_import.ADDRESS.fullmatch(text) is not None


def short_name(model: str) -> str:
    """
    Name an arm or shadow by its model: its alias, or model and number.

    >>> short_name("income@candidate"), short_name("income@3")
    ('candidate', 'income-3')
    """
    name, _, which = model.partition("@")
    short = f"{name}-{which}" if which.isdigit() else which or name
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", short).strip("-.") or "model"


class Grammar:
    """
    Reads the nodes of one file.

    Args:
        nodes: What stands under `nodes:`.
        problems: Where what is wrong is entered.
    """

    def __init__(self, nodes: dict[str, Any], problems: Problems) -> None:
        self.nodes, self.problems = nodes, problems
        self.used: set[str] = set()
        self._count = self._depth = 0  # of nodes read, and of those that we are inside of
        self._within: list[str] = []  # named nodes that we are inside of
        self._taken: set[str] = set()  # names of nodes in the path of a prediction

    def node(self, value: Any, at: str, path: str = "") -> Node | None:
        """
        Read a node.

        Args:
            value: What the file says.
            at: Where it says so.
            path: The arms and branches that lead to it: `a/b`.

        Returns:
            The node; None when it makes no sense, which is entered.
        """
        self._count += 1
        if self._count > MOST_NODES:
            if self._count == MOST_NODES + 1:  # said once, however many follow
                self.problems.add(at, f"There are more than {MOST_NODES} nodes.", "Take fewer.")
            return None
        if is_model(value):
            model = model_import.of_text(value, at)
            return declared.Model(at=at, name=self._named(path or "model"), model=model)
        if isinstance(value, str):
            return self._reference(value, at, path)
        if isinstance(value, dict) and "from" in value:
            return self._elsewhere(value, at, path, {})
        if isinstance(value, dict):
            return self._below(value, at, path)
        self.problems.add(at, f"{at} is {value!r}.", "Write NAME@ALIAS, or a mapping of a node.")
        return None

    def shadows(self, value: Any, of: Node | None) -> Node | None:
        """Read the top-level `shadow:`: a list of nodes, or a mapping of names to nodes."""
        found = self._children(value, "shadow", "shadow:", least=1)
        if of is None or not found:
            return of
        return declared.Shadow(at="shadow", name=self._named("shadow"), of=of, shadows=found)

    # A node by its name

    def _reference(self, name: str, at: str, path: str) -> Node | None:
        if is_function(name):
            self.problems.add(
                at, f"{at} is {name}, a function.", f"Write transform: {name} with a model."
            )
        elif name not in self.nodes:
            hint = nearest(name, self.nodes) if self.nodes else "Write a model as NAME@ALIAS."
            self.problems.add(at, f"{at} is {name!r}, which is no node under nodes:.", hint)
        elif name in self._within:
            circle = " → ".join([*self._within[self._within.index(name) :], name])
            self.problems.add(at, f"{at} closes a circle: {circle}.", "Take one of them out.")
        else:
            self.used.add(name)
            self._within.append(name)
            found = self.node(self.nodes[name], f"nodes.{name}", path)
            self._within.pop()
            return found
        return None

    # A mapping

    def _below(self, level: dict[Any, Any], at: str, path: str) -> Node | None:
        functions = [each for key in ("transform", "after") for each in _listed(level.get(key))]
        deeper = 1 + len(functions)
        if self._depth + deeper > DEEPEST:
            self.problems.add(
                at, f"More than {DEEPEST} nodes stand one in another.", "Make one function of many."
            )
            return None
        self._depth += deeper
        found = self._level(level, at, path)
        self._depth -= deeper
        return found

    def _level(self, level: dict[Any, Any], at: str, path: str) -> Node | None:
        cores = [key for key in CORES if key in level]
        if len(cores) != 1:
            self._no_core(level, cores, at)
            return None
        core = cores[0]
        if core != "kind":
            known = ("transform", core, *BESIDE[core], "after")
            self._known(level, (*known, *(key for key in CORES if key != core)), at)
        before = _listed(level.get("transform"))
        transforms = [
            self._transform(each, _item(f"{at}.transform", i, before), path)
            for i, each in enumerate(before)
        ]
        after = _listed(level.get("after"))
        calls = [
            self._call(each, _item(f"{at}.after", i, after), ()) for i, each in enumerate(after)
        ]
        node = getattr(self, f"_{core}")(level, at, path)
        for made in reversed(transforms):
            node = made(node) if node is not None and made is not None else None
        for call in calls:
            node = self._after(call, node, path)
        return node  # type: ignore[no-any-return]

    def _no_core(self, level: dict[Any, Any], cores: list[str], at: str) -> None:
        known = ("transform", *CORES, "arms", "branches", "after", "pin", "isolate")
        self._known(level, known, at)
        told = f"has {' and '.join(cores)}" if cores else f"has none of {', '.join(CORES)}"
        self.problems.add(at, f"{at} {told}.", "Write exactly one of them in a node.")

    def _known(self, found: dict[Any, Any], known: Iterable[str], at: str) -> None:
        names = list(known)
        for key in found:
            if key not in names:
                self.problems.add(
                    f"{at}.{key}",
                    f"the key {at}.{key} is not known.",
                    nearest(key, names, f"{at}."),
                )

    # The kinds of a level

    def _model(self, level: dict[Any, Any], at: str, path: str) -> Node | None:
        text = level["model"]
        flags = {key: self._flag(level, key, at) for key in BESIDE["model"]}
        if isinstance(text, dict):
            return self._elsewhere(text, f"{at}.model", path, flags)
        if not is_model(text):
            hint = "Write a version or an alias, such as income@3 or income@champion."
            if isinstance(text, str) and text in self.nodes:
                hint = f"Write then: {text} for a node under nodes:."
            self.problems.add(f"{at}.model", f"{at}.model is {text!r}.", hint)
            return None
        model = model_import.of_text(text, f"{at}.model")
        return declared.Model(at=at, name=self._named(path or "model"), model=model, **flags)

    def _elsewhere(
        self, value: dict[Any, Any], at: str, path: str, flags: dict[str, bool]
    ) -> Node | None:
        model = model_import.read(value, at, self.problems)
        if model is None:
            return None
        return declared.Model(at=at, name=self._named(path or "model"), model=model, **flags)

    def _then(self, level: dict[Any, Any], at: str, path: str) -> Node | None:
        return self.node(level["then"], f"{at}.then", path)

    def _route(self, level: dict[Any, Any], at: str, path: str) -> Node | None:
        name = self._named(_joined(path, "route"))
        arms = self._children(level.get("arms"), f"{at}.arms", "arms:", least=1, path=path)
        how, config = route_config(
            level["route"], _names(level.get("arms")), f"{at}.route", self.problems
        )
        if not arms:
            return None
        return declared.Route(at=at, name=name, how=how, config=config, arms=arms)

    def _combine(self, level: dict[Any, Any], at: str, path: str) -> Node | None:
        name = self._named(_joined(path, "combine"))
        where = f"{at}.branches"
        branches = self._children(level.get("branches"), where, "branches:", least=2, path=path)
        how, config = combine_config(
            level["combine"], _names(level.get("branches")), f"{at}.combine", self.problems
        )
        call = self._call(config.pop("call"), f"{at}.combine", ()) if "call" in config else None
        model = config.pop("model", None)
        if not branches:
            return None
        return declared.Combine(
            at=at, name=name, how=how, config=config, branches=branches, call=call, model=model
        )

    def _kind(self, level: dict[Any, Any], at: str, path: str) -> Node | None:
        from clewline.serve.graph.builder import (
            node_kind,  # what runs models, which most files need not
        )

        kind = level["kind"]
        try:
            offered = node_kind(str(kind))
        except NotSupported as error:
            self.problems.add(
                f"{at}.kind", f"{at}.kind is {kind!r}. {error.message}", error.fix or ""
            )
            return None
        name = self._named(_joined(path, str(kind)))
        below: dict[str, Any] = {}
        for key in getattr(offered, "children", ()):
            if isinstance(level.get(key), dict) and not any(
                core in level[key] for core in (*CORES, "from")
            ):
                below[key] = self._children(level[key], f"{at}.{key}", f"{key}:", path=path)
            elif key in level:
                below[key] = self.node(level[key], f"{at}.{key}", path)
        own = {*below, "kind", "transform", "after"}
        config = {str(key): value for key, value in level.items() if key not in own}
        if any(child is None for child in below.values()):
            return None
        return declared.Other(at=at, name=name, kind=str(kind), config=config, children=below)

    def _children(
        self, value: Any, at: str, said: str, *, least: int = 0, path: str = ""
    ) -> dict[str, Node]:
        """Nodes by name; a list of texts names each by its alias."""
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            names = _names(value)
            entries = list(
                zip(names, value, [f"{at}[{i}]" for i in range(len(value))], strict=True)
            )
        elif isinstance(value, dict):
            entries = [(str(name), each, f"{at}.{name}") for name, each in value.items()]
        else:
            self.problems.add(at, f"{at} is {value!r}.", f"Write {said} with NAME: NODE in it.")
            return {}
        if len(entries) < least:
            more = "one node" if least == 1 else f"{least} nodes"
            self.problems.add(at, f"{at} has {len(entries)}.", f"Write at least {more}.")
        return self._by_name(entries, at, path)

    def _by_name(self, entries: list[tuple[str, Any, str]], at: str, path: str) -> dict[str, Node]:
        found: dict[str, Node] = {}
        for name, value, where in entries:
            if not _NAME.fullmatch(name):
                fix = "Use letters, digits, ., - and _."
                self.problems.add(where, f"{where} has a name that cannot be one.", fix)
            elif name in found:
                fix = "Write a mapping, with a name of its own for each."
                self.problems.add(where, f"{at} names {name} twice.", fix)
            elif (node := self.node(value, where, _joined(path, name))) is not None:
                found[name] = node
        return found

    # Functions

    def _transform(self, value: Any, at: str, path: str) -> Callable[[Node], Node] | None:
        """A transform still without what comes after it."""
        model = value.get("model") if isinstance(value, dict) else value
        if isinstance(model, str) and is_model(model):
            return self._fitted(model, value if isinstance(value, dict) else {}, at, path)
        call = self._call(value, at, ("fields",))
        if call is None:
            return None
        name = self._named(_joined(path, call.function.rpartition(":")[2]))
        fields = self._fields(value.get("fields") if isinstance(value, dict) else None, at)
        return lambda then: declared.Transform(
            at=at, name=name, then=then, call=call, fields=fields
        )

    def _fitted(
        self, model: str, given: dict[Any, Any], at: str, path: str
    ) -> Callable[[Node], Node]:
        """A fitted preprocessing, still without what comes after it."""
        self._known(given, ("model", "isolate"), at)
        isolate = self._flag(given, "isolate", at)
        name = self._named(_joined(path, short_name(model).partition("@")[0]))
        return lambda then: declared.Transform(
            at=at, name=name, then=then, model=model, isolate=isolate
        )

    def _after(self, call: Call | None, of: Node | None, path: str) -> Node | None:
        if call is None or of is None:
            return None
        name = self._named(_joined(path, call.function.rpartition(":")[2]))
        return declared.After(at=call.at, name=name, of=of, call=call)

    def _call(self, value: Any, at: str, more: tuple[str, ...]) -> Call | None:
        given = value if isinstance(value, dict) else {"function": value}
        self._known(given, ("function", "frame", "config", *more), at)
        function, frame, config = (given.get(key) for key in ("function", "frame", "config"))
        before = len(self.problems)
        if not is_function(function):
            fix = "Write FILE.py:NAME, such as nodes.py:tidy."
            self.problems.add(at, f"{at} is {function!r}, which names no function.", fix)
        if frame not in (None, *FRAMES):
            hint = nearest(frame, FRAMES)
            self.problems.add(f"{at}.frame", f"{at}.frame is {frame!r}.", hint)
        if not isinstance(config, dict | None):
            fix = "Write a mapping: the keyword arguments."
            self.problems.add(f"{at}.config", f"{at}.config is {config!r}.", fix)
        if len(self.problems) > before:
            return None
        return Call(at=at, function=str(function), frame=frame, config=config or {})

    def _fields(self, value: Any, at: str) -> tuple[Field, ...] | None:
        if value is None:
            return None
        if not isinstance(value, dict):
            fix = "Write NAME: KIND for each, such as age: integer."
            self.problems.add(f"{at}.fields", f"{at}.fields is {value!r}.", fix)
            return None
        found = (self._field(str(name), said, f"{at}.fields") for name, said in value.items())
        return tuple(field for field in found if field is not None)

    def _field(self, name: str, said: Any, at: str) -> Field | None:
        plain = {"kind": said} if isinstance(said, str) else said
        where = f"{at}.{name}"
        try:
            field = msgspec.convert({**plain, "name": name}, Field)
        except (msgspec.ValidationError, TypeError) as error:
            kind = plain.get("kind") if isinstance(plain, dict) else plain
            hint = nearest(kind, get_args(Kind))
            self.problems.add(where, f"{where} is {said!r}: {error}.", hint)
            return None
        unknown = [key for key in plain if key not in Field.__struct_fields__]
        self._known(dict.fromkeys(unknown), Field.__struct_fields__[1:], where)
        return field

    # Small things

    def _flag(self, level: dict[Any, Any], key: str, at: str) -> bool:
        value = level.get(key, False)
        if not isinstance(value, bool):
            self.problems.add(f"{at}.{key}", f"{at}.{key} is {value!r}.", "Write true or false.")
        return value is True

    def _named(self, name: str) -> str:
        """A name that no other node of the graph has."""
        number, made = 1, name
        while made in self._taken:
            number += 1
            made = f"{name}-{number}"
        self._taken.add(made)
        return made


def _names(value: Any) -> list[str]:
    """The names of nodes in a mapping or a list, whether they make sense or not."""
    if isinstance(value, list):
        return [short_name(each) for each in value if isinstance(each, str)]
    return [str(name) for name in value] if isinstance(value, dict) else []


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _item(at: str, place: int, of: list[Any]) -> str:
    return at if len(of) == 1 else f"{at}[{place}]"


def _joined(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name
