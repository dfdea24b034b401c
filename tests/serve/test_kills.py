"""Nothing that was answered is lost when the server is killed with SIGKILL under load."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import msgspec

from clewline.project import Project

BENCH = Path(__file__).parent.parent.parent / "bench"


def load_bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_kills", BENCH / "kills.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_kills"] = module
    spec.loader.exec_module(module)
    return module


def test_kills_of_workers_and_supervisors_under_load_lose_no_answer_and_damage_nothing(
    tmp_path: Path, loans: Callable[[Path], Project]
) -> None:
    kills = load_bench()
    project = loans(tmp_path)
    bodies = kills.bodies_of(project)
    large = msgspec.json.encode({"rows": [{"age": 39, "hours": 40.5}] * 3000})
    outcome = kills.kill_often(project, {"income": [*bodies, large], "sure": bodies}, 6)
    print(outcome)  # the figures; pytest -s shows them
    assert outcome.kills == {"worker": 2, "supervisor": 2, "all": 2}
    assert outcome.predictions > 1000
    assert outcome.retried > 0
    assert outcome.is_clean, outcome
