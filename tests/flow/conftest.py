"""A project in a temporary folder, as a user would write one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from clewline import project as projects
from clewline.flow.pipeline_files import find_pipeline
from clewline.flow.run import execute
from clewline.project import Project
from clewline.store import Store
from clewline.store.records import Run, StepRun

HEADER = "from __future__ import annotations\nimport clewline as cl\nfrom pathlib import Path\n"


class Workbench:
    """A project that a test writes files into and runs pipelines of."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True)
        (root / "clewline.toml").write_text('[project]\nname = "bench"\nid = "0"\n')
        self.root = root
        self.project: Project = projects.load(root)
        self.store = Store.create(self.project.store_root)

    def write(self, name: str, text: str) -> Path:
        """Write a Python file of the project, with the usual imports before it."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEADER + dedent(text))
        return path

    def run(self, pipeline: str = "main", /, **params: Any) -> Run:
        """Run a pipeline of `pipelines.py`."""
        options = {k: params.pop(k) for k in ("seed", "cache", "listener") if k in params}
        found = find_pipeline(self.project, pipeline)
        return execute(found, params, project=self.project, store=self.store, **options)

    def steps(self, run: Run) -> list[StepRun]:
        """The step runs of a run, by their order."""
        return self.store.catalog.find(StepRun, run=run.id, order="index", limit=None)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workbench]:
    """A project, in its folder, forgotten by this process afterwards."""
    made = Workbench(tmp_path / "proj")
    monkeypatch.chdir(made.root)
    before = list(sys.path)
    yield made
    made.store.close()
    sys.path[:] = before
