"""One thing has one name: class names are unique, and retired words do not come back."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "clewline"
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text("utf-8")


def test_a_public_class_name_stands_in_one_module() -> None:
    modules = defaultdict(list)
    for path in SOURCE.rglob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules[node.name].append(str(path.relative_to(SOURCE)))
    assert {name: found for name, found in modules.items() if len(found) > 1} == {}


def test_the_glossary_explains_each_word_once_in_order() -> None:
    words = re.findall(r"^\*\*(.+?)\*\*", GLOSSARY.partition("## Retired")[0], re.MULTILINE)
    assert words == sorted(set(words), key=str.lower)


def test_a_retired_word_does_not_come_back() -> None:
    retired = re.findall(r"^\| `(.+?)` \|", GLOSSARY.partition("## Retired")[2], re.MULTILINE)
    assert retired
    pattern = re.compile(r"(?<![\w-])(" + "|".join(map(re.escape, retired)) + r")(?!(?<=\w)[\w-])")
    pages = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("ops/*"),
        *SOURCE.rglob("*.py"),
    ]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in pages
        if path.name not in ("glossary.md", "CHANGELOG.md")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        for match in pattern.finditer(line)
    ]
    assert not found
