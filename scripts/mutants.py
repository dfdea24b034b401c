"""
Breaks the code in many small ways and lists the breaks that no test notices.

    .venv/bin/python scripts/mutants.py src/clewline/serve src/clewline/model --count 300

Each mutant changes one expression of one module and runs the tests that mirror the module
(`src/clewline/a/b.py`: `tests/a/test_b.py`, or else the folder `tests/a`). A test that fails or
takes too long kills the mutant. The sources stay as they are: mutants live in a copy.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
PATIENCE = 4.0
"""How many times as long as without a mutant the tests may take, before they are ended."""

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.Pow: ast.Mult,
}


@dataclass(frozen=True)
class Mutant:
    """One change of one module: the text between two positions, and what replaces it."""

    path: Path
    line: int
    start: int  # in characters of the file
    stop: int
    text: str

    def source(self) -> str:
        """Return the text of the changed module."""
        before = self.path.read_text("utf-8")
        return before[: self.start] + self.text + before[self.stop :]

    def __str__(self) -> str:
        before = self.path.read_text("utf-8")[self.start : self.stop]
        place = f"{self.path.relative_to(ROOT)}:{self.line}"
        return f"{place}: {' '.join(before.split())} → {self.text}"


def mutants_of(path: Path) -> Iterator[Mutant]:
    """List every mutant of a module."""
    text = path.read_text("utf-8")
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def at(line: int, column: int) -> int:
        row = text[starts[line - 1] : starts[line]]
        return starts[line - 1] + len(row.encode()[:column].decode())

    for node, changed in changes(ast.parse(text)):
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start, stop = at(node.lineno, node.col_offset), at(node.end_lineno, node.end_col_offset)
        yield Mutant(path, node.lineno, start, stop, changed)


def changes(tree: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """List the nodes that can be changed, each with its new text; annotations stay."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.AnnAssign):
            if node.value is not None:
                yield from changes(ast.Module([ast.Expr(node.value)], []))
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for statement in node.body:
                yield from changes(ast.Module([statement], []))
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield from change(node)
        yield from changes(node)


def change(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """List the changes of one node itself."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        other = COMPARISONS[type(node.ops[0])]()
        yield node, f"({ast.unparse(ast.Compare(node.left, [other], node.comparators))})"
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        if not any(isinstance(side, ast.JoinedStr) for side in (node.left, node.right)):
            other_op = OPERATORS[type(node.op)]()
            yield node, f"({ast.unparse(ast.BinOp(node.left, other_op, node.right))})"
    elif isinstance(node, ast.BoolOp):
        swapped = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield node, f"({ast.unparse(ast.BoolOp(swapped, node.values))})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node, f"bool({ast.unparse(node.operand)})"
    elif isinstance(node, ast.IfExp):
        yield node, f"({ast.unparse(ast.IfExp(node.test, node.orelse, node.body))})"
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield node, str(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield node, repr(node.value + 1)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await):
        yield node, "pass"


def tests_of(path: Path) -> list[str]:
    """Return the tests that mirror a module: its own, or those of the nearest folder."""
    inside = path.relative_to(SOURCE / "clewline")
    own = ROOT / "tests" / inside.parent / f"test_{inside.stem}.py"
    if own.exists():
        return [str(own.relative_to(ROOT))]
    folder = ROOT / "tests" / inside.parent
    while not folder.is_dir():
        folder = folder.parent
    return [str(folder.relative_to(ROOT))]


def run(tests: list[str], source: Path, timeout_s: float) -> tuple[bool, float]:
    """Run tests against a copy of the sources: whether they pass, and the seconds they took."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    start = time.monotonic()
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(source)},
            capture_output=True,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        return False, time.monotonic() - start
    return done.returncode == 0, time.monotonic() - start


def main() -> None:
    """Sample mutants, run the tests of each, and list the survivors."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("paths", nargs="+", type=Path, help="folders or modules below src")
    parser.add_argument("--count", type=int, default=300, help="how many mutants to sample")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    files = [
        file.resolve()
        for path in options.paths
        for file in ([path] if path.is_file() else sorted(path.rglob("*.py")))
    ]
    every = [mutant for file in files for mutant in mutants_of(file)]
    chosen = random.Random(options.seed).sample(every, min(options.count, len(every)))
    print(f"{len(chosen)} of {len(every)} mutants, seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        copies: Queue[Path] = Queue()
        for number in range(options.jobs):
            copies.put(Path(shutil.copytree(SOURCE, Path(scratch) / str(number))))
        usual: dict[tuple[str, ...], float] = {}
        copy = copies.get()
        for tests in sorted({tuple(tests_of(mutant.path)) for mutant in chosen}):
            passed, usual[tests] = run(list(tests), copy, 900)
            if not passed:
                raise SystemExit(f"{' '.join(tests)} fails without a mutant")
        copies.put(copy)

        def survives(mutant: Mutant) -> bool:
            copy = copies.get()
            target = copy / mutant.path.relative_to(SOURCE)
            whole = target.read_text("utf-8")
            try:
                target.write_text(mutant.source(), "utf-8")
                tests = tests_of(mutant.path)
                alive, _ = run(tests, copy, PATIENCE * usual[tuple(tests)] + 20)
            finally:
                target.write_text(whole, "utf-8")
                copies.put(copy)
            if alive:
                print(f"survives: {mutant}", flush=True)
            return alive

        with ThreadPoolExecutor(options.jobs) as threads:
            alive = sum(threads.map(survives, chosen))
    print(f"{len(chosen) - alive} of {len(chosen)} mutants are killed, {alive} survive")


if __name__ == "__main__":
    main()
