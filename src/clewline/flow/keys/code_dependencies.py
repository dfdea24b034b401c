"""
The code and constants that a function depends on, each with a digest of its own.

The walk starts at the live function and follows the names in its syntax tree:
through globals, closures, defaults, attributes of modules and base classes. The
running code is compared with its file, so an edit after the import is noticed. If
code cannot be analysed statically, the key includes its whole module, then all files
of the project; where that is not enough either, the walk states the reason.
"""

from __future__ import annotations

import ast
import builtins
import copy
import dataclasses
import functools
import importlib
import os
import re
import sys
import types
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from blake3 import blake3

from clewline.flow.code import origin, source_code
from clewline.flow.code.source_code import Definition, Imported, Reference, References
from clewline.flow.keys import impure_calls
from clewline.flow.keys.file_access import MemoisedCode
from clewline.flow.keys.object_content import (
    MISSING,
    Guards,
    ObjectWalk,
    cell_content,
    fingerprint,
    function_state,
)
from clewline.flow.values.canonical import LEAVES
from clewline.flow.values.framing import Undigestible, framed, joined

WIDENING = {"exec", "eval", "globals", "vars", "compile"}
"""Builtins that give code access to any name of its module."""

LOADING = {"runpy", "pkgutil", "pydoc", "importlib.machinery", "importlib.util", "zipimport"}
"""Python's modules that load code by a name or a path."""

SOURCE_READING = {"__doc__", "getdoc", "getsource", "getsourcelines", "f_lineno", "co_firstlineno"}
"""Attributes that reveal what a key leaves out: docstrings, comments, lines."""

NAMESPACES = {"__subclasses__", "__globals__", "f_globals", "f_locals", "f_builtins"}
"""Attributes that give code access to names of any module."""

LOCATION = {"__file__", "__name__", "__package__", "__spec__"}
"""Names of a module that say where it is, which must not matter."""

ATTRIBUTE_BY_NAME = {"getattr", "setattr", "delattr", "hasattr"}
_TABLES = re.compile(r"\b(?:from|join)\s+([^\W\d]\w*)\b(?!\s*\()", re.IGNORECASE)
_MADE_TABLES = re.compile(r"(?:\bwith|,)\s+(\w+)\s+as\s*\(", re.IGNORECASE)
"""Tables that a query reads, and those that it defines itself."""

LONGEST_PATH = 1000  # characters
MANY = 1000  # strings of a container, beyond which they are not paths
SHORT = 60  # characters of a constant that are shown as they are

_CODE = (types.FunctionType, type, types.ModuleType, types.BuiltinFunctionType, types.MethodType)


@dataclass(slots=True)
class NameScope:
    """The names that a piece of code can see."""

    label: str  # of the node, `helpers.py:scale`
    file: str  # `helpers.py`
    namespace: dict[str, Any]
    closure: dict[str, Any] = field(default_factory=dict)
    found: References = field(default_factory=References)  # that are being followed
    is_file: bool = False  # whether the scope is a file that need not be loaded


class CodeDependencies(ObjectWalk):
    """One walk. Add values with `content` or `constant`, then call `drain`."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = str(root)
        self.code: dict[str, str] = {}
        self.constants: dict[str, str] = {}
        self.modules: set[str] = set()  # of packages
        self.environ: set[str] = set()
        self.places: set[str] = set()  # files and folders outside of the project that are named
        self.memoised: set[MemoisedCode] = set()
        self.reasons: list[str] = []  # why no key can be made
        self.guards = Guards()
        self.names: dict[int, str] = {}  # id of a function, class or module → name of its node
        self._label = ""  # of the value that is being added
        self._held: list[Any] = []  # so that no id is reused
        self._queue: deque[tuple[str, Any]] = deque()

    # Values and code that are met

    def content(self, value: Any, label: str) -> bytes:
        """Return the canonical piece of a value; code in it becomes part of the walk."""
        self._label = label
        try:
            return self.piece(value)
        except Undigestible as error:
            self.give_up(f"{label} is a {error.value_type} that {error.reason}")
            return framed("unknown", b"")

    def constant(self, label: str, value: Any) -> None:
        """Add a value that is not code: it counts by its content."""
        self.note_places(value)
        self.constants[label] = constant_text(value, self.content(value, f"the value {label}"))
        if type(value) not in LEAVES:
            self.guards.values.append((value, fingerprint(value)))

    def note_places(self, value: Any) -> None:
        """Note the files and folders that a value names, if they are outside of the project."""
        for text in _texts_in(value):
            if 1 < len(text) <= LONGEST_PATH and (os.sep in text or text[0] == "~"):
                path = os.path.abspath(os.path.expanduser(text))
                if self._relative(path) is None and os.path.exists(path):
                    self.places.add(path)

    def give_up(self, reason: str) -> None:
        """State why no key can be made."""
        if reason not in self.reasons:
            self.reasons.append(reason)

    def other(self, value: Any) -> bytes:
        """Return the piece of a value, and note a function in it that reads the surroundings."""
        if isinstance(value, functools.partial) and _reads_environment(value.func):
            name = value.args[0] if value.args else None
            self.environ.add(name if isinstance(name, str) else f"?{self._label}")
            return joined("partial", map(self.piece, (value.args, value.keywords)))
        if callable(value):
            inner = getattr(value, "__wrapped__", None)
            if hasattr(value, "cache_info") and isinstance(inner, types.FunctionType):
                self.memoised.add(
                    MemoisedCode(inner.__code__.co_filename, inner.__code__.co_qualname)
                )
            if _reads_environment(value):
                self.environ.add(f"?{self._label}")
            self._note_impure(value, self._label, None)
        return super().other(value)

    def _note_impure(
        self, value: Any, label: str, arguments: int | None, text: str | None = None
    ) -> bool:
        """Note a function whose result depends on more than arguments and files."""
        if (fact := impure_calls.fact_of(value)) is not None:
            self.environ.add(fact)
        what = impure_calls.unrepeatable(value, arguments, text)
        if what is not None:
            self.give_up(f"{label} reads {what}")
        return what is not None

    def code_piece(self, value: types.FunctionType | type | types.ModuleType) -> bytes:
        """Add a function, a class or a whole module, and return the piece that stands for it."""
        if isinstance(value, types.FunctionType):
            return self._function_piece(value)
        if isinstance(value, types.ModuleType):
            is_own, name, home = origin.of_module(value) == "own", value.__name__, value.__name__
            label = f"{self._file(vars(value))} (whole)"
        else:
            is_own, home = origin.of_type(value) == "own", value.__module__
            name = f"{home}:{value.__qualname__}"
            label = f"{self._file(source_code.namespace_of(value) or {})}:{value.__qualname__}"
        if is_own:
            return framed("code", self._node(value, label).encode())
        self.package(home)
        return framed("library", name.encode())

    def _function_piece(self, fn: types.FunctionType) -> bytes:
        step = getattr(fn, "__clewline_step__", None)
        fn = step.fn if step is not None else getattr(fn, "__clewline_reader__", fn)
        if not isinstance(fn, types.FunctionType):
            return self.piece(fn)
        space = fn.__globals__
        if origin.of_globals(space) == "own":
            return framed("code", self._node(fn, f"{self._file(space)}:{fn.__qualname__}").encode())
        self.package(str(space.get("__name__", "")))
        name = framed("library", f"{fn.__module__}:{fn.__qualname__}".encode())
        if _is_published(fn):
            return name
        # A wrapper that a library makes at run time may hold the project's code.
        inner, registry = getattr(fn, "__wrapped__", None), getattr(fn, "registry", None)
        parts = [] if inner is None else [self.piece(inner)]
        if isinstance(registry, types.MappingProxyType):  # functools.singledispatch
            parts += sorted(self.piece(pair) for pair in registry.items())
        elif inner is None:
            parts += [self.piece(cell_content(cell)) for cell in fn.__closure__ or ()]
        return joined("wrapper", (name, *parts))

    def package(self, module: str) -> None:
        """Add a module of a package."""
        if module and module.partition(".")[0] not in sys.stdlib_module_names:
            self.modules.add(module)

    def _node(self, value: Any, label: str) -> str:
        """Return the unique name of a function, class or module, queued to be walked."""
        known = self.names.get(id(value))
        if known is None:
            taken, number = set(self.names.values()), 1
            known = label
            while known in taken:
                number += 1
                known = f"{label} #{number}"
            self.names[id(value)] = known
            self._held.append(value)
            self._queue.append((known, value))
        return known

    def _file(self, space: dict[str, Any]) -> str:
        """Return a module's file relative to the project, or its import name if it is outside."""
        path = space.get("__file__")
        inside = self._relative(path) if isinstance(path, str) else None
        return inside or str(space.get("__name__", "unknown"))

    def _relative(self, path: str) -> str | None:
        full = os.path.abspath(path)
        inside = full.startswith(self.root + os.sep)
        return full[len(self.root) + 1 :].replace(os.sep, "/") if inside else None

    # The walk

    def drain(self) -> None:
        """
        Walk until the queue is empty, then add what modules do as they load.

        `sklearn.set_config(…)` or a patched class change what every function does,
        although no function names them.
        """
        self._walk_queue()
        loaded: set[str] = set()
        while spaces := self._reached_modules(loaded):
            for space in spaces:
                read = source_code.read_source(space["__file__"])
                if read and read.effects:
                    scope = NameScope(
                        f"{self._file(space)} (module level)", self._file(space), space
                    )
                    tree = ast.Module(read.effects, [])
                    followed = self._follow(source_code.find_references(tree), scope)
                    self.code[scope.label] = _digest([ast.dump(tree)], followed)
            self._walk_queue()

    def _walk_queue(self) -> None:
        while self._queue:
            name, value = self._queue.popleft()
            try:
                if isinstance(value, types.FunctionType):
                    self._enter_function(name, value)
                elif isinstance(value, type):
                    self._enter_class(name, value)
                else:
                    self._enter_module(name, value)
            except RecursionError:
                self.give_up(f"{name} is nested too deeply to be analysed")

    def _enter_function(self, name: str, fn: types.FunctionType) -> None:
        """Walk a function: its tree, its defaults and its closure."""
        scope = NameScope(name, self._file(fn.__globals__), fn.__globals__)
        self._hold_function(fn, scope)
        found = self._definitions(name, fn)
        if found is not None:
            found = [_without_our_decorators(tree, scope) for tree in found]
            texts = list(map(ast.dump, found))
            if len(found) > 1 or source_code.is_transformed(fn.__globals__):
                texts.append(repr(source_code.code_content(fn.__code__)))  # which of them it is
            self.code[name] = _digest(texts, self._follow_all(found, scope))
            return
        # Without source every name in the compiled code counts.
        codes = [fn.__code__, *source_code.inner_codes(fn.__code__)]
        used = dict.fromkeys(part for code in codes for part in code.co_names)
        references = [Reference((part,)) for part in used if part in scope.namespace]
        references += [Reference((part,)) for part in used if part in WIDENING]
        followed = self._follow(References(references), scope)
        self.code[name] = _digest([repr(source_code.code_content(fn.__code__))], followed)

    def _hold_function(self, fn: types.FunctionType, scope: NameScope) -> None:
        """Add the defaults and the closure of a function, as constants or code."""
        self.guards.functions.append((fn, function_state(fn)))
        defaults = (fn.__defaults__, fn.__kwdefaults__)
        if any(defaults):
            self.constant(f"{scope.label} defaults", defaults)
        for free, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
            content = cell_content(cell)
            self.guards.cells.append((cell, content))
            scope.closure[free] = content
            if content is not MISSING and free != "__class__":
                self.constant(f"{scope.label} closure {free}", content)

    def _definitions(self, name: str, fn: types.FunctionType) -> list[Definition] | None:
        """Return the trees of a function; None without source, or if the source was edited."""
        read = source_code.read_source(fn.__code__.co_filename)
        if read is None:
            return None
        found = read.definition(fn.__code__)
        if found is None and source_code.is_transformed(fn.__globals__):
            return read.functions.get((fn.__code__.co_name, fn.__code__.co_firstlineno))
        if found is None:
            self.give_up(f"{name} was edited on disk after it was imported")
        return found

    def _enter_class(self, name: str, cls: type) -> None:
        """Walk a class: its tree, bases, metaclass, methods and attributes as they are now."""
        space = source_code.namespace_of(cls) or {}
        scope = NameScope(name, self._file(space), space)
        self.guards.classes.append((cls, dict(vars(cls))))
        path = space.get("__file__")
        read = source_code.read_source(path) if isinstance(path, str) else None
        trees = read.classes.get(cls.__qualname__, []) if read else []
        bases = [self.content(base, f"a base of {name}") for base in (type(cls), *cls.__mro__[1:])]
        pieces = [*bases, *self._members(cls, scope), *self._follow_all(trees, scope)]
        self.code[name] = _digest(map(ast.dump, trees), pieces)

    def _members(self, cls: type, scope: NameScope) -> Iterator[bytes]:
        """Yield the members of a class as they are now, which may differ from its tree."""
        for name, value in list(vars(cls).items()):
            if name.startswith("__") and not callable(_unwrapped(value)):
                continue  # the interpreter's own; annotations are part of the tree
            is_property = isinstance(value, property)
            parts = (value.fget, value.fset, value.fdel) if is_property else (_unwrapped(value),)
            for part in parts:
                if isinstance(part, types.FunctionType):
                    yield from self._method(name, part, cls, scope)
            is_data = not (hasattr(type(value), "__get__") or isinstance(value, _CODE))
            if is_data and not name.startswith("_abc_"):
                self.constant(f"{scope.label}.{name}", value)

    def _method(
        self, name: str, fn: types.FunctionType, cls: type, scope: NameScope
    ) -> Iterator[bytes]:
        """Add one method: part of the class's tree, or assigned from elsewhere."""
        label = f"{scope.label}.{name}"
        file = fn.__code__.co_filename
        generated = file.startswith("<") or origin.of_file(file) != "own"
        inherent = fn.__qualname__.startswith(cls.__qualname__ + ".")
        if generated and name.startswith("__"):
            return  # of a dataclass or similar: made from the fields, which count themselves
        if not inherent or generated or "<locals>" in fn.__qualname__:
            yield joined("member", (name.encode(), self.content(fn, label)))
            return
        self._definitions(label, fn)
        self._hold_function(fn, NameScope(label, scope.file, fn.__globals__))

    def _enter_module(self, name: str, module: types.ModuleType) -> None:
        """Walk a whole module: all its source, and every name that it binds."""
        space, path = vars(module), getattr(module, "__file__", None)
        read = source_code.read_source(path) if isinstance(path, str) else None
        if read is None:
            return self._enter_binary(name, path)
        found = source_code.find_references(read.tree)
        found.imports.clear()  # their names are bound here, and followed as such
        found.references += [
            Reference((part,)) for part in source_code.module_names(read.tree) if part in space
        ]
        followed = self._follow(found, NameScope(name, self._file(space), space))
        self.code[name] = _digest([ast.dump(read.tree)], followed)
        return None

    def _enter_binary(self, name: str, path: str | None) -> None:
        """Add a module without source: a compiled extension of the project counts by its bytes."""
        if path is None or not os.path.isfile(path):
            if path is not None or "whole" in name:
                self.give_up(f"{name} has no source that can be read")
            return
        self.guards.files.append((path, source_code.stamp_of(path)))
        self.code[name] = blake3(Path(path).read_bytes()).hexdigest()

    # Names

    def _follow_all(self, trees: Iterable[Definition], scope: NameScope) -> list[bytes]:
        return [
            piece
            for tree in trees
            for piece in self._follow(source_code.find_references(tree), scope)
        ]

    def _follow(self, found: References, scope: NameScope) -> list[bytes]:
        """Follow references, and return the pieces of the code that they lead to."""
        scope.found = found
        pieces = [self._resolve(reference, scope) for reference in found.references]
        for text in found.texts if found.query else ():
            pieces += self._follow_query(text, scope)
        for imported in found.imports:
            self._import(imported, scope)
        if found.is_query_computed:
            self._widen_to_module(scope)
        self.note_places(found.texts)
        if "get_file_info" in found.attributes:
            self.give_up(f"{scope.label} asks about files through Arrow (get_file_info)")
        if NAMESPACES & found.attributes:
            self._widen_to_project(scope)
        for name in impure_calls.FACT_OF_ATTRIBUTE.keys() & found.attributes:
            self.environ.add(impure_calls.FACT_OF_ATTRIBUTE[name])
        if revealing := sorted(SOURCE_READING & found.attributes):
            self.give_up(
                f"{scope.label} reads {revealing[0]}, and keys leave out comments and docstrings"
            )
        return [piece for piece in pieces if piece]

    def _follow_query(self, text: str, scope: NameScope) -> list[bytes]:
        """Follow the variables that the text of a query names."""
        return [
            self._resolve(Reference((name,)), scope)
            for name in dict.fromkeys(scope.found.names_in(text))
            if name in scope.closure or name in scope.namespace
        ]

    def _require_tables(self, scope: NameScope) -> None:
        """Give up if `polars.sql` would look for a table in the frames of the callers."""
        known = {*scope.namespace, *scope.closure, *scope.found.bound}
        for text in scope.found.texts:
            made = _MADE_TABLES.findall(text)
            for name in _TABLES.findall(text):
                if name not in known and name not in made:
                    self.give_up(
                        f"{scope.label} names {name} in SQL, which is a variable elsewhere"
                    )

    def _resolve(self, reference: Reference, scope: NameScope) -> bytes:
        """Follow one reference to the object that it names now."""
        name, *rest = reference.chain
        if name in scope.found.aliases:
            outside = _imported_object(scope.found.aliases[name])
            self._use_special(outside, rest, reference, scope)
            if name not in scope.namespace:
                return b""  # the import itself counts
        value = self._look_up(name, scope)
        label = f"{scope.file}:{name}"
        while rest and isinstance(value, types.ModuleType) and origin.of_module(value) == "own":
            # Read without running the module's `__getattr__`.
            inner = vars(value).get(rest[0], MISSING)
            self.guards.bindings.append((vars(value), rest[0], inner))
            if inner is MISSING:
                break
            label = f"{self._file(vars(value))}:{rest[0]}"
            value, rest = inner, rest[1:]
        return self._use(value, rest, label, reference, scope)

    def _look_up(self, name: str, scope: NameScope) -> Any:
        """Return what a name means here: a closure's cell, a global, a builtin, or MISSING."""
        if name in scope.closure:
            return scope.closure[name]
        value = scope.namespace.get(name, MISSING)
        self.guards.bindings.append((scope.namespace, name, value))
        return getattr(builtins, name, MISSING) if value is MISSING else value

    def _use(
        self, value: Any, rest: list[str], label: str, reference: Reference, scope: NameScope
    ) -> bytes:
        """Add a resolved name: code as the piece that is returned, anything else as a constant."""
        if reference.is_query and not isinstance(value, str | types.ModuleType):
            self._widen_to_module(scope)
        if value is MISSING or reference.chain[0] in LOCATION:
            return b""  # an unbound name is guarded
        if self._use_special(value, rest, reference, scope):
            return b""
        if isinstance(value, types.ModuleType) and rest and origin.of_module(value) != "own":
            while isinstance(inner := vars(value).get(rest[0]), types.ModuleType) and rest[1:]:
                value, rest = inner, rest[1:]
            self.package((inner if isinstance(inner, types.ModuleType) else value).__name__)
        elif isinstance(value, _CODE):
            piece = self.content(value, label)
            return joined("refers", (".".join(reference.chain).encode(), piece))
        else:
            self.constant(label, value)
            if reference.is_query and isinstance(value, str):
                return joined("query", self._follow_query(value, scope))
        return b""

    def _use_special(
        self, value: Any, rest: list[str], reference: Reference, scope: NameScope
    ) -> bool:
        """Note a part of Python that reaches further than its version; return whether it was."""
        while rest and isinstance(value, types.ModuleType | type) and _is_foreign(value):
            is_loading = isinstance(value, types.ModuleType) and value.__name__ in LOADING
            if is_loading or _reads_environment(value, rest[0]):
                break
            held = vars(value).get(rest[0], MISSING)
            value = getattr(value, rest[0], held) if isinstance(value, type) else held
            rest = rest[1:]
        if _reads_environment(value, *rest[:1]):
            self._read_environment(reference, tuple(rest[1:] if value is os else rest), scope)
            return True
        home = "__name__" if isinstance(value, types.ModuleType) else "__module__"
        if isinstance(value, _CODE) and getattr(value, home, None) in LOADING:
            self._widen_to_everything(scope)
        elif value is sys.argv:
            self.environ.add("sys.argv")
        elif value is sys.modules:
            self._widen_to_project(scope)
        elif value is os.path.expandvars:
            self.environ.add(f"?{scope.label}")
        elif value is importlib.import_module:
            self._import_by_name(reference, scope)
        elif getattr(value, "__self__", None) is builtins:
            self._use_builtin(value.__name__, reference, scope)
            self._note_impure(value, scope.label, None)
        else:
            if getattr(value, "__module__", None) == "polars.sql.functions":
                self._require_tables(scope)
            given = reference.call.args[:1] if reference.call else []
            text = source_code.text_of(given[0]) if given else None
            count = _arguments(reference.call)
            return not rest and self._note_impure(value, scope.label, count, text)
        return True

    # Code that cannot be analysed by its names

    def _use_builtin(self, name: str, reference: Reference, scope: NameScope) -> None:
        """Add a builtin that may reach further than its name says."""
        arguments = reference.call.args if reference.call else []
        if name in WIDENING and not (name == "vars" and arguments):
            self._widen_to_module(scope)
        elif name in ATTRIBUTE_BY_NAME:
            # A constant name is an attribute like any other, a computed one widens the key.
            chain = source_code.dotted(arguments[0]) if len(arguments) > 1 else None
            wanted = source_code.text_of(arguments[1]) if len(arguments) > 1 else None
            if chain is not None and wanted is not None:
                self._resolve(Reference((*chain, wanted)), scope)
            elif wanted is None:
                holder = MISSING if chain is None else self._look_up(chain[0], scope)
                is_library = (
                    isinstance(holder, types.ModuleType) and origin.of_module(holder) != "own"
                ) or (isinstance(holder, type) and origin.of_type(holder) != "own")
                if not is_library:  # which would count by its version
                    self._widen_to_module(scope)
        elif name == "__import__":
            self._import_by_name(reference, scope)

    def _read_environment(
        self, reference: Reference, rest: tuple[str, ...], scope: NameScope
    ) -> None:
        """Add an environment variable that is read: a constant name becomes part of the key."""
        argument = reference.index
        if reference.call is not None and reference.call.args and rest in ((), ("get",)):
            argument = reference.call.args[0]
        name = source_code.text_of(argument)
        self.environ.add(f"?{scope.label}" if name is None else name)

    def _import_by_name(self, reference: Reference, scope: NameScope) -> None:
        """Add `import_module(x)`: a constant is an import like any other, a variable widens."""
        arguments = reference.call.args if reference.call else []
        name = source_code.text_of(arguments[0]) if arguments else None
        if name is None or name.startswith("."):
            self._widen_to_everything(scope)
        else:
            self._import(Imported(0, name, None), scope)

    def _widen_to_module(self, scope: NameScope) -> None:
        """Add everything in the module of a piece of code."""
        if scope.is_file:
            return  # which counts as a whole
        module = sys.modules.get(str(scope.namespace.get("__name__")))
        if module is None or vars(module) is not scope.namespace:
            self.give_up(f"{scope.label} looks up names at run time and its module is not known")
        else:
            self.code_piece(module)

    def _widen_to_project(self, scope: NameScope) -> None:
        """Add every Python file of the project."""
        self._widen_to_module(scope)
        for path in sorted(origin.walk(Path(self.root))):
            if path.endswith(".py"):
                self._add_file(os.path.join(self.root, path), is_imported=False)

    def _widen_to_everything(self, scope: NameScope) -> None:
        """Add every Python file of the project, and every installed package."""
        self._widen_to_project(scope)
        self.modules.add("*")

    # Modules that need not be loaded

    def _import(self, imported: Imported, scope: NameScope, is_imported: bool = True) -> None:
        """
        Add an import inside of a function: the whole file counts, loaded or not.

        Loading it here would run code for the sake of a key, and a key must not
        depend on which step loaded the module first.
        """
        wanted = imported.modules(str(scope.namespace.get("__package__") or ""))
        if wanted[0].partition(".")[0] in sys.stdlib_module_names:
            return
        found = [path for module in wanted for path in origin.own_files(module)]
        for path in dict.fromkeys(found):
            self._add_file(path, is_imported)
        if not found:
            self.package(wanted[-1])

    def _add_file(self, path: str, is_imported: bool) -> None:
        """
        Add a whole file by its source alone, with what it imports and looks up.

        A file that is not known to be imported counts by its source and the environment.
        """
        name = f"{self._relative(path) or os.path.basename(path)} (file)"
        if is_imported:
            self.memoised.add(MemoisedCode(path, "<module>"))
        if name in self.code:
            return None
        self.guards.files.append((path, source_code.stamp_of(path)))
        read = source_code.read_source(path)
        if read is None:
            return self._enter_binary(name, path)
        self.code[name] = _digest([ast.dump(read.tree)], ())
        found = source_code.find_references(read.tree)
        space = {"__package__": source_code.package_of(path)}
        scope = NameScope(name, name, space, found=found, is_file=True)
        for imported in found.imports:
            self._import(imported, scope, is_imported)
        for reference in found.references:
            head, *rest = reference.chain
            if (alias := found.aliases.get(head)) is not None:
                outside = _imported_object(alias)
                if is_imported or _reads_environment(outside, *rest[:1]):
                    self._use_special(outside, rest, reference, scope)
        if is_imported:
            self.note_places(found.texts)
        return None

    def _reached_modules(self, done: set[str]) -> list[dict[str, Any]]:
        """Return the namespaces of the reached modules and of those that they import, once each."""
        spaces = []
        waiting = [
            space for space in map(source_code.namespace_of, self._held) if space is not None
        ]
        while waiting:
            space = waiting.pop(0)
            path = space.get("__file__")
            if not isinstance(path, str) or path in done or origin.of_globals(space) != "own":
                continue
            done.add(path)
            spaces.append(space)
            waiting += source_code.imported_namespaces(space, path)
        return spaces


def _texts_in(value: Any, depth: int = 4) -> Iterator[str]:
    """Yield the strings and paths in a value and in the containers and objects that it is of."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, PurePath):
        yield os.fspath(value)
    elif depth and isinstance(value, dict):
        yield from _texts_in([*value.values()], depth - 1)
    elif depth and isinstance(value, list | tuple | set | frozenset) and len(value) <= MANY:
        for each in value:
            yield from _texts_in(each, depth - 1)
    elif depth and dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from _texts_in(getattr(value, "__dict__", {}), depth - 1)


def _reads_environment(value: Any, attribute: str = "") -> bool:
    """Return whether an object, or an attribute of `os`, gives access to the environment."""
    if value is os:
        return attribute in ("environ", "environb", "getenv", "getenvb")
    owner = value.__self__ if isinstance(value, types.MethodType) else None
    raw = getattr(sys.modules.get("posix"), "environ", os.environ)
    readers = (os.environ, os.environb, os.getenv, os.getenvb, raw)
    return any(value is each or (owner is not None and owner is each) for each in readers)


def _is_foreign(value: types.ModuleType | type) -> bool:
    """Return whether a module or a class is not the project's."""
    of = origin.of_module(value) if isinstance(value, types.ModuleType) else origin.of_type(value)
    return of != "own"


def _imported_object(imported: Imported) -> Any:
    """Return what an import binds, if it is Python's, or a library's that is loaded."""
    name = "" if imported.level else imported.module
    module = sys.modules.get(name)
    if module is None and name.partition(".")[0] in sys.stdlib_module_names:
        with suppress(ImportError):
            module = importlib.import_module(name)
    if module is None or origin.of_module(module) == "own" or imported.name is None:
        return MISSING if module is None or origin.of_module(module) == "own" else module
    return vars(module).get(imported.name, sys.modules.get(f"{name}.{imported.name}", MISSING))


def _arguments(call: ast.Call | None) -> int | None:
    """Return with how many arguments other than None a function is called, if it is known."""
    if call is None:
        return None
    given = [*call.args, *(part.value for part in call.keywords)]
    return sum(not (isinstance(each, ast.Constant) and each.value is None) for each in given)


def _digest(texts: Iterable[str], pieces: Iterable[bytes]) -> str:
    """Return the digest of one node: its source, and the pieces that it refers to."""
    content = [framed("text", text.encode("utf-8", "surrogatepass")) for text in texts]
    return blake3(b"".join([*content, *sorted(set(pieces))])).hexdigest()


def _is_published(fn: types.FunctionType) -> bool:
    """Return whether a library's function is found under its own name, so its version says all."""
    found: Any = sys.modules.get(fn.__module__)
    if found is None or origin.of_module(found) == "own":
        return False  # `functools.wraps` copied the name of the wrapped function
    for part in fn.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is fn or getattr(found, "__func__", None) is fn


def _without_our_decorators(tree: Definition, scope: NameScope) -> Definition:
    """Remove clewline's decorators: `@cl.step(…)` says how to record, not what to compute."""
    if isinstance(tree, ast.Lambda):
        return tree
    kept = copy.copy(tree)
    kept.decorator_list = []
    for each in tree.decorator_list:
        chain = source_code.dotted(each.func if isinstance(each, ast.Call) else each) or ("",)
        value = scope.namespace.get(chain[0])
        name = "__name__" if isinstance(value, types.ModuleType) else "__module__"
        home = getattr(value, name, "")
        is_ours = str(home).partition(".")[0] == "clewline"
        if chain[-1] not in ("step", "pipeline") or not is_ours:
            kept.decorator_list.append(each)
    return kept


def _unwrapped(value: Any) -> Any:
    """Return a member of a class without the descriptor around it."""
    for name in ("__func__", "func", "__wrapped__"):
        inner = getattr(value, name, None) if not isinstance(value, types.FunctionType) else None
        if isinstance(inner, types.FunctionType):
            return inner
    return value


def constant_text(value: Any, piece: bytes) -> str:
    """Return a constant as the key holds it: short plain values as they are, others by digest."""
    if type(value) in LEAVES and len(text := repr(value)) <= SHORT:
        return f"{text} ({type(value).__name__})"
    return f"{type(value).__name__} {blake3(piece).hexdigest()[:32]}"
