"""A model family is one folder: nothing outside of it names the family or its library."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "src" / "clewline"
FAMILIES = SOURCE / "model" / "families"

WORDS = {
    "calibrated_model": r"calibrated_?model",
    "catboost": r"catboost",
    "lightgbm": r"lightgbm|lgbm",
    "linear_text_model": r"linear_?text",
    "onnx": r"onnx",
    "python_class": r"python_class",
    "sklearn": r"(?<!lightgbm\.)(?<!xgboost\.)sklearn|scikit|skops|skl2onnx",
    "xgboost": r"xgboost|xgb",
}

ALLOWED = {
    ("__init__.py", "calibrated_model"): "`cl.calibrate` loads on first use",
    ("model/compile", "onnx"): "compiled models are ONNX graphs: this folder writes them",
    ("model/compile", "sklearn"): "the versions of what converts are part of the record",
    ("model/families/calibrated_model", "onnx"): "it appends nodes to ONNX graphs",
    ("model/families/calibrated_model", "sklearn"): "scikit-learn fits isotonic regressions",
    ("model/families/boosting.py", "sklearn"): "boosters are stored as scikit-learn's models are",
    ("model/families/estimators.py", "sklearn"): "estimators speak scikit-learn's language",
    ("evaluation/surrogate_tree.py", "sklearn"): "scikit-learn fits the surrogate",
    ("evaluation/robustness.py", "sklearn"): "scikit-learn fits the copies of a model",
    ("data/discriminator.py", "sklearn"): "scikit-learn fits what tells two tables apart",
    ("model/families/sklearn", "onnx"): "it converts to ONNX",
    ("model/families/sklearn", "linear_text_model"): "it converts to linear text models",
    ("model/families/unsafe_files.py", "onnx"): "the way out of a refused file is to export it",
    ("model/families/unsafe_files.py", "sklearn"): "a skops file is refused by its name",
    ("model/families/model_files.py", "onnx"): "the message for an unknown file",
    ("flow/code/packages.py", "sklearn"): "its steps compute with scikit-learn",
    ("hub/address.py", "onnx"): "the message for an unsupported file names a way out",
    ("testing/catalog.py", "onnx"): "a made-up record",
    ("templates", "sklearn"): "the project that `clewline init` writes trains such a model",
}
"""(file or folder, family) → why it may name the family."""


def mentions(path: Path) -> Iterator[str]:
    """Yield every name and string of a file, without docstrings and comments."""
    tree = ast.parse(path.read_text("utf-8"))
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in docstrings:
                yield node.value
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.alias | ast.ClassDef | ast.FunctionDef):
            yield node.name


@pytest.mark.parametrize("family", WORDS)
def test_nothing_outside_its_folder_names_a_family(family: str) -> None:
    word = re.compile(WORDS[family], re.IGNORECASE)
    named = set()
    for path in SOURCE.rglob("*.py"):
        place = path.relative_to(SOURCE).as_posix()
        is_own = path.is_relative_to(FAMILIES / family)
        reasons = [p for p, other in ALLOWED if other == family and place.startswith(p)]
        if not is_own and not reasons and any(map(word.search, mentions(path))):
            named.add(place)
    assert not named


def test_every_exception_is_needed() -> None:
    for (place, family), reason in ALLOWED.items():
        word = re.compile(WORDS[family], re.IGNORECASE)
        paths = [SOURCE / place] if place.endswith(".py") else (SOURCE / place).rglob("*.py")
        assert any(word.search(text) for path in paths for text in mentions(path)), reason


def test_every_folder_is_a_family_and_every_family_a_folder() -> None:
    folders = {path.name for path in FAMILIES.iterdir() if (path / "family.py").exists()}
    assert folders == set(WORDS)
