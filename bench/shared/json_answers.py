"""Models registered in a project, served by `clewline serve`, and asked in JSON."""

from __future__ import annotations

import json
import tempfile
import warnings
from contextlib import chdir, suppress
from pathlib import Path
from typing import Any

import pandas as pd
from shared.demo import CLEWLINE, clewline
from shared.random_pipelines import TARGET, Case
from shared.servers import Question, Server, ask, running

import clewline as cl
from clewline.errors import ClewlineError

Predictions = list[dict[str, Any]]


def json_answers(cases: dict[str, Case], rows: int) -> dict[str, Predictions]:
    """
    Return a server's predictions for the first rows of each case, by the names of the models.

    A model that cannot be registered, and one whose rows are refused, has none.
    """
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        clewline("init", str(project), "--template", "empty", cwd=Path(folder))
        names = [name for name, case in cases.items() if _register(project, name, case)]
        clewline("endpoints", "apply", cwd=project)
        questions = {
            name: Question(f"/v1/endpoints/{name}/predict", (body(cases[name].rows[:rows]),))
            for name in names
        }

        def command(port: int) -> tuple[str, ...]:
            return (*CLEWLINE, "serve", "--port", str(port))

        ready = Question("/health/live", (None,), {})  # type: ignore[arg-type]
        with running(Server("clewline", command, project, ready)) as server:
            for name, question in questions.items():
                with suppress(OSError):  # refused: a status of 422
                    said = json.loads(ask(server.port, question, timeout_s=120))
                    found[name] = said["predictions"]
    return found


def body(rows: pd.DataFrame) -> bytes:
    """Return a request for rows."""
    columns = {}
    for name in rows:
        column = rows[name]
        if column.dtype.kind == "M":
            columns[name] = [moment.isoformat() for moment in column]
        else:
            plain = column.astype(object)
            columns[name] = plain.where(column.notna(), None).tolist()
    return json.dumps({"rows": pd.DataFrame(columns, dtype=object).to_dict("records")}).encode()


def _register(project: Path, name: str, case: Case) -> bool:
    model = case.model if case.bare is None else case.bare
    with chdir(project), warnings.catch_warnings(action="ignore"):
        try:
            cl.register(name, model, train=case.train, target=TARGET)
        except ClewlineError:
            return False
    (project / "endpoints").mkdir(exist_ok=True)
    (project / "endpoints" / f"{name}.yaml").write_text(f"endpoint: {name}\nmodel: {name}@1\n")
    return True
