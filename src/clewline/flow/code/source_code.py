"""
Source code as syntax trees: the definitions of running code, and the names that code refers to.

`read_source` parses a file once and finds the definition of code that runs, or notices
that the file was edited since. `find_references` lists the names that a piece of source takes
from outside of itself.
"""

from __future__ import annotations

import ast
import importlib.machinery
import os
import re
import sys
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef

COMPILED = (*importlib.machinery.EXTENSION_SUFFIXES, ".so", ".pyc")


@dataclass(frozen=True, slots=True)
class Imported:
    """An import: `from ..a import b` is (2, "a", "b")."""

    level: int
    module: str
    name: str | None  # None for `import module`

    def modules(self, package: str) -> list[str]:
        """Return the full names of the modules that it may load, seen from a package."""
        base = self.module
        if self.level:
            parts = package.split(".") if package else []
            kept = parts[: len(parts) - self.level + 1]
            base = ".".join([*kept, *([self.module] if self.module else [])])
        return [base] if self.name is None else [base, f"{base}.{self.name}"]


@dataclass(slots=True)
class SourceFile:
    """One source file, parsed and compiled once."""

    path: str
    tree: ast.Module  # without docstrings
    stamp: tuple[int, int]  # size and mtime when it was read
    codes: dict[str, list[CodeType]] = field(default_factory=dict)  # by qualified name
    functions: dict[tuple[str, int], list[Definition]] = field(default_factory=dict)
    classes: dict[str, list[Definition]] = field(default_factory=dict)  # by qualified name
    effects: list[ast.stmt] = field(default_factory=list)  # that do more than bind names
    imports: list[Imported] = field(default_factory=list)  # at module level

    def definition(self, code: CodeType) -> list[Definition] | None:
        """
        Return where running code is defined: usually one place, at most all lambdas of a line.

        None if the file does not contain the running code, because it was edited since.
        """
        content = code_content(code)
        same = [
            each for each in self.codes.get(code.co_qualname, ()) if code_content(each) == content
        ]
        if not same:
            return None
        best = min(same, key=lambda known: abs(known.co_firstlineno - code.co_firstlineno))
        return self.functions[best.co_name, best.co_firstlineno]


_read: dict[str, SourceFile] = {}


def stamp_of(path: str) -> tuple[int, int] | None:
    """Return size and mtime of a file, or None if it does not exist."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def read_source(path: str) -> SourceFile | None:
    """Read a source file, again if it changed; return None if it cannot be read or parsed."""
    stamp = None if path.endswith(COMPILED) else stamp_of(path)
    if stamp is None:
        return None
    known = _read.get(path)
    if known is not None and known.stamp == stamp:
        return known
    try:
        with open(path, "rb") as file:
            text = file.read()
        compiled = compile(text, path, "exec", dont_inherit=True)
        tree = ast.parse(text, path)
    except (OSError, SyntaxError, ValueError):
        return None
    found = _read[path] = SourceFile(path, tree, stamp)
    for code in inner_codes(compiled):
        found.codes.setdefault(code.co_qualname, []).append(code)
    _index(found, tree, "")
    remove_docstrings(tree)
    found.effects = [part for part in tree.body if has_effect(part)]
    found.imports = module_imports(tree)
    return found


def _index(file: SourceFile, node: ast.AST, prefix: str) -> None:
    """Index the definitions under a node: functions by name and line, classes by qualified name."""
    for child in ast.iter_child_nodes(node):
        inner = prefix
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            line = min((part.lineno for part in child.decorator_list), default=child.lineno)
            file.functions.setdefault((child.name, line), []).append(child)
            inner = f"{prefix}{child.name}.<locals>."
        elif isinstance(child, ast.Lambda):
            file.functions.setdefault(("<lambda>", child.lineno), []).append(child)
            inner = f"{prefix}<lambda>.<locals>."
        elif isinstance(child, ast.ClassDef):
            file.classes.setdefault(prefix + child.name, []).append(child)
            inner = f"{prefix}{child.name}."
        _index(file, child, inner)


# Code objects


def inner_codes(code: CodeType) -> Iterator[CodeType]:
    """Yield all code objects inside of one."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from inner_codes(constant)


def code_content(code: CodeType) -> tuple[Any, ...]:
    """Return what a code object does, wherever it stands; equal in every process."""
    return (
        code.co_qualname,
        code.co_code,
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_cellvars,
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_flags,
        code.co_exceptiontable,
        tuple(map(_constant_content, code.co_consts)),
    )


def _constant_content(constant: Any) -> Any:
    """Return a constant of a code object with its type: 1, 1.0 and True differ."""
    if isinstance(constant, CodeType):
        return code_content(constant)
    if isinstance(constant, tuple):
        return ("tuple", tuple(map(_constant_content, constant)))
    if isinstance(constant, frozenset):
        return ("frozenset", tuple(sorted(repr(_constant_content(part)) for part in constant)))
    return (type(constant).__name__, repr(constant))


# Modules


def is_transformed(namespace: dict[str, Any]) -> bool:
    """Return whether an import hook may rewrite a module's code as it loads."""
    loader = namespace.get("__loader__")
    return loader is not None and type(loader) is not importlib.machinery.SourceFileLoader


def namespace_of(value: Any) -> dict[str, Any] | None:
    """Return the namespace of the module that a function, class or module belongs to."""
    if isinstance(value, types.FunctionType):
        return value.__globals__
    module = sys.modules.get(value.__module__) if isinstance(value, type) else value
    return vars(module) if isinstance(module, types.ModuleType) else None


def imported_namespaces(space: dict[str, Any], path: str) -> list[dict[str, Any]]:
    """Return the namespaces of the loaded modules that a module imports as it loads."""
    read = read_source(path)
    package = str(space.get("__package__") or "")
    names = (
        [name for imported in read.imports for name in imported.modules(package)] if read else []
    )
    every = [
        ".".join(name.split(".")[:end]) for name in names for end in range(1, name.count(".") + 2)
    ]
    return [vars(sys.modules[name]) for name in dict.fromkeys(every) if name in sys.modules]


def package_of(path: str) -> str:
    """Return the package of a file, by the folders around it that have an `__init__.py`."""
    parts: list[str] = []
    folder = os.path.dirname(path)
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        parts.insert(0, os.path.basename(folder))
        folder = os.path.dirname(folder)
    return ".".join(parts)


# References


@dataclass(frozen=True, slots=True)
class Reference:
    """A name from outside with its attributes: `helpers.f` is ("helpers", "f")."""

    chain: tuple[str, ...]
    call: ast.Call | None = None  # when it is called
    index: ast.expr | None = None  # when it is subscripted
    is_query: bool = False  # when its value is the text of a query


@dataclass(slots=True)
class References:
    """Everything that a piece of source takes from outside."""

    references: list[Reference] = field(default_factory=list)
    imports: list[Imported] = field(default_factory=list)
    attributes: set[str] = field(default_factory=set)  # every attribute name, of anything
    aliases: dict[str, Imported] = field(default_factory=dict)  # names that imports inside bind
    texts: list[str] = field(default_factory=list)  # every string
    bound: set[str] = field(default_factory=set)  # names that functions in it bind
    query: str | None = None  # pattern of the names in query strings, if there may be any
    is_query_computed: bool = False  # when a query may hold names that no string here has

    def names_in(self, text: str) -> list[str]:
        """Return the names in the text of a query that may be variables of the caller."""
        return re.findall(self.query, text) if self.query else []


def find_references(tree: ast.AST) -> References:
    """
    Find what a function, class, module or statement takes from outside.

    Names that a function binds itself are not outside. Annotations count, including
    those written as strings: libraries read them at run time.
    """
    found = References()
    _Visitor(found).visit(tree)
    return found


_AT_NAMES = r"@\s*([^\W\d]\w*)"
_ALL_NAMES = r"(?<![\w.])([^\W\d]\w*)"
QUERIES = {
    "query": _AT_NAMES,
    **dict.fromkeys(("eval", "sql", "execute", "evaluate", "SQLContext"), _ALL_NAMES),
}
"""
Functions that resolve names of a string in the frame of their caller (pandas, Polars, DuckDB,
numexpr), and the pattern of these names.
"""
_NAME_COMES = re.compile(r"(@|\b(from|join)\s+)$", re.IGNORECASE)


class _Visitor(ast.NodeVisitor):
    def __init__(self, found: References) -> None:
        self.found = found
        self.scopes: list[frozenset[str]] = []
        self.parameters: list[frozenset[str]] = []  # of the functions around

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Store):
            self.refer(Reference((node.id,)))

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.found.texts.append(node.value)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.found.attributes.add(node.attr)
        self.note_query(node.attr)  # a bound method, to be called later
        if self.chain(node) is None:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        """`wrapper.__doc__ = f.__doc__` copies a docstring, and does not depend on it."""
        before = "__doc__" in self.found.attributes
        self.generic_visit(node)
        if not before and all(
            isinstance(target, ast.Attribute) and target.attr == "__doc__"
            for target in node.targets
        ):
            self.found.attributes.discard("__doc__")

    def visit_Call(self, node: ast.Call) -> None:
        chain = self.chain(node.func, call=node)
        if chain is None and isinstance(node.func, ast.Attribute):
            self.found.attributes.add(node.func.attr)
            self.visit(node.func.value)
        elif chain is None:
            self.visit(node.func)
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if (node.args or node.keywords) and self.note_query(name):
            self.visit_query([*node.args[:1], *(part.value for part in node.keywords)])
        named = chain == ("getattr",) and len(node.args) > 1 and text_of(node.args[1]) is not None
        self.visit_all((*node.args[1 if named and dotted(node.args[0]) else 0 :], *node.keywords))

    def note_query(self, name: str) -> bool:
        """Note that the strings here may be queries, if a function of this name takes one."""
        if name in QUERIES and self.found.query != _ALL_NAMES:
            self.found.query = QUERIES[name]
        return name in QUERIES

    def visit_query(self, arguments: list[ast.expr]) -> None:
        """Note where the text of a query is from, other than from strings in this code."""
        parameters = frozenset[str]().union(*self.parameters)
        for part in (each for argument in arguments for each in ast.walk(argument)):
            chain = dotted(part) if isinstance(part, ast.expr) else None
            if isinstance(part, ast.JoinedStr):
                pairs = zip(part.values, part.values[1:], strict=False)
                if any(_NAME_COMES.search(text_of(before) or "") for before, _ in pairs):
                    self.found.is_query_computed = True
            elif chain is not None and part in arguments:
                is_local = any(chain[0] in scope for scope in self.scopes)
                if chain[0] in parameters or (is_local and len(chain) > 1):
                    self.found.is_query_computed = True
                self.refer(Reference(chain, is_query=True))
            elif isinstance(part, ast.Call) and part in arguments:
                self.found.is_query_computed = True

    def visit_Subscript(self, node: ast.Subscript) -> None:
        chain = dotted(node.value)
        if chain is None:
            self.visit(node.value)
        else:
            self.found.attributes.update(chain[1:])
            self.refer(Reference(chain, index=node.slice))
        self.visit(node.slice)

    def chain(self, node: ast.expr, call: ast.Call | None = None) -> tuple[str, ...] | None:
        """Note `a.b.c` as a reference, and return it; None if it does not begin with a name."""
        chain = dotted(node)
        if chain is not None:
            self.found.attributes.update(chain[1:])
            self.refer(Reference(chain, call=call))
        return chain

    def refer(self, reference: Reference) -> None:
        if not any(reference.chain[0] in scope for scope in self.scopes):
            self.found.references.append(reference)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            imported = Imported(0, alias.name, None)
            self.found.imports.append(imported)
            top = Imported(0, alias.name.partition(".")[0], None)
            self.found.aliases[alias.asname or top.module] = imported if alias.asname else top

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            imported = Imported(node.level, node.module or "", alias.name)
            self.found.imports.append(imported)
            self.found.aliases[alias.asname or alias.name] = imported

    def visit_Global(self, node: ast.Global) -> None:
        self.found.references += [Reference((name,)) for name in node.names]

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.visit_all((*node.decorator_list, *_defaults(node.args)))
        annotations = [part.annotation for part in _parameters(node.args)]
        for annotation in (*annotations, node.returns):
            if annotation is not None:
                self.visit_annotation(annotation)
        self.visit_inside(_bound_names(node), node.body, _parameter_names(node))

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.visit_all(_defaults(node.args))
        self.visit_inside(_bound_names(node), [node.body], _parameter_names(node))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit_annotation(node.annotation)
        self.visit_all([part for part in (node.target, node.value) if part is not None])

    def visit_comprehension_scope(self, node: Comprehension) -> None:
        own = frozenset(
            name.id
            for generator in node.generators
            for name in ast.walk(generator.target)
            if isinstance(name, ast.Name)
        )
        self.visit(node.generators[0].iter)  # evaluated outside of the comprehension
        self.visit_inside(own, ast.iter_child_nodes(node))

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_comprehension_scope

    def visit_all(self, nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)

    def visit_inside(
        self,
        own: frozenset[str],
        nodes: Iterable[ast.AST],
        parameters: frozenset[str] = frozenset(),
    ) -> None:
        self.scopes.append(own)
        self.found.bound |= own
        self.parameters.append(parameters)
        self.visit_all(nodes)
        self.parameters.pop()
        self.scopes.pop()

    def visit_annotation(self, node: ast.expr) -> None:
        """Visit an annotation, and the expressions that it contains as strings."""
        self.visit(node)
        for part in ast.walk(node):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                try:
                    self.visit(ast.parse(part.value, mode="eval").body)
                except (SyntaxError, ValueError):
                    continue


def dotted(node: ast.expr) -> tuple[str, ...] | None:
    """Return `a.b.c` as ("a", "b", "c"); None if it does not begin with a name."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return (node.id, *reversed(names)) if isinstance(node, ast.Name) else None


def text_of(node: ast.AST | None) -> str | None:
    """Return the string of a constant, or None."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _defaults(arguments: ast.arguments) -> list[ast.expr]:
    """Return the default expressions, which are evaluated outside of the function."""
    return [each for each in (*arguments.defaults, *arguments.kw_defaults) if each is not None]


def _parameters(arguments: ast.arguments) -> list[ast.arg]:
    every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    return [part for part in (*every, arguments.vararg, arguments.kwarg) if part is not None]


def _parameter_names(node: FunctionNode) -> frozenset[str]:
    return frozenset(part.arg for part in _parameters(node.args))


def _names_bound_by(node: ast.AST) -> Iterator[str]:
    """Yield the names that a statement binds, other than by assignment."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            yield alias.asname or alias.name.partition(".")[0]


def _bound_names(node: FunctionNode) -> frozenset[str]:
    """
    Return the names that a function binds: parameters, assignments, definitions.

    A name that an import binds is left out: it means a module from outside.
    """
    names = set(_parameter_names(node))
    outer: set[str] = set()
    for part in _own_nodes(node):
        if not isinstance(part, ast.Import | ast.ImportFrom):
            names.update(_names_bound_by(part))
        if isinstance(part, ast.Name) and not isinstance(part.ctx, ast.Load):
            names.add(part.id)
        elif isinstance(part, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and part.name:
            names.add(part.name)
        elif isinstance(part, ast.MatchMapping) and part.rest:
            names.add(part.rest)
        elif isinstance(part, ast.Global | ast.Nonlocal):
            outer |= set(part.names)
    return frozenset(names - outer)


def _own_nodes(node: FunctionNode) -> Iterator[ast.AST]:
    """
    Yield the nodes of a function's own scope.

    A comprehension has a scope of its own, but a walrus in it binds outside, so the
    targets of its assignment expressions belong to the function.
    """
    waiting: list[ast.AST] = list(node.body) if isinstance(node.body, list) else [node.body]
    while waiting:
        part = waiting.pop()
        yield part
        if isinstance(part, Comprehension):
            waiting += [each.target for each in ast.walk(part) if isinstance(each, ast.NamedExpr)]
        elif not isinstance(part, FunctionNode | ast.ClassDef):
            waiting += ast.iter_child_nodes(part)


def remove_docstrings(tree: ast.AST) -> None:
    """Remove the docstrings of a tree in place."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and text_of(first.value) is not None:
                del node.body[0]


# Module level


def module_names(tree: ast.Module) -> list[str]:
    """Return the names that a module binds at its own level."""
    names: dict[str, None] = {}
    for part in _module_level(tree):
        names |= dict.fromkeys(_names_bound_by(part))
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            names[part.id] = None
    return list(names)


def module_imports(tree: ast.Module) -> list[Imported]:
    """Return what a module imports as it loads."""
    visitor = _Visitor(References())
    visitor.visit_all(
        part for part in _module_level(tree) if isinstance(part, ast.Import | ast.ImportFrom)
    )
    return visitor.found.imports


def _module_level(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes outside of every function and class."""
    for child in ast.iter_child_nodes(tree):
        yield child
        if not isinstance(child, FunctionNode | ast.ClassDef):
            yield from _module_level(child)


def has_effect(node: ast.stmt) -> bool:
    """Return whether a statement at module level does more than bind names."""
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Assign):
        plain = (ast.Name, ast.Tuple, ast.List)
        return not all(isinstance(target, plain) for target in node.targets)
    if isinstance(node, ast.AnnAssign):
        return not isinstance(node.target, ast.Name)
    if isinstance(node, ast.If):
        # `if __name__ == "__main__"` and `if TYPE_CHECKING` are false in a run.
        parts = list(ast.walk(node.test))
        names = {getattr(part, "id", getattr(part, "attr", None)) for part in parts}
        is_false = bool({"__name__", "TYPE_CHECKING"} & names)
        return not is_false and any(map(has_effect, [*node.body, *node.orelse]))
    if isinstance(node, ast.Try):
        handlers = [part for handler in node.handlers for part in handler.body]
        return any(map(has_effect, [*node.body, *handlers, *node.orelse, *node.finalbody]))
    definitions = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return not isinstance(node, (*definitions, ast.Pass, ast.Global))
