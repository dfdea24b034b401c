"""A store, and a line to put into it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import tmpfs

from clewline.store.blobs import FileBlobStore
from clewline.store.digest import Digest, digest_bytes
from clewline.store.records import (
    Alias,
    Artifact,
    Edge,
    LiveRevision,
    ModelVersion,
    Record,
    Revision,
    Run,
    SeenFile,
    StepRun,
)
from clewline.store.store import Store

RUN = "4f9a2c81d0be"
STARTED = 1_790_000_000.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / ".clewline"


@pytest.fixture
def store(root: Path) -> Iterator[Store]:
    with Store.create(root) as made:
        yield made


class Line:
    """A run that read a folder, split, fitted and registered a version that is served."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.data = self.artifact(b"folder", "tree")
        self.table = self.artifact(b"table", "table", rows=48842, columns=15)
        self.train = self.artifact(b"train", "table", rows=32561, columns=15)
        self.test = self.artifact(b"test", "table", rows=16281, columns=15)
        self.forest = self.artifact(b"forest", "model")
        self.snapshot = store.blobs.put(b'{"files": {}}')

    def artifact(self, content: bytes, kind: str, **more: int) -> Artifact:
        return Artifact(
            digest=digest_bytes(b"logical " + content),
            kind=kind,
            format="bytes",
            blob=self.store.blobs.put(content),
            size_bytes=len(content),
            created=STARTED,
            **more,
        )

    def run(self, **more: object) -> Run:
        return Run(
            **{
                "id": RUN,
                "pipeline": "income",
                "status": "done",
                "params": {"data": str(self.folder), "trees": 100},
                "seed": 0,
                "metrics": {"accuracy": 0.8531, "auc": 0.9021},
                "snapshot": self.snapshot,
                "commit": "0123456789abcdef0123456789abcdef01234567",
                "changed": ["pipelines.py", "nodes.py"],
                "started": STARTED,
                "ended": STARTED + 12.5,
                **more,
            }
        )

    def step(
        self, name: str, inputs: dict[str, Artifact], *outputs: Artifact, run: str = RUN
    ) -> StepRun:
        return StepRun(
            id=f"{run}/{name}",
            run=run,
            index=int(name[:2]),
            name=name[3:],
            status="done",
            inputs={param: {"artifact": given.digest} for param, given in inputs.items()},
            outputs=[output.digest for output in outputs],
            wall_s=0.5,
            started=STARTED,
            ended=STARTED + 0.5,
        )

    def records(self) -> list[Record]:
        step = f"step:{RUN}/"
        return [
            self.run(),
            self.data,
            self.table,
            self.train,
            self.test,
            self.forest,
            SeenFile(path=str(self.folder), digest=self.data.digest, run=RUN),
            self.step("00-load", {"data": self.data}, self.table),
            self.step("01-split", {"table": self.table}, self.train, self.test),
            self.step("02-fit", {"train": self.train}, self.forest),
            self.step(
                "03-register",
                {"model": self.forest, "train": self.train, "test": self.test},
            ),
            Edge(source=f"code:{self.snapshot}", target=f"run:{RUN}", role="code"),
            Edge(source=f"input:{self.data.digest}", target=f"{step}00-load", role="input:data"),
            Edge(source=f"{step}00-load", target=f"{step}01-split", role="input:table"),
            Edge(source=f"{step}01-split", target=f"{step}02-fit", role="input:train"),
            Edge(source=f"{step}02-fit", target=f"{step}03-register", role="input:model"),
            Edge(source=f"{step}01-split", target=f"{step}03-register", role="input:test"),
            Edge(source=f"{step}03-register", target="model:income@1", role="registered"),
            Edge(source="model:income@1", target="revision:income#1", role="serves"),
            self.version(),
            Alias(name="income", alias="champion", number=1, moved=STARTED + 60),
            self.revision(),
            LiveRevision(endpoint="income", number=1, moved=STARTED + 120),
        ]

    def version(self, **more: object) -> ModelVersion:
        return ModelVersion(
            **{
                "name": "income",
                "number": 1,
                "package": digest_bytes(b"package"),
                "content": digest_bytes(b"content"),
                "run": RUN,
                "step_run": f"{RUN}/03-register",
                "task": "binary",
                "runtime": "onnx",
                "metrics": {"accuracy": 0.8531},
                "equality": {
                    "verified": True,
                    "rows": 16281,
                    "synthetic_rows": 4000,
                    "flips": 0,
                    "max_difference": 6e-07,
                },
                "size_bytes": 3_500_000,
                "created": STARTED + 12,
                **more,
            }
        )

    def revision(self) -> Revision:
        return Revision(
            endpoint="income",
            number=1,
            spec={"endpoint": "income", "model": "income@champion"},
            models={"model": "income@1"},
            packages={"income@1": digest_bytes(b"package")},
            created=STARTED + 120,
        )


@pytest.fixture
def line(store: Store, tmp_path: Path) -> Line:
    """A whole line, recorded."""
    made = Line(store, tmp_path / "adult")
    store.record(*made.records())
    return made


@pytest.fixture
def nowhere() -> Digest:
    """A digest that nothing has."""
    return digest_bytes(b"nothing has this")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """
    A file system of 1 MiB of its own.

    Where none can be mounted, the tests that limit the size of files stand in:
    they meet the same errors and run everywhere.
    """
    place = tmp_path / "disk"
    place.mkdir()
    with tmpfs(place, "size=1M"):
        yield place


class Disk:
    """A folder that can be made read-only: a file system where one can be mounted."""

    def __init__(self, place: Path) -> None:
        place.mkdir()
        self.place = place
        self.is_mount = _mounted(place)

    def seal(self) -> None:
        """Let nothing be written from here on."""
        if self.is_mount:
            subprocess.run(["mount", "-o", "remount,ro", str(self.place)], check=True)
        else:
            self._forbid(0o222)

    def open(self) -> None:
        """Let everything be written and removed again."""
        if self.is_mount:
            subprocess.run(["umount", "-l", str(self.place)], check=True)
        else:
            self._forbid(0)

    def _forbid(self, rights: int) -> None:
        for path in (self.place, *self.place.rglob("*")):
            path.chmod(0o777 & ~rights)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "disk")
    yield made
    made.open()


def _mounted(place: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(place)]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture
def blobs_on_tmpfs(small_disk: Path) -> FileBlobStore:
    return FileBlobStore.create(small_disk / "blobs")
