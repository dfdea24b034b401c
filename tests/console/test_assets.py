"""What pages load comes from the wheel, is small, and is what others published."""

from __future__ import annotations

import gzip
import hashlib
import re

from clewline.console.assets import FOLDER

SCRIPT_BYTES = 60_000
PACKAGE = FOLDER.parent


def test_libraries_are_unchanged_and_their_licences_lie_beside_them() -> None:
    stated = re.findall(
        r"\| `(.+?)` \| .+? \| .+? `(.+?)` \| (\w{64}) \|",
        (FOLDER / "vendor/README.md").read_text(),
    )
    files = {path.name for path in (FOLDER / "vendor").iterdir()}
    assert {name for name, _, _ in stated} == {
        name for name in files if name.endswith((".js", ".css"))
    }
    for name, licence, digest in stated:
        assert hashlib.sha256((FOLDER / "vendor" / name).read_bytes()).hexdigest() == digest
        assert licence in files


def test_all_script_together_is_small_over_the_wire() -> None:
    scripts = [*FOLDER.rglob("*.js"), *(PACKAGE / "pages").glob("*.js")]
    assert sum(len(gzip.compress(path.read_bytes(), 9)) for path in scripts) < SCRIPT_BYTES


def test_templates_hold_no_inline_script_and_no_inline_style() -> None:
    templates = [*PACKAGE.rglob("*.html")]
    assert templates
    for path in templates:
        text = path.read_text()
        assert not re.search(
            r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:", text
        ), path
