"""MLflow's own client library gets from clewline what native REST answers."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

SCRIPT = Path(__file__).with_name("mlflow_client.py")
ROWS = [
    {"age": 39, "hours": 40.5, "job": "nurse"},
    {"age": 40, "hours": 1, "job": "smith"},
    {"age": 120, "hours": 2, "job": None},
]


@pytest.fixture(scope="module")
def found(income: Any, clients: Path) -> dict[str, Any]:
    """What the client printed."""
    done = subprocess.run(
        [clients / "python", SCRIPT, str(income.port)],
        capture_output=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr.decode()
    printed: dict[str, Any] = msgspec.json.decode(done.stdout)
    return printed


def test_a_data_frame_gets_the_labels_of_native_rest_however_it_is_sent(found, income):
    wanted = [each["label"] for each in income.predict({"rows": ROWS})[1]["predictions"]]
    ways = ["split", "floats", "indexed", "params", "records", "lists", "inputs", "instances"]
    assert {way: found[way] for way in [*ways, "csv", "array"]} == dict.fromkeys(
        [*ways, "csv", "array"], wanted
    )


def test_ids_pass_through_the_client_and_lead_to_the_log(found, income):
    shown = income.ask("GET", f"/v1/predictions/{found['ids'][2]}")[1]
    assert shown["row"] == ROWS[2]


def test_the_client_shows_what_is_wrong_and_finds_a_version(found):
    assert "error code 422" in found["refused"]
    assert "'job'" in found["refused"]
    assert found["version"].startswith("3.")
