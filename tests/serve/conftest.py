"""Frames as the server makes them, and a project that has an endpoint."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from projects import make_project
from sklearn.ensemble import RandomForestClassifier

from clewline import entry_points
from clewline.model.compile.compiler import compile_model
from clewline.model.package import PackageMetadata
from clewline.model.registry import Registry
from clewline.project import Project
from clewline.serve import revision
from clewline.serve.endpoint_file import parse_endpoint
from clewline.serve.log.frame import LoggedBatch, LoggedRequest
from clewline.signature.infer import infer_signature
from clewline.store.digest import Digest
from clewline.store.ids import prediction_ids
from clewline.store.store import Store

MakeFrame = Callable[..., LoggedBatch]

PLUG_IN = '''
import numpy as np
from clewline.model.runtime import Outputs
from clewline.serve.graph.node import Batch, NodeAnswers
from clewline.serve.graph.node_kind import NodeKind
from clewline.serve.graph.routers.arm_shares import UniformHash
from clewline.serve.graph.routers.router import Router
from clewline.serve.log.frame import RoutePath
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Output, Signature


class Score(NodeKind):
    """Adds its fields and a bias: a number, or by its sign and size one of two labels."""

    def __init__(self, tree, builder):
        fields = tuple(Field(name=name, kind="number", bounds=(-5, 5)) for name in tree["takes"])
        labels = tuple(tree.get("labels", ()))
        task = "binary" if labels else "regression"
        output = Output(name="y", task=task, labels=labels or None)
        self.signature = Signature(fields=fields, output=output)
        self._tree = tree
        rows = [{name: i - place for place, name in enumerate(tree["takes"])} for i in range(9)]
        self._background = repr(rows).replace("'", '"').encode()

    @property
    def background(self):
        return self._background

    def compute(self, batch):
        if (batch.columns.numbers == self._tree.get("fails")).any():
            raise RuntimeError("no answer to that")
        total = np.full(len(batch.ids), float(self._tree.get("bias", 0)))
        for column in batch.columns.numbers.T:
            total = total + column
        name = self._tree["name"]
        way = (RoutePath(f"{name.replace('/', '-')}@1", ((name, 1.0),)),)
        if self.signature.output.labels is None:
            return NodeAnswers(Outputs(values=total), way)
        high = 1 / (1 + np.exp(-total))
        first = self.signature.output.labels[0] == "no"
        shares = np.column_stack([1 - high, high] if first else [high, 1 - high])
        return NodeAnswers(Outputs(choices=shares.argmax(axis=1), probabilities=shares), way)

    def close(self):
        self._tree["closed"] = self._tree.get("closed", 0) + 1


class Scale(NodeKind):
    """Multiplies one number before the node below it: `scale: {field: hours, by: 2}`."""

    place = "before"
    children = ("then",)

    def __init__(self, tree, builder):
        then = builder.node(tree["then"])
        self.nodes, self.signature = [then], then.signature
        self._by = tree["by"]
        self._place = [field.name for field in self.signature.numeric].index(tree["field"])

    @classmethod
    def fit(cls, fit):
        return fit.sides[0].signature if fit.sides else None

    def compute(self, batch):
        numbers = batch.columns.numbers.copy()
        numbers[:, self._place] *= self._by
        columns = Columns(numbers, batch.columns.texts, batch.columns.tensors)
        return self.nodes[0].answer(Batch(columns, batch.ids, batch.entities))


class Greedy(Router):
    """A bandit: the arm that the state says is best, another with the probability epsilon."""

    learns = True

    def __init__(self, config, context):
        self._arms = context.arms

    def choose(self, batch, state):
        learned = {"epsilon": 1.0, "best": 0} if state is None else state.content
        epsilon, best = learned["epsilon"], learned["best"]
        share = epsilon / len(self._arms)
        shares = np.full(len(self._arms), share)
        shares[best] += 1 - epsilon
        drawn = [UniformHash("greedy").of(one) for one in batch.ids]
        chosen = np.searchsorted(np.cumsum(shares), np.array(drawn) * shares.sum())
        return chosen, shares[chosen]
'''


@pytest.fixture
def frame() -> MakeFrame:
    """Make a frame of `rows` rows, one part a row unless told otherwise."""

    def make(
        rows: int = 1,
        *,
        endpoint: str = "income",
        ids: bytes | None = None,
        key: str | None = None,
        parts: list[LoggedRequest] | None = None,
        padding: str = "",
    ) -> LoggedBatch:
        if parts is None:
            bodies = [msgspec.json.encode({"age": i, "note": padding}) for i in range(rows)]
            parts = [
                LoggedRequest("json", body, 1, [f"c-{i}"], key) for i, body in enumerate(bodies)
            ]
        return LoggedBatch(
            ids=b"".join(prediction_ids(rows)) if ids is None else ids,
            endpoint=endpoint,
            revision=12,
            model="income@3",
            package=Digest("ab" * 32),
            time=1_795_000_000.0,
            requests=parts,
            answers=[msgspec.json.encode({"label": "<=50K", "row": i}) for i in range(rows)],
            path=[("model", 81.0)],
        )

    return make


@pytest.fixture(scope="session")
def loans() -> Callable[[Path], Project]:
    """Make a project with the model `income@1` and the endpoints `income` and `sure` live."""

    def make(root: Path) -> Project:
        project = make_project(root)
        with Store.open(project.store_root) as store:
            files, about = _income()
            Registry(project, store).add(dict(files), about)
            for name, durability in (("income", "process"), ("sure", "fsync")):
                text = f"endpoint: {name}\nmodel: income@1\nlog: {{durability: {durability}}}\n"
                spec = parse_endpoint(text.encode(), Path(f"endpoints/{name}.yaml"))
                revision.apply(project, store, spec)
        return project

    return make


@cache
def _income() -> tuple[dict[str, bytes], PackageMetadata]:
    random = np.random.default_rng(7)
    table = pl.DataFrame(
        {"age": random.integers(17, 90, 300), "hours": random.uniform(1, 99, 300).round(2)}
    )
    target = np.where(table["age"].to_numpy() + random.normal(0, 9, 300) > 50, ">50K", "<=50K")
    model = RandomForestClassifier(20, random_state=0).fit(table, target)
    signature = infer_signature(table.with_columns(income=target), target="income")
    compiled = compile_model(model, signature, test=table, train=table, frame="polars")
    files = {
        **compiled.files,
        "signature.json": msgspec.json.encode(signature),
        "background.json": table.head(50).write_json().encode(),
    }
    about = PackageMetadata(
        name="income",
        number=0,
        runtime=compiled.runtime,
        task="binary",
        target="income",
        created=0.0,
        equality=msgspec.to_builtins(compiled.equality),
        versions={"numpy": np.__version__, "not-there": "1.0"},
    )
    return files, about


@pytest.fixture(scope="session")
def plug_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Install a distribution that offers a kind of node and a kind of router."""
    folder = tmp_path_factory.mktemp("plug-in")
    (folder / "score_plug_in.py").write_text(PLUG_IN)
    about = folder / "score_plug_in-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: score-plug-in\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[clewline.nodes]\nscore = score_plug_in:Score\nscale = score_plug_in:Scale\n"
        "[clewline.routers]\ngreedy = score_plug_in:Greedy\n"
    )
    sys.path.insert(0, str(folder))
    entry_points.names.cache_clear()  # a process does not install packages while it runs
    yield
    sys.path.remove(str(folder))
    entry_points.names.cache_clear()
