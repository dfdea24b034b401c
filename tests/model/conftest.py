"""A project with a key and a store, and packages small enough to make many."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from projects import make_project, read_adult

from clewline.model.families.python_class.spec import (
    DeclaredFiles,
    PackagedFile,
    PythonSpec,
    with_spec,
)
from clewline.model.package import PackageMetadata
from clewline.model.registry import Registry
from clewline.model.runtime.frames import ColumnLayout, TableLayout
from clewline.project import Project
from clewline.signature.field import Field, Output, Signature
from clewline.store.digest import digest_bytes
from clewline.store.records import ModelVersion
from clewline.store.store import Store

SIGNATURE = Signature(
    fields=(Field(name="age", kind="integer", bounds=(17, 90)),),
    output=Output(name="income", task="binary", labels=("<=50K", ">50K")),
)


def report(**intervals: tuple[float, float, float]) -> dict[str, Any]:
    """A report as a manifest holds it; the first metric is the headline."""
    return {
        "metrics": {
            name: {"value": value, "low": low, "high": high}
            for name, (value, low, high) in intervals.items()
        },
        "headline": next(iter(intervals)),
        "baseline": {"rule": "always '<=50K'"},
        "verdict": "better",
    }


def add(
    registry: Registry,
    content: bytes,
    name: str = "income",
    *,
    extra: Mapping[str, bytes] | None = None,
    **about: Any,
) -> ModelVersion:
    """Register bytes as a version; they need not be a model until somebody loads them."""
    files = {
        "signature.json": msgspec.json.encode(SIGNATURE),
        "model.onnx": content,
        "equality.json": b"{}",
        "background.json": b'[{"age": 39}]',
        **(extra or {}),
    }
    known = {"number": 0, "runtime": "onnx", "task": "binary", "target": "income", "created": 0.0}
    return registry.add(files, PackageMetadata(name=name, **(known | about)))


def fork(work: Callable[[], object]) -> int:
    """Run something in a process of its own; its exit status says whether it went well."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    except BaseException as error:
        sys.stderr.write(f"{error!r}\n")
        os._exit(1)
    os._exit(0)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path)


@pytest.fixture
def registry(project: Project) -> Iterator[Registry]:
    with Store.open(project.store_root) as store:
        yield Registry(project, store)


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
        declared["vocabulary"] = DeclaredFiles(False, {"words.json": given})
        files[given.file] = text.encode()
    columns = said.pop("columns", {})
    spec = PythonSpec(
        module="model.py",
        name="Model",
        layout=TableLayout(
            "polars", {name: ColumnLayout(dtype) for name, dtype in columns.items()}
        ),
        code=parts,
        files=declared,
        **({"arguments": {}, "frame": "rows"} | said),
    )
    return with_spec(spec, files)


def part(file: str, text: str) -> PackagedFile:
    return PackagedFile(file, digest_bytes(text.encode()))


@pytest.fixture(scope="session")
def adult() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The first rows of the Adult training and test tables."""
    return read_adult("adult.data.gz", nrows=3000), read_adult("adult.test.gz", nrows=900)


@pytest.fixture(scope="session")
def loans() -> pd.DataFrame:
    """600 rows: two numbers (one with nulls), an integer, a boolean, two texts, a label."""
    draw = np.random.default_rng(7)
    count = 600
    rate = draw.normal(5.0, 2.0, count)
    rate[draw.random(count) < 0.1] = np.nan
    town = draw.choice(["Oslo", "None", "nan", "", "Bergen"], count).astype(object)
    town[draw.random(count) < 0.1] = None
    table = pd.DataFrame(
        {
            "amount": draw.lognormal(8, 1, count),
            "rate": rate,
            "years": draw.integers(1, 40, count),
            "owner": draw.random(count) < 0.5,
            "town": pd.Series(town, dtype="str"),
            "purpose": draw.choice(["car", "home", "boat"], count),
        }
    )
    score = np.nan_to_num(table["rate"]) + table["years"] / 10 + (table["purpose"] == "car") * 2
    table["paid"] = np.where(score + draw.normal(0, 1, count) > 8, "yes", "no")
    return table
