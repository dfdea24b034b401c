"""The prediction path and steps of this checkout beside those of another one, in one run."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import tempfile
import tomllib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from serving import in_turn
from shared import income
from shared.keep import keep
from shared.load import ratio, script, summary
from shared.servers import Running, Server, running

HERE = Path(__file__).parent.parent
CONNECTIONS = (1, 32, 128)


def main() -> None:
    """Measure both, print the ratios, keep them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path, help="another checkout, with its .venv")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each round")
    parser.add_argument("--no-save", action="store_true")
    options = parser.parse_args()
    checkouts = {"before": options.before.resolve(), "after": HERE}
    figures: dict[str, Any] = {"steps": steps(checkouts, options.rounds)}
    with tempfile.TemporaryDirectory() as folder:
        figures |= predictions(checkouts, Path(folder), options.rounds, options.seconds)
    if not options.no_save:
        keep("releases", figures)


def predictions(
    checkouts: dict[str, Path], scratch: Path, rounds: int, seconds: float
) -> dict[str, Any]:
    """Load the servers of the checkouts in turn, by REST and the Open Inference Protocol."""
    questions = {
        "native": income.native(income.sample()),
        "oip json": income.oip_json(income.sample(whole=True)),
    }
    figures: dict[str, Any] = {}
    with ExitStack() as stack:
        up = {
            name: stack.enter_context(running(server(checkout, scratch / name)))
            for name, checkout in checkouts.items()
        }
        for protocol, question in questions.items():
            lua = stack.enter_context(script(question))
            asked: list[tuple[str, Running, list[Path]]] = [
                (name, one, [lua]) for name, one in up.items()
            ]
            seen = in_turn(asked, CONNECTIONS, rounds, seconds)
            for count in CONNECTIONS:
                compared = ratio(seen["after"][count], seen["before"][count])
                figures[f"{protocol}, {count} connections"] = {
                    name: summary(results[count]) for name, results in seen.items()
                } | {"after to before": compared}
                print(f"{protocol}, {count} connections: {compared['requests']} times as many")
        figures["memory_mib"] = {name: round(one.memory_mib) for name, one in up.items()}
        figures["ready_s"] = {name: round(one.ready_s, 2) for name, one in up.items()}
    return figures


def server(checkout: Path, project: Path) -> Server:
    """Train and apply the income example of a checkout with its own command."""
    about = tomllib.loads((checkout / "pyproject.toml").read_text("utf-8"))["project"]
    (command,) = about["scripts"]
    program = str(checkout / ".venv" / "bin" / command)
    ignored = shutil.ignore_patterns(f".{command}")
    shutil.copytree(checkout / "examples" / "income", project, ignore=ignored)
    has_file = (project / f"{command}.toml").exists()  # as in checkouts of earlier releases
    for words in (
        ("init", ".") if has_file else ("init", "--template", "empty", "."),
        ("run", "income", f"data={income.DATA / 'adult'}"),
        ("models", "promote", "income@1", "champion"),
        ("endpoints", "apply", "income"),
    ):
        subprocess.run([program, *words], cwd=project, check=True, capture_output=True)
    question = income.native(income.sample(1))
    return Server(
        command,
        lambda port: (program, "serve", "income", "--port", str(port)),
        project,
        question,
    )


def steps(checkouts: dict[str, Path], rounds: int) -> dict[str, Any]:
    """Run each checkout's own benchmark of steps, in turn."""
    seen: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for name, checkout in checkouts.items():
            done = subprocess.run(
                [checkout / ".venv" / "bin" / "python", "bench/steps.py", "--no-save"],
                cwd=checkout,
                check=True,
                capture_output=True,
                text=True,
            )
            for what, ms in re.findall(r"(?m)^(\S.*?)\s+([\d.]+) ms", done.stdout):
                seen.setdefault(what, {}).setdefault(name, []).append(float(ms))
    figures: dict[str, Any] = {}
    for what, by in seen.items():
        figures[what] = {f"{name}_ms": round(statistics.median(ms), 3) for name, ms in by.items()}
        pairs = zip(by["after"], by["before"], strict=True)
        figures[what]["after to before"] = round(statistics.median(a / b for a, b in pairs), 2)
        print(f"{what}: {json.dumps(figures[what])}")
    return figures


if __name__ == "__main__":
    main()
