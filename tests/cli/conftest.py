"""A project with one recorded run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from projects import make_project

from clewline.store.records import Artifact, Edge, Run, SeenFile, StepRun
from clewline.store.store import Store

RUN = "4f9a2c81d0be"


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which a run has read the folder `data`."""
    monkeypatch.chdir(tmp_path)
    with Store.open(make_project(tmp_path, "income").store_root) as store:
        data = Artifact(
            digest="1" * 64,
            kind="tree",
            format="bytes",
            blob=store.blobs.put(b"{}"),
            size_bytes=2,
            created=time.time(),
        )
        store.record(
            data,
            Run(id=RUN, pipeline="income", status="done", params={"trees": 100}, started=1.0),
            StepRun(id=f"{RUN}/00-load", run=RUN, index=0, name="load", status="done", started=1.0),
            SeenFile(path=str(tmp_path / "data"), digest=data.digest, run=RUN),
            Edge(source=f"input:{data.digest}", target=f"step:{RUN}/00-load", role="input:data"),
        )
    return tmp_path
