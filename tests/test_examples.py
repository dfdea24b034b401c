"""The examples run, from their data to an explanation."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from support import PATIENCE_S, process

from clewline.cli.main import status

ROOT = Path(__file__).parent.parent
CLEWLINE = Path(sys.executable).parent / "clewline"
LINES = 4000  # of the comments, which are enough to learn from quickly
COMMENT = "My uncle told me that reddit removed my comments, lol. Anyone surprised?"


def moderated(folder: Path) -> Path:
    """Copy the first comments."""
    data = Path(os.environ.get("CLEWLINE_DATA", ROOT.parent / "shared" / "data"))
    source = data / "reddit-science-removal" / "reddit_test.csv.gz"
    if not source.exists():
        pytest.skip(f"there is no {source}: set CLEWLINE_DATA to the folder of its folder")
    folder.mkdir()
    rows = gzip.decompress(source.read_bytes()).splitlines(keepends=True)[:LINES]
    (folder / source.name).write_bytes(gzip.compress(b"".join(rows)))
    return folder


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    assert status([*words, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_a_removed_comment_is_explained_by_its_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = moderated(tmp_path / "data")
    project = tmp_path / "moderation"
    ignored = shutil.ignore_patterns(".clewline", "clewline.toml", "__pycache__")
    shutil.copytree(ROOT / "examples" / "moderation", project, ignore=ignored)
    monkeypatch.chdir(project)
    assert status(["init", "--template", "empty", "."]) == 0
    for command in (
        f"run moderation data={data}",
        "models promote moderation@1 champion",
        "endpoints apply moderation",
    ):
        subprocess.run([CLEWLINE, *command.split()], check=True, capture_output=True)
    command = [CLEWLINE, "serve", "moderation", "--port", "0"]
    with process(command, stderr=subprocess.PIPE, text=True) as server:
        said = ""
        while not (found := re.search(r"Ready.*(http://127[^ ]+:\d+)", said, re.DOTALL)):
            said += (line := server.stderr.readline())
            assert line, said
        request = Request(
            f"{found[1]}/v1/endpoints/moderation/predict",
            json.dumps({"comment": f"<b>{COMMENT.upper()}</b> https://example.org"}).encode(),
            {"Content-Type": "application/json"},
        )
        with urlopen(request, timeout=PATIENCE_S) as answer:
            (prediction,) = json.load(answer)["predictions"]
    assert prediction["label"] is True
    anchor = printed(capsys, "explain", prediction["id"])
    assert (anchor["kind"], anchor["status"], anchor["answer"]) == ("anchors", "met", True)
    cleaned = "b my uncle told me that reddit removed my comments lol anyone surprised b webaddress"
    for condition in anchor["conditions"]:
        start, end = condition["positions"][0]
        assert cleaned[start:end] == condition["word"]
    words = {condition["word"] for condition in anchor["conditions"]}
    assert words & {"my", "comments", "reddit", "removed", "lol"}
