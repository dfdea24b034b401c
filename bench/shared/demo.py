"""The project that `clewline init` makes, with its model trained, promoted and applied."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from clewline import project as projects
from clewline.project import Project

CLEWLINE = (str(Path(sys.executable).with_name("clewline")),)


def make(root: Path) -> Project:
    """Make the project `root` and bring it to the live revision `tumours#1`."""
    clewline("init", str(root), cwd=root.parent)
    clewline("run", "tumours", cwd=root)
    clewline("models", "promote", "tumours@1", "champion", cwd=root)
    clewline("endpoints", "apply", "tumours", cwd=root)
    return projects.load(root)


def background(project: Project) -> list[msgspec.Raw]:
    """The rows that the model's package brings along, JSON each."""
    (path,) = project.packages.glob("*/1/background.json")
    return msgspec.json.decode(path.read_bytes(), type=list[msgspec.Raw])


def clewline(*words: str, cwd: Path) -> str:
    """Call the command as a user does, and give what it prints."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [*CLEWLINE, *words], cwd=cwd, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"clewline {' '.join(words)}: {done.stderr}")
    return done.stdout
