"""
Reads `graph:`, `nodes:` and `shadow:` of an endpoint's file into declared nodes.

Each place of a graph holds a string (`income@champion`, or the name of a node under
`nodes:`) or a mapping: the key of one kind that answers (`model:`, `route:`, …, or
`then:` with a node), perhaps with kinds that stand before it (`transform:`) and after
it (`after:`). Every key is the name of a node kind, ours or a plug-in's, and its class
reads what stands below. Mistakes are collected, and nothing is raised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from clewline import entry_points
from clewline.errors import did_you_mean
from clewline.formatting import format_size, parse_duration, parse_size
from clewline.serve.graph.functions import is_function
from clewline.serve.graph.problems import Problems
from clewline.serve.graph.tree import NODES, node_kind
from clewline.signature.frame_annotation import FRAMES, Frame

MOST_NODES = 4000
"""Of a graph. A node under `nodes:` counts each time that it is named."""
DEEPEST = 40
"""Nodes that may be nested in each other, functions included."""

LEAST_MEMORY = 128 << 20
"""Least limit on the memory of an isolated model, in bytes: Python and NumPy take 92 MiB."""
LONGEST_CALL_S = 3600.0
"""Greatest limit on the time of a call of an isolated model."""
IMPORT_KEYS = ("from", "digest", "name", "signature", "sample")
ADDRESS = re.compile(r"(hf:|https?://|torch\.hub:)\S+")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

KeyPlace = Literal["answers", "before", "after", "endpoint"]
"""Where the key of a kind stands: alone, before or after a node, or at the top of the file."""

T = TypeVar("T")


class DeclaredImport(msgspec.Struct, frozen=True, kw_only=True):
    """A model file elsewhere that becomes a version here; only `apply` and `check` fetch it."""

    at: str
    source: str  # hf:OWNER/REPO/FILE, or https://…
    digest: str | None = None  # sha256:…; without one it is refused
    name: str | None = None  # of the model that it becomes
    signature: str | None = None  # file of the project that states fields and output
    sample: str | None = None  # file of the project with rows


class ModelReference(msgspec.Struct, frozen=True):
    """A model version by number or alias, or a file from elsewhere, not pinned yet."""

    at: str
    wanted: str | DeclaredImport
    is_preprocessing: bool = False  # whether it must be fitted preprocessing


class FunctionCall(msgspec.Struct, frozen=True):
    """A function or class of the project with its arguments, not pinned yet."""

    at: str
    function: str  # nodes.py:tidy
    frame: Frame | None = None  # None: as its annotation says
    config: dict[str, Any] = {}  # keyword arguments


class DeclaredNode(msgspec.Struct, frozen=True, kw_only=True):
    """A node as an endpoint's file declares it; `settings` may hold references to pin."""

    kind: str
    at: str
    name: str  # in the path of a prediction
    settings: dict[str, Any] = {}
    children: dict[str, DeclaredNode | dict[str, DeclaredNode]] = {}

    def walk(self) -> Iterator[DeclaredNode]:
        """Yield the node and all nodes below it, from the top."""
        yield self
        for child in self.children.values():
            for each in child.values() if isinstance(child, dict) else (child,):
                yield from each.walk()

    def references(self, kind: type[T]) -> list[T]:
        """List the settings of a type in the whole graph, in order."""
        return [found for node in self.walk() for found in _of_type(node.settings, kind)]

    def imports(self) -> list[DeclaredImport]:
        """List the models from elsewhere in the whole graph, in order, each once."""
        wanted = (each.wanted for each in self.references(ModelReference))
        return list(dict.fromkeys(each for each in wanted if isinstance(each, DeclaredImport)))


def _of_type(settings: dict[str, Any], kind: type[T]) -> Iterator[T]:
    for value in settings.values():
        if isinstance(value, kind):
            yield value
        elif isinstance(value, dict):
            yield from _of_type(value, kind)


class WrittenNode(NamedTuple):
    """A node as it is written: what its class reads."""

    kind: str
    value: Any  # below the key of the kind
    level: dict[Any, Any]  # the mapping in which the key stands
    at: str  # path of keys to the node
    value_at: str  # path of keys to the value
    path: str  # of the arms and branches in which it stands, such as challenger/a
    below: Callable[[], DeclaredNode | None]  # reads the node that this one stands before or after

    def declare(
        self, name: str, settings: dict[str, Any] | None, /, **children: Any
    ) -> DeclaredNode | None:
        """Return the node; None if its settings or a child could not be read."""
        if settings is None or any(not child for child in children.values()):
            return None
        return DeclaredNode(
            kind=self.kind, at=self.at, name=name, settings=settings, children=children
        )


def is_model(text: object) -> bool:
    """
    Tell whether a string names a model: a version, an alias, or an address.

    >>> is_model("income@champion"), is_model("scoring")
    (True, False)
    """
    if not isinstance(text, str):
        return False
    return all(text.partition("@")) or ADDRESS.fullmatch(text) is not None


def short_name(model: str) -> str:
    """
    Name an arm or shadow by its model: its alias, or model and number.

    >>> short_name("income@candidate"), short_name("income@3")
    ('candidate', 'income-3')
    """
    name, _, which = model.partition("@")
    short = f"{name}-{which}" if which.isdigit() else which or name
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", short).strip("-.") or "model"


def child_names(value: Any) -> list[str]:
    """List the names of the nodes in a mapping or a list, valid or not."""
    if isinstance(value, list):
        return [short_name(each) for each in value if isinstance(each, str)]
    return [str(name) for name in value] if isinstance(value, dict) else []


class GraphParser:
    """
    Reads the nodes of one file.

    Args:
        nodes: What stands under `nodes:`.
        problems: Where mistakes are added.
    """

    def __init__(self, nodes: dict[str, Any], problems: Problems) -> None:
        self.nodes, self.problems = nodes, problems
        self.used: set[str] = set()
        self._count = self._depth = 0
        self._within: list[str] = []  # names under `nodes:` that are being read
        self._taken: set[str] = set()  # names of nodes in the path of a prediction

    # What the class of a node kind reads its keys with

    def node(self, value: Any, at: str, path: str = "") -> DeclaredNode | None:
        """Read the node at a place; None if something is wrong with it."""
        self._count += 1
        if self._count > MOST_NODES:
            if self._count == MOST_NODES + 1:  # reported once, however many follow
                self.problems.add("too_many_nodes", at, limit=MOST_NODES)
            return None
        if is_model(value) or (isinstance(value, dict) and "from" in value):
            return self._level({"model": value}, at, path, value_at=at)
        if isinstance(value, str):
            return self._reference(value, at, path)
        if isinstance(value, dict):
            return self._level(value, at, path)
        self.problems.add_wrong_value(at, value, "Write NAME@ALIAS, or the mapping of a node.")
        return None

    def is_node(self, value: Any) -> bool:
        """Tell whether a value is written as one node, not as several by name."""
        keys = {"then", "from", *entry_points.names(NODES)}
        return isinstance(value, str) or (isinstance(value, dict) and not keys.isdisjoint(value))

    def named_nodes(
        self, value: Any, at: str, *, least: int = 0, path: str = ""
    ) -> dict[str, DeclaredNode]:
        """Read nodes by name; a list of model names calls each by its alias."""
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            places = [f"{at}[{i}]" for i in range(len(value))]
            entries = list(zip(child_names(value), value, places, strict=True))
        elif isinstance(value, dict):
            entries = [(str(name), each, f"{at}.{name}") for name, each in value.items()]
        else:
            key = at.rpartition(".")[2]
            self.problems.add_wrong_value(at, value, f"Write {key}: with NAME: NODE in it.")
            return {}
        if len(entries) < least:
            some = "one node" if least == 1 else f"{least} nodes"
            self.problems.add("too_few", at, count=len(entries), least=some)
        found: dict[str, DeclaredNode] = {}
        for name, each, place in entries:
            if not _NAME.fullmatch(name):
                self.problems.add("invalid_name", place)
            elif name in found:
                self.problems.add("repeated_name", at, name=name)
            elif (node := self.node(each, place, f"{path}/{name}" if path else name)) is not None:
                found[name] = node
        return found

    def wrap(self, kind: str, value: Any, below: DeclaredNode | None) -> DeclaredNode | None:
        """Read a kind whose key stands at the top of the file, over the whole graph."""
        written = WrittenNode(kind, value, {kind: value}, kind, kind, "", lambda: below)
        node: DeclaredNode | None = node_kind(kind).parse(written, self)
        return node

    def name(self, path: str, last: str) -> str:
        """Return a name that no other node of the graph has: `PATH/LAST`, perhaps with a number."""
        wanted = f"{path}/{last}" if path and last else path or last
        number, name = 1, wanted
        while name in self._taken:
            number += 1
            name = f"{wanted}-{number}"
        self._taken.add(name)
        return name

    def model(self, value: Any, at: str) -> ModelReference | None:
        """Read a model: `NAME@ALIAS`, an address, or a mapping with `from:`."""
        if isinstance(value, dict) and "from" in value:
            wanted = self._import(value, at)
            return None if wanted is None else ModelReference(at, wanted)
        if is_model(value):
            is_address = ADDRESS.fullmatch(value) is not None
            return ModelReference(at, DeclaredImport(at=at, source=value) if is_address else value)
        fix = "Write a version or an alias, such as income@3 or income@champion."
        if isinstance(value, str) and value in self.nodes:
            fix = f"Write then: {value} for a node under nodes:."
        self.problems.add_wrong_value(at, value, fix)
        return None

    def function(self, value: Any, at: str, more: tuple[str, ...] = ()) -> FunctionCall | None:
        """Read `FILE.py:NAME`, or a mapping with `function:`, `frame:`, `config:` and `more`."""
        call = value if isinstance(value, dict) else {"function": value}
        self.problems.add_unknown_keys(call, ("function", "frame", "config", *more), at)
        function, frame, config = (call.get(key) for key in ("function", "frame", "config"))
        before = len(self.problems)
        if not is_function(function):
            self.problems.add("not_a_function", at, value=function)
        if frame not in (None, *FRAMES):
            self.problems.add_wrong_value(f"{at}.frame", frame, did_you_mean(frame, FRAMES))
        if not isinstance(config, dict | None):
            fix = "Write a mapping: the keyword arguments."
            self.problems.add_wrong_value(f"{at}.config", config, fix)
        if len(self.problems) > before:
            return None
        return FunctionCall(at, str(function), frame, config or {})

    def flag(self, mapping: dict[Any, Any], key: str, at: str) -> bool:
        """Read a key that is true or false, false if it is not there."""
        value = mapping.get(key, False)
        if not isinstance(value, bool):
            self.problems.add_wrong_value(f"{at}.{key}", value, "Write true or false.")
        return value is True

    def isolation(self, mapping: dict[Any, Any], at: str) -> bool | dict[str, Any]:
        """Read `isolate:`, which is true, false or a mapping of limits."""
        value, at = mapping.get("isolate", False), f"{at}.isolate"
        if not isinstance(value, dict):
            if not isinstance(value, bool):
                fix = "Write true, or limits: {memory: 2GiB, timeout: 5s}."
                self.problems.add_wrong_value(at, value, fix)
            return value is True
        self.problems.add_unknown_keys(value, ("memory", "timeout"), at)
        limits: dict[str, Any] = {}
        if "memory" in value:
            limits["memory_bytes"] = parse_size(str(value["memory"]))
            if not (limits["memory_bytes"] or 0) >= LEAST_MEMORY:
                fix = f"Write a size of at least {format_size(LEAST_MEMORY)}: 512MiB or 2GiB."
                self.problems.add_wrong_value(f"{at}.memory", value["memory"], fix)
        if "timeout" in value:
            limits["timeout_s"] = parse_duration(str(value["timeout"]))
            if not 0 < (limits["timeout_s"] or 0) <= LONGEST_CALL_S:
                fix = f"Write a time with its unit, at most {LONGEST_CALL_S:.0f}s: 500ms or 5s."
                self.problems.add_wrong_value(f"{at}.timeout", value["timeout"], fix)
        return limits or True

    # How a level is read

    def _reference(self, name: str, at: str, path: str) -> DeclaredNode | None:
        """Read the node under `nodes:` that a string names."""
        if is_function(name):
            self.problems.add("function_as_node", at, value=name)
        elif name not in self.nodes:
            hint = None if self.nodes else "Write a model as NAME@ALIAS."
            self.problems.add("unknown_node", at, value=name, known=self.nodes, nearest=hint)
        elif name in self._within:
            circle = " → ".join([*self._within[self._within.index(name) :], name])
            self.problems.add("circle", at, circle=circle)
        else:
            self.used.add(name)
            self._within.append(name)
            found = self.node(self.nodes[name], f"nodes.{name}", path)
            self._within.pop()
            return found
        return None

    def _level(
        self, level: dict[Any, Any], at: str, path: str, value_at: str | None = None
    ) -> DeclaredNode | None:
        """Read a mapping: a node that answers, and the nodes that stand before and after it."""
        installed = [n for n in entry_points.names(NODES) if node_kind(n).place != "endpoint"]
        places = {key: node_kind(key).place for key in level if key in installed}
        answering = [key for key in level if key == "then" or places.get(key) == "answers"]
        if len(answering) != 1:
            kinds = {name: node_kind(name) for name in installed}
            beside = [key for kind in kinds.values() for key in (*kind.children, *kind.options)]
            self.problems.add_unknown_keys(level, dict.fromkeys(["then", *kinds, *beside]), at)
            if answering:
                self.problems.add("several_kinds", at, kinds=" and ".join(answering))
            else:
                names = [name for name, kind in kinds.items() if kind.place == "answers"]
                self.problems.add("no_kind", at, kinds=", ".join([*names, "then"]))
            return None
        (key,) = answering
        own = () if key == "then" else (*node_kind(key).children, *node_kind(key).options)
        self.problems.add_unknown_keys(level, ("then", *installed, *own), at)
        around: list[tuple[str, Any, str]] = []  # kind, value, path of keys to it
        for kind in places:
            values = level[kind] if isinstance(level[kind], list) else [level[kind]]
            for i, value in enumerate(values if level[kind] is not None else ()):
                index = f"[{i}]" if len(values) > 1 else ""
                around.append((kind, value, f"{at}.{kind}{index}"))
        wrappers = [each for each in reversed(around) if places[each[0]] == "after"]
        wrappers += [each for each in around if places[each[0]] == "before"]  # the outermost first
        if self._depth + 1 + len(wrappers) > DEEPEST:
            self.problems.add("too_deep", at, limit=DEEPEST)
            return None

        def read(outermost: int) -> DeclaredNode | None:
            if outermost < len(wrappers):
                kind, value, place = wrappers[outermost]
                written = WrittenNode(
                    kind, value, level, place, place, path, lambda: read(outermost + 1)
                )
            elif key == "then":
                return self.node(level["then"], f"{at}.then", path)
            else:
                kind, place = key, value_at or f"{at}.{key}"
                written = WrittenNode(kind, level[key], level, at, place, path, lambda: None)
            found: DeclaredNode | None = node_kind(kind).parse(written, self)
            return found

        self._depth += 1 + len(wrappers)
        node = read(0)
        self._depth -= 1 + len(wrappers)
        return node

    def _import(self, value: dict[Any, Any], at: str) -> DeclaredImport | None:
        """Read `{from: …, digest: …, name: …}`: a model file that becomes a version here."""
        before = len(self.problems)
        self.problems.add_unknown_keys(value, IMPORT_KEYS, at)
        source, name, digest = value.get("from"), value.get("name"), value.get("digest")
        files = {key: value[key] for key in ("signature", "sample") if key in value}
        checks = [
            ("from", isinstance(source, str) and ADDRESS.fullmatch(source),
             "Write hf:OWNER/REPO/PATH/FILE or https://HOST/FILE."),
            ("name", isinstance(name, str) and name,
             "Write the name that the model gets here, such as name: detector."),
            ("digest", digest is None or (isinstance(digest, str) and _DIGEST.fullmatch(digest)),
             "Write sha256: and the 64 lower-case hexadecimal digits of the file's SHA-256."),
            *((key, isinstance(path, str) and path, "Write a path from the project's folder.")
              for key, path in files.items()),
        ]  # fmt: skip
        for key, is_good, fix in checks:
            if not is_good:
                self.problems.add_wrong_value(f"{at}.{key}", value.get(key), fix)
        if len(self.problems) > before:
            return None
        return DeclaredImport(at=at, source=str(source), digest=digest, name=name, **files)
