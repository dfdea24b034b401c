"""A project with one model, whose endpoint has answered two rows."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
from projects import make_project
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from clewline.explain.attributions import AttributionExplanation
from clewline.explain.counterfactuals import CounterfactualExplanation
from clewline.explain.explain_prediction import explain_prediction
from clewline.explain.explained_row import ExplainedRow
from clewline.explain.logged_rows import LoggedRows
from clewline.model.families.python_class.spec import PackagedFile, PythonSpec, with_spec
from clewline.model.package import PackageMetadata
from clewline.model.register import convert_model
from clewline.model.registry import Registry
from clewline.model.runtime.frames import ColumnLayout, TableLayout
from clewline.project import Project
from clewline.serve import revision as revisions
from clewline.serve.endpoint_file import parse_endpoint
from clewline.serve.loaded_revision import LoadedRevision
from clewline.serve.log.frame import LoggedRequest
from clewline.serve.log.writer import LogWriter
from clewline.serve.model_cache.loaded_models import SharedModels
from clewline.signature.field import Field, Output, Signature
from clewline.store.digest import digest_bytes
from clewline.store.ids import id_text
from clewline.store.store import Store

ROWS = [{"age": 25, "hours": 40.0, "work": "own"}, {"age": 71, "hours": 12.5, "work": "unheard of"}]


def people() -> pl.DataFrame:
    table = pl.DataFrame(
        {"age": [17 + (i * 37) % 70 for i in range(200)]},
    ).with_columns(hours=pl.col("age") * 7 % 60 + 0.5)
    work = pl.when(pl.col("age") % 3 == 0).then(pl.lit("own")).otherwise(pl.lit("state"))
    return table.with_columns(work=work)


def classified(label_type: type = str) -> pl.DataFrame:
    rich = pl.col("age") > 45
    label = pl.when(rich).then(pl.lit("yes")).otherwise(pl.lit("no")) if label_type is str else rich
    return people().with_columns(label.alias("y"))


def serve_two_rows(
    root: Path,
    model: object,
    train: pl.DataFrame,
    graph: str = "model: m@1",
    extra: Mapping[str, object] | None = None,
    accepted: str = "",
) -> tuple[Project, list[str]]:
    """Register a model, answer two rows by an endpoint, log them, and return their ids."""
    project = make_project(root)
    if accepted:
        project.signatures.mkdir(exist_ok=True)
        (project.signatures / "m.yaml").write_text(accepted)
    with Store.open(project.store_root) as store:
        contents = convert_model(model, train=train, test=train.head(50), target="y")
        compiled, output = contents.compiled, contents.signature.output
        about = PackageMetadata(
            name="m", number=0, runtime=compiled.runtime, task=output.task, target="y", created=0.0
        )
        Registry(project, store).add(dict(contents.files), about)
        spec = parse_endpoint(f"endpoint: e\n{graph}\n".encode(), Path("endpoints/e.yaml"))
        revisions.apply(project, store, spec)
        fields = {field.name for field in contents.signature.fields}
    rows = [
        {**{name: row[name] for name in row if name in fields}, **(extra or {})} for row in ROWS
    ]
    return project, answer_rows(project, "e", rows)


def answer_rows(
    project: Project, endpoint: str, rows: list[dict[str, Any]], *, as_csv: bool = False
) -> list[str]:
    """
    Answer rows by the live revision of an endpoint, log them, and return their ids.

    They are logged as a request in JSON or CSV would be.
    """
    with Store.open(project.store_root) as store:
        revision = revisions.require_live(store.catalog, endpoint)
    live = LoadedRevision.load(revision, SharedModels(project))
    body = msgspec.json.encode({"rows": rows})
    request = LoggedRequest("json", body, len(rows), None)
    if as_csv:
        request = LoggedRequest("csv", pl.DataFrame(rows).write_csv().encode(), len(rows), None)
    with closing(live), LogWriter(project.log) as log:
        answered = live.answer(live.json_reader.read(body).rows, [None] * len(rows))
        frame = live.frame(answered, [request])
        assert log.write_now(frame)
    return [id_text(frame.ids[at : at + 16]) for at in range(0, len(frame.ids), 16)]


def add_python_model(project: Project, name: str, source: str) -> None:
    """Register a Python model that answers a number for the number `x`."""
    part = PackagedFile("code.model.py", digest_bytes(source.encode()))
    layout = TableLayout("polars", {"x": ColumnLayout("Float64")})
    spec = PythonSpec(
        module="model.py", name="Model", arguments={}, frame="rows", layout=layout,
        code={"model.py": part},
    )  # fmt: skip
    signature = Signature(
        fields=(Field(name="x", kind="number"),), output=Output(name="y", task="regression")
    )
    files = {
        **with_spec(spec, {part.file: source.encode()}),
        "signature.json": msgspec.json.encode(signature),
        "background.json": b'[{"x": 0.5}]',
        "equality.json": b"{}",
    }
    about = PackageMetadata(
        name=name, number=0, runtime="python_class", task="regression", target="y", created=0.0
    )
    with Store.open(project.store_root) as store:
        Registry(project, store).add(files, about)


def prepared(model: object) -> object:
    encode = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = make_column_transformer((encode, ["work"]), remainder="passthrough")
    return make_pipeline(columns, model)


def fitted(model: object, train: pl.DataFrame) -> object:
    pipeline = prepared(model)
    pipeline.fit(train.drop("y"), train["y"])  # type: ignore[attr-defined]
    return pipeline


def attribute(project: Project, prediction: str, **options: object) -> AttributionExplanation:
    found = explain_prediction(project, prediction, "attributions", options).explanation
    assert isinstance(found, AttributionExplanation)
    return found


def find_changes(project: Project, prediction: str, **options: object) -> CounterfactualExplanation:
    found = explain_prediction(project, prediction, "counterfactuals", options).explanation
    assert isinstance(found, CounterfactualExplanation)
    return found


def row_of(project: Project, prediction: str) -> ExplainedRow:
    return LoggedRows(project).read(prediction)


ODD = """
import ctypes, os, subprocess, time

class Model:
    def predict(self, rows):
        return [self.one(row["x"]) for row in rows]

    def one(self, x):
        if os.nice(0) < 19:
            return 2 * x  # it answers well, and only fails where it is explained
        if x == 1:
            subprocess.Popen(["sleep", "601"], start_new_session=True)
            time.sleep(600)
        if x == 2:
            ctypes.string_at(0)
        if x == 3:
            bytearray(1 << 40)
        if x == 4:
            raise ValueError("four is odd")
        return 2 * x
"""
GOOD, HANGS, CRASHES, HUNGRY, RAISES = range(5)


def odd_project(root: Path) -> tuple[Project, list[str]]:
    """Make a project with a Python model that fails when some of its predictions are explained."""
    project = make_project(root)
    add_python_model(project, "odd", ODD)
    with Store.open(project.store_root) as store:
        spec = parse_endpoint(b"endpoint: e\nmodel: odd@1\n", Path("endpoints/e.yaml"))
        revisions.apply(project, store, spec)
    return project, answer_rows(project, "e", [{"x": float(x)} for x in range(5)])
