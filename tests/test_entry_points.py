"""Missing libraries are named with a command that works in the environment that runs."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest

from clewline import entry_points
from clewline.entry_points import install_line


def test_an_environment_without_pip_is_told_of_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/an environment/bin/python")
    monkeypatch.setattr(entry_points, "find_spec", lambda name: None)
    line = install_line(["httpx>=0.27", "grpcio"])
    assert line == "uv pip install --python '/an environment/bin/python' 'httpx>=0.27' 'grpcio'"
    monkeypatch.setattr(entry_points, "find_spec", lambda name: find_spec("sys"))
    assert install_line(["grpcio"]) == "'/an environment/bin/python' -m pip install 'grpcio'"
