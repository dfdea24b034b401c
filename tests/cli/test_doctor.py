"""`clewline doctor`, as it is called."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from clewline.cli.main import status


def test_doctor_of_a_sound_project_says_so(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(["doctor"]) == 0
    assert capsys.readouterr().out == "All is well.\n"


def test_doctor_names_what_it_finds_and_answers_no(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = next((recorded / ".clewline/blobs/packs").glob("*.pack"))
    data = bytearray(pack.read_bytes())
    data[-1] ^= 1
    pack.write_bytes(data)
    assert status(["doctor"]) == 1
    assert "damaged blob  The blob" in capsys.readouterr().out
    assert status(["doctor", "--json"]) == 1
    assert [found["code"] for found in msgspec.json.decode(capsys.readouterr().out)] == [
        "damaged_blob"
    ]


def test_doctor_fixes_what_needs_no_judgement(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = next((recorded / ".clewline/blobs/packs").glob("*.pack"))
    with pack.open("ab") as file:
        file.write(pack.read_bytes()[:20])
    assert status(["doctor", "--quick"]) == 1
    assert status(["doctor", "--fix"]) == 0
    assert capsys.readouterr().out.endswith("All is well.\n")
