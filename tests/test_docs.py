"""What the documents tell a reader to type works as it stands there."""

from __future__ import annotations

import doctest
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import free_port, tied

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"^```(\w+)(?: +(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def script(text: str) -> str:
    """A document as one shell script: its files written, its `sh` blocks run in order."""
    lines = ["set -euo pipefail", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    for language, path, body in FENCE.findall(text):
        if path:
            lines += [f"mkdir -p $(dirname {path})", f"cat > {path} <<'EOF'\n{body}EOF"]
        elif language == "sh":
            lines.append(body)
            if "serve" in body:
                lines.append(WAIT)
    text = "\n".join(lines).replace("clewline serve", "setpriv --pdeathsig KILL clewline serve")
    return text.replace("8471", str(free_port()))


WAIT = """python - <<'EOF'
import time, urllib.request
for _ in range(300):
    try:
        urllib.request.urlopen("http://127.0.0.1:8471/health/ready", timeout=1).close()
        break
    except OSError:
        time.sleep(0.05)
else:
    raise SystemExit("the server did not become ready")
EOF"""


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the tutorial prints, typed from top to bottom."""
    folder = tmp_path_factory.mktemp("tutorial")
    bin_folder = str(Path(sys.executable).parent)
    env = os.environ | {
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "GIT_AUTHOR_NAME": "reader",
        "GIT_AUTHOR_EMAIL": "reader@localhost",
        "GIT_COMMITTER_NAME": "reader",
        "GIT_COMMITTER_EMAIL": "reader@localhost",
    }
    bash = shutil.which("bash")
    assert bash is not None
    text = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
    done = subprocess.run(
        tied([bash, "-c", script(text)]),
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_tutorial_serves_a_model_and_follows_a_prediction(tutorial: str) -> None:
    for said in ("wine@1", "wine@2", "wine#1", "verified equal", '"label": "barolo"'):
        assert said in tutorial, tutorial


def test_the_tutorial_shows_a_refusal_and_a_flag(tutorial: str) -> None:
    assert '"code": "invalid_input"' in tutorial
    assert '"flag": "outside bounds"' in tutorial


SOURCE = ROOT / "src"
EXAMPLES = sorted(path for path in SOURCE.rglob("*.py") if ">>> " in path.read_text("utf-8"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_the_examples_of_a_module_give_what_they_say(path: Path) -> None:
    name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted
    assert not result.failed


DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_between_the_documents_leads_somewhere(path: Path) -> None:
    broken = [
        target
        for target in LINK.findall(path.read_text("utf-8"))
        if not (path.parent / target).exists()
    ]
    assert not broken


PATH = re.compile(r"`([\w./-]+\.py|(?:docs|scripts|tests)/[\w./-]*)`")


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_every_path_that_a_page_for_engineers_names_exists(page: str) -> None:
    paths = [path for path in PATH.findall((ROOT / page).read_text("utf-8")) if "NAME" not in path]
    assert paths
    folders = (ROOT, SOURCE / "clewline")
    assert not [path for path in paths if not any((folder / path).exists() for folder in folders)]


def test_every_page_is_linked_from_the_readme_or_from_another_page() -> None:
    linked = {
        (path.parent / target).resolve()
        for path in DOCUMENTS
        for target in LINK.findall(path.read_text("utf-8"))
        if (path.parent / target).resolve() != path
    }
    assert not set(ROOT.glob("docs/**/*.md")) - linked
