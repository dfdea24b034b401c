"""Packages of Python models, made of a class's source without registering it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from clewline.model.pythonic.gather import encoded
from clewline.model.runtime.frames import Column, Layout
from clewline.model.runtime.python_spec import Declared, Part, Spec
from clewline.store.digest import digest_bytes

Package = Callable[..., dict[str, bytes]]


@pytest.fixture
def package() -> Package:
    """Make the files of a package: `package(source, vocabulary={…}, frame=…, …)`."""
    return python_package


def python_package(source: str, *, vocabulary: Any = None, **said: Any) -> dict[str, bytes]:
    """Make the files of a package of the class `Model` of a module."""
    modules = {"model.py": source, **said.pop("modules", {})}
    parts = {path: part(f"code.{path.replace('/', '.')}", text) for path, text in modules.items()}
    files = {each.file: modules[path].encode() for path, each in parts.items()}
    declared = {}
    if vocabulary is not None:
        text = json.dumps(vocabulary)
        given = part("file.vocabulary.json", text)
        declared["vocabulary"] = Declared(False, {"words.json": given})
        files[given.file] = text.encode()
    columns = said.pop("columns", {})
    spec = Spec(
        module="model.py",
        name="Model",
        layout=Layout("polars", {name: Column(dtype) for name, dtype in columns.items()}),
        code=parts,
        files=declared,
        **({"arguments": {}, "frame": "rows"} | said),
    )
    return encoded(spec, files)


def part(file: str, text: str) -> Part:
    return Part(file, digest_bytes(text.encode()))
