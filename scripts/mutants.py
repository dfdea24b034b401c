"""
Breaks the code in many small ways and lists the breaks that no test notices.

    .venv/bin/python scripts/mutants.py src/clewline/serve src/clewline/model --count 300

Each mutant changes one expression of one module. First the tests of the same folders run once, and
`coverage` (install it with `uv pip install coverage`) notes which test runs which line. A mutant
then runs the tests of its line, quick ones first, and those that mirror its module
(`src/clewline/a/b.py`: `tests/a/test_b.py`). A test that fails or takes too long kills the mutant.
The sources stay as they are: mutants live in a copy. Give `--map FILE` to keep what was noted for
the next run, and another `--seed` for other mutants.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
QUICK_S = 60.0
"""Seconds of tests of a line that are run for a mutant, beside those that mirror its module."""
PATIENCE = 4.0
"""How many times as long as without a mutant the tests may take, before they are ended."""
IMPORTED = ["numpy", "polars", "sklearn.pipeline", "onnxruntime", "msgspec"]
"""What most tests need: imported once, and not by each mutant anew."""

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
    lines: range  # of the changed expression

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
        lines = range(node.lineno, node.end_lineno + 1)
        yield Mutant(path, node.lineno, start, stop, changed, lines)


def changes(tree: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """List the nodes that can be changed, each with its new text; annotations stay."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.AnnAssign):
            if node.value is not None:
                yield from change(node.value)
                yield from changes(node.value)
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


def mirror_of(path: Path) -> str | None:
    """Return the test file that mirrors a module."""
    inside = path.relative_to(SOURCE / "clewline")
    own = ROOT / "tests" / inside.parent / f"test_{inside.stem}.py"
    return str(own.relative_to(ROOT)) if own.exists() else None


class TestMap(msgspec.Struct):
    """Which tests run a line, and how long each test takes."""

    __test__ = False
    seconds: dict[str, float]
    lines: dict[str, dict[int, list[str]]]

    def of(self, mutant: Mutant) -> tuple[list[str], float]:
        """Return the tests for a mutant, quick ones first, and the seconds that they take."""
        name = str(mutant.path.relative_to(SOURCE))
        lines = self.lines.get(name, {})
        covering = {test for line in mutant.lines for test in lines.get(line, [])}
        chosen, spent = [], 0.0
        for test in sorted(covering, key=lambda test: self.seconds[test]):
            spent += self.seconds[test]
            if spent > QUICK_S:
                break
            chosen.append(test)
        mirror = mirror_of(mutant.path)
        own = [test for test in self.seconds if test.partition("::")[0] == mirror]
        chosen += [test for test in own if test not in chosen]
        return chosen, sum(self.seconds[test] for test in chosen)


class Noted:
    """A plug-in of pytest that notes which test runs which line of ours."""

    def __init__(self) -> None:
        try:
            import coverage
        except ModuleNotFoundError:
            raise SystemExit("coverage is missing: uv pip install coverage") from None

        self.coverage = coverage.Coverage(data_file=None, source=[str(SOURCE)])
        self.seconds: dict[str, float] = {}
        self.unfit: set[str] = set()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.coverage.switch_context(item.nodeid)
        start = time.monotonic()
        yield
        self.seconds[item.nodeid] = time.monotonic() - start

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:  # without a mutant, so it can tell nothing of one
            self.unfit.add(report.nodeid)

    def test_map(self) -> TestMap:
        """Return what was noted."""
        data = self.coverage.get_data()
        lines = {
            str(Path(file).relative_to(SOURCE)): {
                line: [test for test in tests if test and test not in self.unfit]
                for line, tests in data.contexts_by_lineno(file).items()
            }
            for file in data.measured_files()
        }
        fit = {test: took for test, took in self.seconds.items() if test not in self.unfit}
        return TestMap(fit, lines)


def note(folders: list[str], file: Path) -> None:
    """Run tests without a mutant, and write which test runs which line."""
    noted = Noted()
    noted.coverage.start()
    pytest.main(["-q", "-p", "no:cacheprovider", *folders], plugins=[noted])
    noted.coverage.stop()
    file.write_bytes(msgspec.json.encode(noted.test_map()))


def start(tests: list[str], source: Path) -> int:
    """Run tests against a copy of the sources, in a child that starts with what most import."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    quiet = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(quiet, number)
    os.environ["PYTHONPATH"] = str(source)
    sys.path.insert(0, str(source))
    code = 99
    try:
        code = int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *tests]))
    finally:
        os._exit(code)


def survivors(mutants: list[Mutant], tests: TestMap, copies: list[Path]) -> Iterator[Mutant]:
    """Run the tests of each mutant, as many at a time as there are copies of the sources."""
    waiting, running = list(reversed(mutants)), {}
    while waiting or running:
        while waiting and copies:
            mutant, copy = waiting.pop(), copies.pop()
            chosen, seconds = tests.of(mutant)
            if not chosen:
                print(f"no test: {mutant}", flush=True)
                copies.append(copy)
                continue
            (copy / mutant.path.relative_to(SOURCE)).write_text(mutant.source(), "utf-8")
            until = time.monotonic() + PATIENCE * seconds + 30
            running[start(chosen, copy)] = (mutant, copy, until)
        time.sleep(0.05)
        for pid, (mutant, copy, until) in list(running.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if not done and time.monotonic() < until:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # servers that a failed test left, too
            if not done:
                os.waitpid(pid, 0)
            del running[pid]
            shutil.copy(mutant.path, copy / mutant.path.relative_to(SOURCE))
            copies.append(copy)
            if done and status == 0:
                yield mutant
            elif done and os.waitstatus_to_exitcode(status) in (3, 4, 5, 99):
                print(f"not run: {mutant}", flush=True)  # a fault of this script or of pytest


def main() -> None:
    """Sample mutants, run the tests of each, and list the survivors."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("paths", nargs="+", type=Path, help="folders or modules below src")
    parser.add_argument("--count", type=int, default=300, help="how many mutants to sample")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--tests", nargs="+", help="folders of tests; else those that mirror")
    parser.add_argument("--map", type=Path, help="which test runs which line; written if missing")
    options = parser.parse_args()
    paths = [path.resolve() for path in options.paths]
    files = [
        file
        for path in paths
        for file in ([path] if path.is_file() else sorted(path.rglob("*.py")))
    ]
    every = [mutant for file in files for mutant in mutants_of(file)]
    chosen = random.Random(options.seed).sample(every, min(options.count, len(every)))
    with tempfile.TemporaryDirectory() as scratch:
        noted = options.map or Path(scratch) / "map.json"
        if not noted.exists():
            tops = {path.relative_to(SOURCE / "clewline").parts[0] for path in files}
            folders = options.tests or [f"tests/{top}" for top in sorted(tops)]
            command = [sys.executable, __file__, "--note", str(noted), *folders]
            subprocess.run(command, cwd=ROOT, check=True)
        tests = msgspec.json.decode(noted.read_bytes(), type=TestMap)
        for name in IMPORTED:
            importlib.import_module(name)
        copies = [
            Path(shutil.copytree(SOURCE, Path(scratch) / str(number)))
            for number in range(options.jobs)
        ]
        os.chdir(ROOT)
        print(f"{len(chosen)} of {len(every)} mutants, seed {options.seed}", flush=True)
        alive = 0
        for mutant in survivors(chosen, tests, copies):
            alive += 1
            print(f"survives: {mutant}", flush=True)
    print(f"{len(chosen) - alive} of {len(chosen)} mutants are killed, {alive} survive")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--note"]:
        note(sys.argv[3:], Path(sys.argv[2]))
    else:
        main()
