"""The main job, as `scripts/demo` shows it: one command from nothing to a replayed prediction."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from support import tied

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def printed() -> str:
    """What `scripts/demo --once` prints."""
    command = tied([ROOT / "scripts" / "demo", "--once"])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_model_is_registered_and_answers(printed: str) -> None:
    assert "tumours@1" in printed
    assert re.search(r'"label": ?"(malignant|benign)"', printed)


def test_why_leads_from_the_answer_back_to_the_data(printed: str) -> None:
    line = printed.split("clewline why", 1)[1].split("clewline replay", 1)[0]
    for word in ("tumours#1", "tumours@1", "verified equal", "trees", "commit", "569 rows"):
        assert word in line, line


def test_the_prediction_and_the_run_replay_bit_for_bit(printed: str) -> None:
    replays = printed.split("clewline replay")[1:]
    assert len(replays) == 2
    assert all(re.search(r"equal|same bits", replay) for replay in replays), replays
