"""Frames as the server makes them, and a project that has an endpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from sklearn.ensemble import RandomForestClassifier

from fairlead.model import seal
from fairlead.model.compile import compile
from fairlead.model.package import About
from fairlead.model.registry import Registry
from fairlead.project import Project
from fairlead.serve import revision
from fairlead.serve.frame import Frame, Part
from fairlead.serve.spec import EndpointSpec
from fairlead.signature.infer import infer
from fairlead.store.digest import Digest
from fairlead.store.ids import prediction_ids
from fairlead.store.store import Store

MakeFrame = Callable[..., Frame]


@pytest.fixture
def frame() -> MakeFrame:
    """Make a frame of `rows` rows, one part a row unless told otherwise."""

    def make(
        rows: int = 1,
        *,
        endpoint: str = "income",
        ids: bytes | None = None,
        key: str | None = None,
        parts: list[Part] | None = None,
        padding: str = "",
    ) -> Frame:
        if parts is None:
            bodies = [msgspec.json.encode({"age": i, "note": padding}) for i in range(rows)]
            parts = [Part("json", body, 1, [f"c-{i}"], key) for i, body in enumerate(bodies)]
        return Frame(
            ids=b"".join(prediction_ids(rows)) if ids is None else ids,
            endpoint=endpoint,
            revision=12,
            model="income@3",
            package=Digest("ab" * 32),
            time=1_795_000_000.0,
            parts=parts,
            answers=[msgspec.json.encode({"label": "<=50K", "row": i}) for i in range(rows)],
            path=[("model", 81.0)],
        )

    return make


@pytest.fixture(scope="session")
def loans() -> Callable[[Path], Project]:
    """Make a project with the model `income@1` and the endpoints `income` and `sure` live."""

    def make(root: Path) -> Project:
        project = _project(root)
        with Store.open(project.store_root) as store:
            _register(Registry(project, store))
            for name, durability in (("income", "process"), ("sure", "fsync")):
                source = {"endpoint": name, "model": "income@1", "log": {"durability": durability}}
                spec = EndpointSpec(endpoint=name, model="income@1", source=source)
                revision.apply(project, store, spec)
        return project

    return make


def _project(root: Path) -> Project:
    Store.create(root / ".fairlead").close()
    public = seal.make_keys(root / ".fairlead" / "keys" / "seal.key")
    (root / "fairlead.toml").write_text(
        f'[project]\nname = "loans"\nid = "0123456789abcdef"\n\n[keys]\npublic = "{public}"\n'
    )
    return Project(root, "loans", "0123456789abcdef", public)


def _register(registry: Registry) -> None:
    random = np.random.default_rng(7)
    table = pl.DataFrame(
        {"age": random.integers(17, 90, 300), "hours": random.uniform(1, 99, 300).round(2)}
    )
    target = np.where(table["age"].to_numpy() + random.normal(0, 9, 300) > 50, ">50K", "<=50K")
    model = RandomForestClassifier(20, random_state=0).fit(table, target)
    signature = infer(table.with_columns(income=target), target="income")
    compiled = compile(model, signature, test=table, train=table, frame="polars")
    files = {
        **compiled.files,
        "signature.json": msgspec.json.encode(signature),
        "background.json": table.head(50).write_json().encode(),
    }
    about = About(
        name="income",
        number=0,
        runtime=compiled.runtime,
        task="binary",
        target="income",
        created=0.0,
        equality=msgspec.to_builtins(compiled.equality),
        versions={"numpy": np.__version__, "not-there": "1.0"},
    )
    registry.add(files, about)
