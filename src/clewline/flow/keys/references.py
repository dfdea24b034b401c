"""What a piece of source refers to: the names that it takes from outside of itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


@dataclass(frozen=True, slots=True)
class Reference:
    """A name from outside with the attributes taken of it: `helpers.f` is ("helpers", "f")."""

    chain: tuple[str, ...]
    call: ast.Call | None = None  # when it is called
    index: ast.expr | None = None  # when it is subscripted


@dataclass(frozen=True, slots=True)
class Imported:
    """An import inside of a function: `from ..a import b` is (2, "a", "b")."""

    level: int
    module: str
    name: str | None  # None for `import module`
    bound: str  # the local name


@dataclass(slots=True)
class Scan:
    """What was found."""

    references: list[Reference] = field(default_factory=list)
    imports: list[Imported] = field(default_factory=list)
    attributes: set[str] = field(default_factory=set)  # every attribute name, of anything


def scan(tree: ast.AST) -> Scan:
    """
    Find what a function, class, module or statement takes from outside.

    Names that a function binds itself are its own. Annotations count, also those
    written as text: libraries read them at run time.
    """
    found = Scan()
    _Visitor(found).visit(tree)
    return found


class _Visitor(ast.NodeVisitor):
    def __init__(self, found: Scan) -> None:
        self.found = found
        self.scopes: list[frozenset[str]] = []

    def is_outside(self, name: str) -> bool:
        return not any(name in scope for scope in self.scopes)

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Store):
            self.refer(Reference((node.id,)))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.found.attributes.add(node.attr)
        chain = dotted(node)
        if chain is None:
            self.visit(node.value)
        else:
            self.found.attributes.update(chain[1:])
            self.refer(Reference(chain))

    def visit_Assign(self, node: ast.Assign) -> None:
        """`wrapper.__doc__ = f.__doc__` hands a docstring on, and asks nothing of it."""
        before = "__doc__" in self.found.attributes
        self.generic_visit(node)
        if not before and all(
            isinstance(target, ast.Attribute) and target.attr == "__doc__"
            for target in node.targets
        ):
            self.found.attributes.discard("__doc__")

    def visit_Call(self, node: ast.Call) -> None:
        chain = dotted(node.func)
        if chain is None:
            self.visit(node.func)
        else:
            self.found.attributes.update(chain[1:])
            self.refer(Reference(chain, call=node))
        named = chain == ("getattr",) and len(node.args) > 1 and text_of(node.args[1]) is not None
        for part in (*node.args[1 if named and dotted(node.args[0]) else 0 :], *node.keywords):
            self.visit(part)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        chain = dotted(node.value)
        if chain is None:
            self.visit(node.value)
        else:
            self.refer(Reference(chain, index=node.slice))
        self.visit(node.slice)

    def refer(self, reference: Reference) -> None:
        if self.is_outside(reference.chain[0]):
            self.found.references.append(reference)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            bound = alias.asname or alias.name.partition(".")[0]
            self.found.imports.append(Imported(0, alias.name, None, bound))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self.found.imports.append(
                Imported(node.level, node.module or "", alias.name, alias.asname or alias.name)
            )

    def visit_Global(self, node: ast.Global) -> None:
        for name in node.names:
            self.found.references.append(Reference((name,)))

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for part in (*node.decorator_list, *argument_defaults(node.args)):
            self.visit(part)
        for annotation in annotation_nodes(node):
            self.annotation(annotation)
        self.inside(bound_names(node), node.body)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        for part in argument_defaults(node.args):
            self.visit(part)
        self.inside(bound_names(node), [node.body])

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.annotation(node.annotation)
        for part in (node.target, node.value):
            if part is not None:
                self.visit(part)

    def comprehension(self, node: Comprehension) -> None:
        own = frozenset(
            name.id
            for generator in node.generators
            for name in ast.walk(generator.target)
            if isinstance(name, ast.Name)
        )
        self.visit(node.generators[0].iter)  # evaluated outside of the comprehension
        self.inside(own, list(ast.iter_child_nodes(node)))

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = comprehension

    def inside(
        self, own: frozenset[str], nodes: list[ast.expr] | list[ast.stmt] | list[ast.AST]
    ) -> None:
        self.scopes.append(own)
        for node in nodes:
            self.visit(node)
        self.scopes.pop()

    def annotation(self, node: ast.expr) -> None:
        """An annotation, and the expressions that stand in it as text."""
        self.visit(node)
        for part in ast.walk(node):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                inner = expression(part.value)
                if inner is not None:
                    self.visit(inner)


def dotted(node: ast.expr) -> tuple[str, ...] | None:
    """`a.b.c` as ("a", "b", "c"); None when it does not begin with a name."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return (node.id, *reversed(names)) if isinstance(node, ast.Name) else None


def text_of(node: ast.expr) -> str | None:
    """The text of a constant, or None."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def expression(text: str) -> ast.expr | None:
    """Text as an expression, or None."""
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        return None


def argument_defaults(arguments: ast.arguments) -> Iterator[ast.expr]:
    """Expressions of defaults, which are evaluated outside of the function."""
    yield from arguments.defaults
    yield from (default for default in arguments.kw_defaults if default is not None)


def annotation_nodes(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.expr]:
    """Annotations of the parameters and of what is returned."""
    yield from (part.annotation for part in parameters(node.args) if part.annotation is not None)
    if node.returns is not None:
        yield node.returns


def parameters(arguments: ast.arguments) -> Iterator[ast.arg]:
    """Every parameter."""
    yield from (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    yield from (part for part in (arguments.vararg, arguments.kwarg) if part is not None)


def bound_names(node: FunctionNode) -> frozenset[str]:
    """Names that a function binds: parameters, assignments, imports, inner functions."""
    names = {part.arg for part in parameters(node.args)}
    outer: set[str] = set()
    for part in own_nodes(node):
        if isinstance(part, ast.Name) and not isinstance(part.ctx, ast.Load):
            names.add(part.id)
        elif isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(part.name)
        elif isinstance(part, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in part.names}
        elif isinstance(part, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and part.name:
            names.add(part.name)
        elif isinstance(part, ast.MatchMapping) and part.rest:
            names.add(part.rest)
        elif isinstance(part, ast.Global | ast.Nonlocal):
            outer |= set(part.names)
    return frozenset(names - outer)


def own_nodes(node: FunctionNode) -> Iterator[ast.AST]:
    """
    Nodes of a function's own scope.

    Comprehensions have a scope of their own, but a walrus in one binds outside,
    so their assignments expressions are looked into.
    """
    waiting: list[ast.AST] = list(node.body) if isinstance(node.body, list) else [node.body]
    while waiting:
        part = waiting.pop()
        yield part
        if isinstance(part, Comprehension):
            waiting += [
                inner.target for inner in ast.walk(part) if isinstance(inner, ast.NamedExpr)
            ]
        elif not isinstance(part, FunctionNode | ast.ClassDef):
            waiting += ast.iter_child_nodes(part)


def without_docstrings(tree: ast.AST) -> ast.AST:
    """The same tree, its docstrings taken away in place; nothing else of it is changed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                del node.body[0]
    return tree


# ── module level ────────────────────────────────────────────────────────────


def bindings(tree: ast.Module) -> list[str]:
    """Names that a module binds at its own level."""
    names: dict[str, None] = {}
    for part in module_level(tree):
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            names[part.id] = None
        elif isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names[part.name] = None
        elif isinstance(part, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.partition(".")[0]: None for alias in part.names}
    return list(names)


def module_imports(tree: ast.Module) -> list[Imported]:
    """What a module imports as it loads."""
    found = Scan()
    visitor = _Visitor(found)
    for part in module_level(tree):
        if isinstance(part, ast.Import | ast.ImportFrom):
            visitor.visit(part)
    return found.imports


def module_level(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes outside of every function and class."""
    for child in ast.iter_child_nodes(tree):
        yield child
        if not isinstance(
            child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
        ):
            yield from module_level(child)


def has_effect(node: ast.stmt) -> bool:
    """Whether a statement at module level does more than bind names."""
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Assign):
        return not all(
            isinstance(target, ast.Name | ast.Tuple | ast.List) for target in node.targets
        )
    if isinstance(node, ast.AnnAssign):
        return not isinstance(node.target, ast.Name)
    if isinstance(node, ast.If):
        return not is_never_here(node.test) and any(map(has_effect, [*node.body, *node.orelse]))
    if isinstance(node, ast.Try):
        handlers = [part for handler in node.handlers for part in handler.body]
        return any(map(has_effect, [*node.body, *handlers, *node.orelse, *node.finalbody]))
    definitions = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return not isinstance(node, (*definitions, ast.Pass, ast.Global))


def is_never_here(test: ast.expr) -> bool:
    """`if __name__ == "__main__"` and `if TYPE_CHECKING`, which do not happen in a run."""
    names = {part.id for part in ast.walk(test) if isinstance(part, ast.Name)}
    attributes = {part.attr for part in ast.walk(test) if isinstance(part, ast.Attribute)}
    return bool({"__name__", "TYPE_CHECKING"} & (names | attributes))
