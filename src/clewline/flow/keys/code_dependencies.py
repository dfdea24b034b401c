"""
The code and constants that a function reaches, each with a digest of its own.

The walk starts at the live function and follows what its syntax tree names:
through globals, closures, defaults, attributes of modules and base classes. What
runs is held against what the file says, so a file that was edited since it was
imported is noticed. Where names cannot be followed the walk widens, to the whole
module, then to all files of the project; where that is not enough either, it
says why.
"""

from __future__ import annotations

import ast
import builtins
import copy
import importlib
import os
import sys
import types
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blake3 import blake3

from clewline.flow.code import origin
from clewline.flow.code.firstparty import walk
from clewline.flow.keys.guards import MISSING, Guards, cell_content, fingerprint, function_state
from clewline.flow.keys.modules import absolute, imported_namespaces, namespace_of, package_of
from clewline.flow.keys.object_content import KeyWalk
from clewline.flow.keys.references import Imported, Reference, Scan, bindings, dotted, scan, text_of
from clewline.flow.keys.source_files import (
    Definition,
    SourceFile,
    code_content,
    inner_codes,
    is_transformed,
    source,
    stamp_of,
)
from clewline.flow.values.canonical import LEAVES
from clewline.flow.values.pieces import Undigestible, framed, joined

WIDENING = {"exec", "eval", "globals", "vars", "compile"}
"""Builtins through which code can get at any name of its module."""

LOADING = {"runpy", "pkgutil", "importlib.machinery", "importlib.util", "zipimport"}
"""Modules of Python's that load code by a name or a path."""

SOURCE_READING = {"__doc__", "getdoc", "getsource", "getsourcelines", "f_lineno", "co_firstlineno"}
"""Attributes that tell what a key leaves out: docstrings, comments, lines."""

ATTRIBUTE_BY_NAME = {"getattr", "setattr", "delattr", "hasattr"}
SHORT = 60  # characters of a constant that are shown as they are


@dataclass(slots=True)
class NameScope:
    """Where a name of a piece of code is looked up."""

    label: str  # of the node, `helpers.py:scale`
    file: str  # `helpers.py`
    namespace: dict[str, Any]
    closure: dict[str, Any] = field(default_factory=dict)


class CodeDependencies:
    """One walk. Fill it with `piece` or `function`, then `drain`."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.code: dict[str, str] = {}
        self.constants: dict[str, str] = {}
        self.modules: set[str] = set()  # of packages
        self.environ: set[str] = set()
        self.reasons: list[str] = []
        self.guards = Guards()
        self.walk = KeyWalk(self, self.root)
        self.names: dict[int, str] = {}  # id of a function, class or module → name of its node
        self.held: list[Any] = []  # so that no id is used twice
        self.queue: deque[tuple[str, Any]] = deque()

    # ── what is met ──────────────────────────────────────────────────────────

    def piece(self, value: Any, label: str) -> bytes:
        """The canonical piece of a value; code in it becomes part of the walk."""
        try:
            return self.walk.piece(value)
        except Undigestible as error:
            self.give_up(f"{label} is a {error.value_type} that {error.reason}")
            return framed("unknown", b"")

    def give_up(self, reason: str) -> None:
        """State why no key can be made."""
        if reason not in self.reasons:
            self.reasons.append(reason)

    def function(self, fn: types.FunctionType) -> bytes:
        """Meet a function: the piece that stands for it."""
        step = getattr(fn, "__clewline_step__", None)
        fn = step.fn if step is not None else getattr(fn, "__clewline_reader__", fn)
        space = fn.__globals__
        if origin.of_globals(space) == "own":
            return framed("code", self.node(fn, f"{self.file(space)}:{fn.__qualname__}").encode())
        self.package(str(space.get("__name__", "")))
        name = framed("library", f"{fn.__module__}:{fn.__qualname__}".encode())
        return name if is_published(fn) else joined("wrapper", (name, *self.wrapped(fn)))

    def wrapped(self, fn: types.FunctionType) -> Iterator[bytes]:
        """What a library's wrapper, made at run time, wraps: a function of ours may be in it."""
        inner = getattr(fn, "__wrapped__", None)
        registry = getattr(fn, "registry", None)
        if inner is not None:
            yield self.walk.piece(inner)
        if isinstance(registry, types.MappingProxyType):  # functools.singledispatch
            yield from sorted(self.walk.piece(pair) for pair in registry.items())
        elif inner is None:
            yield from (self.walk.piece(cell_content(cell)) for cell in fn.__closure__ or ())

    def cls(self, cls: type) -> bytes:
        """Meet a class: the piece that stands for it."""
        if origin.of_type(cls) == "own":
            space = vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}
            label = f"{self.file(space)}:{cls.__qualname__}"
            return framed("code", self.node(cls, label).encode())
        self.package(cls.__module__)
        return framed("library", f"{cls.__module__}:{cls.__qualname__}".encode())

    def module(self, module: types.ModuleType) -> bytes:
        """Meet a module as a value: all of it can be reached."""
        if origin.of_module(module) == "own":
            name = self.node(module, f"{self.file(vars(module))} (whole)")
            return framed("code", name.encode())
        self.package(module.__name__)
        return framed("library", module.__name__.encode())

    def package(self, module: str) -> None:
        """Meet a module of a package."""
        if module and module.partition(".")[0] not in sys.stdlib_module_names:
            self.modules.add(module)

    def node(self, value: Any, label: str) -> str:
        """The name of the node of a function, class or module, which waits to be walked."""
        known = self.names.get(id(value))
        if known is None:
            taken = set(self.names.values())
            known = next(
                name
                for number in range(1, len(taken) + 2)
                if (name := label if number == 1 else f"{label} #{number}") not in taken
            )
            self.names[id(value)] = known
            self.held.append(value)
            self.queue.append((known, value))
        return known

    def file(self, space: dict[str, Any]) -> str:
        """A module's file relative to the project; its import name when it lies elsewhere."""
        path = space.get("__file__")
        if isinstance(path, str):
            return self.relative(path) or str(space.get("__name__"))
        return str(space.get("__name__", "unknown"))

    def relative(self, path: str) -> str | None:
        """A path relative to the project, or None when it lies outside of it."""
        full = os.path.abspath(path)
        inside = full.startswith(self.root + os.sep)
        return full[len(self.root) + 1 :].replace(os.sep, "/") if inside else None

    # ── the walk ─────────────────────────────────────────────────────────────

    def drain(self) -> None:
        """Walk until nothing waits, then add what modules do as they load."""
        self.walk_queue()
        loaded: set[str] = set()
        while spaces := self.reached_modules(loaded):
            for space in spaces:
                self.effects(space)
            self.walk_queue()

    def walk_queue(self) -> None:
        """Walk every node that waits."""
        while self.queue:
            name, value = self.queue.popleft()
            try:
                self.enter(name, value)
            except RecursionError:
                self.give_up(f"{name} is nested too deeply to be read")

    def enter(self, name: str, value: Any) -> None:
        """Walk one node."""
        if isinstance(value, types.FunctionType):
            self.enter_function(name, value)
        elif isinstance(value, type):
            self.enter_class(name, value)
        else:
            self.enter_module(name, value)

    def enter_function(self, name: str, fn: types.FunctionType) -> None:
        """Walk a function: its tree, and what it holds beside it."""
        scope = NameScope(name, self.file(fn.__globals__), fn.__globals__)
        self.hold_function(fn, scope)
        found = self.definitions(name, fn)
        if found is None:
            return self.enter_code(name, fn, scope)
        found = [own_part(tree, scope) for tree in found]
        texts = list(map(ast.dump, found))
        if len(found) > 1 or is_transformed(fn.__globals__):
            texts.append(repr(code_content(fn.__code__)))  # which of them it is
        self.code[name] = self.digest(texts, self.follow_all(found, scope))
        return None

    def hold_function(self, fn: types.FunctionType, scope: NameScope) -> None:
        """Defaults and closure of a function, as constants or code."""
        self.guards.functions.append((fn, function_state(fn)))
        defaults = (fn.__defaults__, fn.__kwdefaults__)
        if any(defaults):
            self.constant(f"{scope.label} defaults", defaults)
        names = fn.__code__.co_freevars
        for free, cell in zip(names, fn.__closure__ or (), strict=True):
            content = cell_content(cell)
            self.guards.cells.append((cell, content))
            scope.closure[free] = content
            if content is not MISSING and free != "__class__":
                self.constant(f"{scope.label} closure {free}", content)

    def definitions(self, name: str, fn: types.FunctionType) -> list[Definition] | None:
        """The trees of a function; None when there is no source, or not that of what runs."""
        read = source(fn.__code__.co_filename)
        if read is None:
            return None
        found = read.definition(fn.__code__)
        if found is None and is_transformed(fn.__globals__):
            return read.at_line(fn.__code__) or None
        if found is None:
            self.give_up(f"{name} was edited on disk after it was imported")
        return found

    def enter_code(self, name: str, fn: types.FunctionType, scope: NameScope) -> None:
        """Walk a function without source by its compiled code; every name in it counts."""
        codes = [fn.__code__, *inner_codes(fn.__code__)]
        used = dict.fromkeys(part for code in codes for part in code.co_names)
        references = [Reference((part,)) for part in used if part in scope.namespace]
        references += [Reference((part,)) for part in used if part in WIDENING]
        followed = self.follow(Scan(references), scope)
        self.code[name] = self.digest([repr(code_content(fn.__code__))], followed)

    def enter_class(self, name: str, cls: type) -> None:
        """Walk a class: its tree, bases, metaclass, methods and attributes as they are now."""
        module = sys.modules.get(cls.__module__)
        space = vars(module) if module is not None else {}
        scope = NameScope(name, self.file(space), space)
        self.guards.classes.append((cls, dict(vars(cls))))
        path = space.get("__file__")
        read = source(path) if isinstance(path, str) else None
        trees = read.classes.get(cls.__qualname__, []) if read else []
        texts = list(map(ast.dump, trees))
        bases = [self.piece(base, f"a base of {name}") for base in (type(cls), *cls.__mro__[1:])]
        members = list(self.members(cls, scope, bool(trees)))
        pieces = [*bases, *members, *self.follow_all(trees, scope)]
        self.code[name] = self.digest(texts, pieces)

    def members(self, cls: type, scope: NameScope, has_tree: bool) -> Iterator[bytes]:
        """What a class holds now, which may not be what its tree says."""
        for name, value in list(vars(cls).items()):
            if name.startswith("__") and not callable(unwrapped(value)):
                continue  # the interpreter's own; annotations stand in the tree
            for fn in functions_of(value):
                yield from self.member(name, fn, cls, scope)
            if is_data(value) and not name.startswith("_abc_"):
                self.constant(f"{scope.label}.{name}", value)

    def member(
        self, name: str, fn: types.FunctionType, cls: type, scope: NameScope
    ) -> Iterator[bytes]:
        """One method: part of the class's tree, or put there from elsewhere."""
        file = fn.__code__.co_filename
        generated = file.startswith("<") or origin.of_file(file) != "own"
        inherent = fn.__qualname__.startswith(cls.__qualname__ + ".")
        if generated and name.startswith("__"):
            return  # dataclass and its like: made of the fields, which count by themselves
        if not inherent or generated or "<locals>" in fn.__qualname__:
            yield joined("member", (name.encode(), self.piece(fn, f"{scope.label}.{name}")))
            return
        self.definitions(f"{scope.label}.{name}", fn)
        inner = NameScope(f"{scope.label}.{name}", scope.file, fn.__globals__)
        self.hold_function(fn, inner)

    def enter_module(self, name: str, module: types.ModuleType) -> None:
        """Walk a whole module: all its source, and every name that it binds."""
        space, path = vars(module), getattr(module, "__file__", None)
        read = source(path) if isinstance(path, str) else None
        if read is None:
            return self.enter_binary(name, path)
        scope = NameScope(name, self.file(space), space)
        bound = [Reference((part,)) for part in bindings(read.tree) if part in space]
        found = scan(read.tree)
        found.imports.clear()  # their names are bound here, and followed as such
        found.references += bound
        self.code[name] = self.digest([ast.dump(read.tree)], self.follow(found, scope))
        return None

    def enter_binary(self, name: str, path: str | None) -> None:
        """A module without source: a compiled extension of the project counts by its bytes."""
        if path is None or not os.path.isfile(path):
            if path is not None or "whole" in name:
                self.give_up(f"{name} has no source that can be read")
            return
        self.guards.files.append((path, stamp_of(path)))
        self.code[name] = blake3(Path(path).read_bytes()).hexdigest()

    def digest(self, texts: Iterable[str], pieces: Iterable[bytes]) -> str:
        """The digest of one node."""
        content = [framed("text", text.encode("utf-8", "surrogatepass")) for text in texts]
        return blake3(b"".join([*content, *sorted(set(pieces))])).hexdigest()

    # ── names ────────────────────────────────────────────────────────────────

    def follow_all(self, trees: Iterable[Definition], scope: NameScope) -> list[bytes]:
        """Follow what several trees refer to."""
        return [piece for tree in trees for piece in self.follow(scan(tree), scope)]

    def follow(self, found: Scan, scope: NameScope) -> list[bytes]:
        """Follow references; the pieces of the code that they lead to, each with its name."""
        pieces = [self.resolve(reference, scope) for reference in found.references]
        for imported in found.imports:
            self.imported(imported, scope)
        if "__subclasses__" in found.attributes:
            self.widen_to_project(scope)
        if told := sorted(SOURCE_READING & found.attributes):
            self.give_up(
                f"{scope.label} asks for {told[0]}, and keys leave out how code is written"
            )
        return [piece for piece in pieces if piece]

    def resolve(self, reference: Reference, scope: NameScope) -> bytes:
        """Follow one reference to what it is now."""
        name, *rest = reference.chain
        value = self.lookup(name, scope)
        label = f"{scope.file}:{name}"
        while rest and isinstance(value, types.ModuleType):
            if origin.of_module(value) != "own":
                return self.library(value, rest, reference, scope)
            inner = self.attribute(value, rest[0])
            if inner is MISSING:
                break
            label = f"{self.file(vars(value))}:{rest[0]}"
            value, rest = inner, rest[1:]
        return self.use(value, label, reference, scope)

    def lookup(self, name: str, scope: NameScope) -> Any:
        """What a name means here: a closure's cell, a global, a builtin, or nothing yet."""
        if name in scope.closure:
            return scope.closure[name]
        value = scope.namespace.get(name, MISSING)
        self.guards.bindings.append((scope.namespace, name, value))
        return getattr(builtins, name, MISSING) if value is MISSING else value

    def attribute(self, module: types.ModuleType, name: str) -> Any:
        """An attribute of a module of ours, without running its `__getattr__`."""
        value = vars(module).get(name, MISSING)
        self.guards.bindings.append((vars(module), name, value))
        return value

    def use(self, value: Any, label: str, reference: Reference, scope: NameScope) -> bytes:
        """What a resolved name contributes: code as a piece, anything else as a constant."""
        name = reference.chain[0]
        if value is MISSING or name in ("__file__", "__name__", "__package__", "__spec__"):
            return b""  # where a project lies must not matter; what is unbound is guarded
        if value is os.environ or value is os.getenv:
            self.environment(reference, reference.chain[1:], scope)
        elif getattr(builtins, name, None) is value and isinstance(
            value, types.BuiltinFunctionType
        ):
            self.builtin(name, reference, scope)
        elif value is importlib.import_module:
            self.dynamic_import(reference, scope)
        elif is_code(value) and getattr(value, "__module__", None) in LOADING:
            self.widen_to_everything(scope)
        elif value is os.path.expandvars:
            self.environ.add(f"?{scope.label}")
        elif is_code(value):
            piece = self.piece(value, label)
            return joined("refers", (".".join(reference.chain).encode(), piece))
        else:
            self.constant(label, value)
        return b""

    def library(
        self, module: types.ModuleType, rest: list[str], reference: Reference, scope: NameScope
    ) -> bytes:
        """A reference into a library's module; three of Python's own need a closer look."""
        if module is os and rest[0] in ("environ", "environb", "getenv", "getenvb"):
            self.environment(reference, tuple(rest[1:]), scope)
        elif module is importlib and rest[0] == "import_module":
            self.dynamic_import(reference, scope)
        elif module is sys and rest[0] == "modules":
            self.widen_to_project(scope)
        name = module.__name__
        for part in rest:
            if not isinstance(vars(module).get(part), types.ModuleType):
                break
            module = vars(module)[part]
            name = module.__name__
        if name in LOADING:
            self.widen_to_everything(scope)
        elif module is os.path and rest[-1] == "expandvars":
            self.environ.add(f"?{scope.label}")
        self.package(name)
        return b""

    def constant(self, label: str, value: Any) -> None:
        """Meet a value that is no code: it counts by its content."""
        piece = self.piece(value, f"the value {label}")
        self.constants[label] = shown(value, piece)
        if type(value) not in LEAVES:
            self.guards.values.append((value, fingerprint(value)))

    # ── what cannot be read from the names ───────────────────────────────────

    def builtin(self, name: str, reference: Reference, scope: NameScope) -> None:
        """Builtins that reach further than their name says."""
        if name in WIDENING and not (name == "vars" and reference.call and reference.call.args):
            self.widen_to_module(scope)
        elif name in ATTRIBUTE_BY_NAME:
            self.attribute_by_name(reference, scope)
        elif name == "__import__":
            self.dynamic_import(reference, scope)

    def attribute_by_name(self, reference: Reference, scope: NameScope) -> None:
        """`getattr(x, name)`: a constant is an attribute like any other, a variable widens."""
        arguments = reference.call.args if reference.call else []
        chain = dotted(arguments[0]) if len(arguments) > 1 else None
        wanted = text_of(arguments[1]) if len(arguments) > 1 else None
        if chain is not None and wanted is not None:
            self.resolve(Reference((*chain, wanted)), scope)
        elif wanted is None and (chain is None or not self.is_library(chain[0], scope)):
            self.widen_to_module(scope)

    def is_library(self, name: str, scope: NameScope) -> bool:
        """Whether a name is a library's module or class, which counts by its version."""
        value = self.lookup(name, scope)
        if isinstance(value, types.ModuleType):
            return origin.of_module(value) != "own"
        return isinstance(value, type) and origin.of_type(value) != "own"

    def environment(self, reference: Reference, rest: tuple[str, ...], scope: NameScope) -> None:
        """An environment variable that is read: by a constant name it becomes part of the key."""
        argument = reference.index
        if reference.call is not None and reference.call.args and rest in ((), ("get",)):
            argument = reference.call.args[0]
        name = text_of(argument) if argument is not None else None
        self.environ.add(f"?{scope.label}" if name is None else name)

    def dynamic_import(self, reference: Reference, scope: NameScope) -> None:
        """`import_module(x)`: a constant is an import like any other, a variable widens."""
        arguments = reference.call.args if reference.call else []
        name = text_of(arguments[0]) if arguments else None
        if name is None or name.startswith("."):
            self.widen_to_everything(scope)
        else:
            self.imported(Imported(0, name, None, ""), scope)

    def widen_to_module(self, scope: NameScope) -> None:
        """Everything in the module of a piece of code counts."""
        module = sys.modules.get(str(scope.namespace.get("__name__")))
        if module is None or vars(module) is not scope.namespace:
            self.give_up(f"{scope.label} looks names up at run time and its module is not known")
        else:
            self.module(module)

    def widen_to_project(self, scope: NameScope) -> None:
        """Every Python file of the project counts."""
        self.widen_to_module(scope)
        for path in sorted(walk(Path(self.root))):
            if path.endswith(".py"):
                self.static(os.path.join(self.root, path))

    def widen_to_everything(self, scope: NameScope) -> None:
        """Every Python file of the project counts, and every package that is installed."""
        self.widen_to_project(scope)
        self.modules.add("*")

    # ── modules that need not be loaded ──────────────────────────────────────

    def imported(self, imported: Imported, scope: NameScope) -> None:
        """
        An import inside of a function: the whole file counts, loaded or not.

        Loading it here would run code for the sake of a key, and a key must not
        depend on which step happened to load it first.
        """
        name = absolute(imported, str(scope.namespace.get("__package__") or ""))
        wanted = [name] if imported.name is None else [name, f"{name}.{imported.name}"]
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names:
            return
        found = [path for module in wanted for path in origin.own_files(module)]
        for path in dict.fromkeys(found):
            self.static(path)
        if not found:
            self.package(wanted[-1] if imported.name else name)

    def static(self, path: str) -> None:
        """A file as a whole, by its source alone."""
        name = f"{self.relative(path) or os.path.basename(path)} (file)"
        if name in self.code:
            return None
        self.guards.files.append((path, stamp_of(path)))
        read = source(path)
        if read is None:
            return self.enter_binary(name, path)
        self.code[name] = self.digest([ast.dump(read.tree)], ())
        self.static_references(read, name)
        return None

    def static_references(self, read: SourceFile, name: str) -> None:
        """What an unloaded file imports and looks up."""
        package = package_of(read.path)
        space = {"__package__": package}
        scope = NameScope(name, name, space)
        found = scan(read.tree)
        for imported in found.imports:
            self.imported(imported, scope)
        for reference in found.references:
            if reference.chain[:2] in (("os", "environ"), ("os", "getenv")):
                self.environment(reference, reference.chain[2:], scope)

    def reached_modules(self, done: set[str]) -> list[dict[str, Any]]:
        """Namespaces of the modules that were reached, and of those that they import, once each."""
        spaces = []
        waiting = [space for space in map(namespace_of, self.held) if space is not None]
        while waiting:
            space = waiting.pop(0)
            path = space.get("__file__")
            if not isinstance(path, str) or path in done or origin.of_globals(space) != "own":
                continue
            done.add(path)
            spaces.append(space)
            waiting += imported_namespaces(space, path)
        return spaces

    def effects(self, space: dict[str, Any]) -> None:
        """
        What a module does as it loads, besides binding names.

        `sklearn.set_config(…)` or a patched class change what every function does,
        although no function names them.
        """
        read = source(space["__file__"])
        statements = read.effects if read else []
        if statements:
            name = f"{self.file(space)} (module level)"
            tree = ast.Module(statements, [])
            found = self.follow(scan(tree), NameScope(name, self.file(space), space))
            self.code[name] = self.digest([ast.dump(tree)], found)


# ── small questions ─────────────────────────────────────────────────────────


def is_code(value: Any) -> bool:
    """Whether a value is code, which counts by its source, rather than data."""
    kinds = (
        types.FunctionType,
        type,
        types.ModuleType,
        types.BuiltinFunctionType,
        types.MethodType,
    )
    return isinstance(value, kinds)


def is_published(fn: types.FunctionType) -> bool:
    """Whether a library's function is found under its own name, so that its version tells it."""
    found: Any = sys.modules.get(fn.__module__)
    if found is None or origin.of_module(found) == "own":
        return False  # `functools.wraps` gave it the name of what it wraps
    for part in fn.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is fn or getattr(found, "__func__", None) is fn


def own_part(tree: Definition, scope: NameScope) -> Definition:
    """A definition without clewline's decorators."""
    if isinstance(tree, ast.Lambda):
        return tree
    kept = copy.copy(tree)
    kept.decorator_list = [
        part for part in tree.decorator_list if not is_our_decorator(part, scope)
    ]
    return kept


def is_our_decorator(node: ast.expr, scope: NameScope) -> bool:
    """Whether a decorator is clewline's: `@cl.step(…)` says how to record, not what to compute."""
    chain = dotted(node.func if isinstance(node, ast.Call) else node)
    if chain is None or chain[-1] not in ("step", "pipeline"):
        return False
    value = scope.namespace.get(chain[0])
    home = (
        value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", "")
    )
    return str(home).partition(".")[0] == "clewline"


def functions_of(value: Any) -> list[types.FunctionType]:
    """The functions in a member of a class."""
    if isinstance(value, property):
        parts = [value.fget, value.fset, value.fdel]
    else:
        parts = [unwrapped(value)]
    return [part for part in parts if isinstance(part, types.FunctionType)]


def unwrapped(value: Any) -> Any:
    """A member of a class without the descriptor around it."""
    for name in ("__func__", "func", "__wrapped__"):
        inner = getattr(value, name, None) if not isinstance(value, types.FunctionType) else None
        if isinstance(inner, types.FunctionType):
            return inner
    return value


def is_data(value: Any) -> bool:
    """Whether a member of a class is data rather than a descriptor or code."""
    return not (hasattr(type(value), "__get__") or is_code(value))


def shown(value: Any, piece: bytes) -> str:
    """A constant as the key holds it: short plain values as they are, others by digest."""
    if type(value) in LEAVES and len(text := repr(value)) <= SHORT:
        return f"{text} ({type(value).__name__})"
    return f"{type(value).__name__} {blake3(piece).hexdigest()[:32]}"
