"""Contracts need pytest, which using clewline does not."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("name", ["blob_store", "catalog", "executor", "node", "router", "runtime"])
def test_without_pytest_a_contract_says_what_to_install(name):
    code = f"import sys; sys.modules['pytest'] = None; import clewline.testing.{name}"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert made.returncode == 1
    last = made.stderr.splitlines()[-1]
    assert "The contracts of clewline.testing run under pytest, which is not installed: " in last
    assert last.endswith(" 'pytest'")
