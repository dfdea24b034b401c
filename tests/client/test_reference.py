"""The reference of the client says what its docstrings say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from clewline import client

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "client.md").read_text("utf-8")


def test_the_page_is_up_to_date():
    script = ROOT / "scripts" / "reference.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_every_public_name_and_call_is_on_the_page():
    titles = set(re.findall(r"^##+ (\S+)$", PAGE, re.MULTILINE))
    for name in client.__all__:
        assert name in titles or f"`clewline.client.{name}`" in PAGE
    for kind in (client.Client, client.AsyncClient):
        calls = {f"{kind.__name__}.{name}" for name in vars(kind) if not name.startswith("_")}
        assert calls <= titles


def test_the_async_client_has_the_calls_of_the_other_one():
    def public(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert public(client.Client) == public(client.AsyncClient)
