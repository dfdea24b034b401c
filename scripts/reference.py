"""
Writes the reference in docs/client.md, below its mark, from the client's docstrings.

    .venv/bin/python scripts/reference.py [--check]

With --check nothing is written: exit 1 says that the page is out of date.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "clewline" / "client"
PAGE = ROOT / "docs" / "client.md"
SECTIONS = {
    "Args": "Arguments",
    "Returns": "Returns",
    "Raises": "Raises",
    "Example": "Example",
}

MARK = "<!-- What follows is written from the docstrings by scripts/reference.py. -->\n"


def main(arguments: list[str]) -> int:
    """Write the page, or say that it is out of date."""
    before = PAGE.read_text("utf-8")
    page = before.partition(MARK)[0] + rendered()
    if "--check" not in arguments:
        PAGE.write_text(page, "utf-8")
        return 0
    if before == page:
        return 0
    print(
        "docs/client.md is out of date. Run .venv/bin/python scripts/reference.py.", file=sys.stderr
    )
    return 1


def rendered() -> str:
    """Render what follows the mark, and the mark."""
    parts = [MARK]
    parts += described(SOURCE / "client.py", "Client")
    parts += described(SOURCE / "async_client.py", "AsyncClient")
    parts.append("## Answers\n")
    for name in (
        "PredictResult",
        "Prediction",
        "PredictionRecord",
        "EndpointInfo",
        "EndpointFailure",
    ):
        parts += valued(SOURCE / "results.py", name)
    return "\n".join(parts)


def described(path: Path, name: str) -> Iterator[str]:
    """Describe a class by its docstring and its public methods."""
    node = found(path, name)
    methods = [
        each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    shared = found(SOURCE / "api_calls.py", "Connection")  # both clients have its constructor
    init = next(n for n in shared.body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
    yield f"## {name}\n"
    yield f"```python\n{signature(init, name)}\n```\n"
    yield markdown(ast.get_docstring(node) or "")
    for each in methods:
        if not each.name.startswith("_"):
            yield f"### {name}.{each.name}\n"
            yield f"```python\n{signature(each, each.name)}\n```\n"
            yield markdown(ast.get_docstring(each) or "")


def valued(path: Path, name: str) -> Iterator[str]:
    """Describe a struct by its docstring and its fields as they are written."""
    node = found(path, name)
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
    lines = path.read_text("utf-8").splitlines()
    block = "\n".join(lines[fields[0].lineno - 1 : fields[-1].end_lineno])
    yield f"### {name}\n"
    yield markdown(ast.get_docstring(node) or "")
    yield f"```python\n{textwrap.dedent(block)}\n```\n"


def found(path: Path, name: str) -> ast.ClassDef:
    """Find a class in a module."""
    tree = ast.parse(path.read_text("utf-8"))
    return next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name)


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> str:
    """Write a call, one argument a line where there are several."""
    plain, named = node.args.args, node.args.kwonlyargs
    defaults = [None] * (len(plain) - len(node.args.defaults)) + list(node.args.defaults)
    shown = [argument(each, value) for each, value in zip(plain, defaults, strict=True)][1:]
    if named:
        shown.append("*")
    pairs = zip(named, node.args.kw_defaults, strict=True)
    shown += [argument(each, value) for each, value in pairs]
    is_async = isinstance(node, ast.AsyncFunctionDef)
    returns = (
        "" if name[0].isupper() or node.returns is None else f" -> {ast.unparse(node.returns)}"
    )
    head = f"{'async ' if is_async else ''}{name}("
    if len(shown) < 2:
        return f"{head}{''.join(shown)}){returns}"
    return head + "\n" + "".join(f"    {each},\n" for each in shown) + f"){returns}"


def argument(node: ast.arg, default: ast.expr | None) -> str:
    """Write an argument with its type and default."""
    text = node.arg if node.annotation is None else f"{node.arg}: {ast.unparse(node.annotation)}"
    if default is None:
        return text
    return f"{text} = {ast.unparse(default)}"


def markdown(text: str) -> str:
    """Turn a docstring into Markdown: its sections become lists."""
    lines: list[str] = []
    is_list = False
    for line in text.splitlines():
        title = line.strip().removesuffix(":")
        if title in SECTIONS and line.strip().endswith(":") and not line.startswith(" "):
            lines += [f"*{SECTIONS[title]}*\n"]
            is_list = title in ("Args", "Raises")
        elif is_list and (item := re.fullmatch(r" {4}([\w, ]+): (.*)", line)):
            lines.append(f"- `{item[1]}`: {item[2]}")
        elif is_list and line.startswith(" " * 8):
            lines.append(f"  {line.strip()}")
        else:
            is_list = is_list and not line
            lines.append(line.strip())
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
