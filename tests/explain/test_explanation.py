"""A logged prediction is explained under the version that answered it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import polars as pl
import pytest
from projects import make_project
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression

import clewline as cl
from clewline.cli import explain as command
from clewline.cli.main import status
from clewline.errors import InvalidInput, NotFound, NotSupported
from clewline.explain.explanation import AttributionExplanation, explain_prediction
from clewline.model.package import PackageMetadata
from clewline.model.register import convert_model
from clewline.model.registry import Registry
from clewline.project import Project
from clewline.serve import revision as revisions
from clewline.serve.endpoint_file import parse_endpoint
from clewline.serve.loaded_revision import LoadedRevision
from clewline.serve.log.frame import LoggedRequest
from clewline.serve.log.writer import LogWriter
from clewline.serve.model_cache.loaded_models import SharedModels
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


def served(root: Path, model: object, train: pl.DataFrame, graph: str = "model: m@1") -> list[str]:
    """Register a model, answer two rows by an endpoint, log them, and return their ids."""
    project = make_project(root)
    with Store.open(project.store_root) as store:
        contents = convert_model(model, train=train, test=train.head(50), target="y")
        compiled, output = contents.compiled, contents.signature.output
        about = PackageMetadata(
            name="m", number=0, runtime=compiled.runtime, task=output.task, target="y", created=0.0
        )
        Registry(project, store).add(dict(contents.files), about)
        spec = parse_endpoint(f"endpoint: e\n{graph}\n".encode(), Path("endpoints/e.yaml"))
        revisions.apply(project, store, spec)
        revision = revisions.require_live(store.catalog, "e")
    live = LoadedRevision.load(revision, SharedModels(project))
    fields = {field.name for field in live.signature.fields}
    rows = [{name: row[name] for name in row if name in fields} for row in ROWS]
    body = msgspec.json.encode({"rows": rows})
    with closing(live), LogWriter(project.log) as log:
        answered = live.answer(live.json_reader.read(body).rows, [None] * len(rows))
        frame = live.frame(answered, [LoggedRequest("json", body, len(rows), None)])
        assert log.write_now(frame)
    return [id_text(frame.ids[at : at + 16]) for at in range(0, len(frame.ids), 16)]


def opened(root: Path) -> Project:
    return cl.open(root).project


def prepared(model: object) -> object:
    from sklearn.compose import make_column_transformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    encode = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = make_column_transformer((encode, ["work"]), remainder="passthrough")
    return make_pipeline(columns, model)


def fitted(model: object, train: pl.DataFrame) -> object:
    pipeline = prepared(model)
    pipeline.fit(train.drop("y"), train["y"])  # type: ignore[attr-defined]
    return pipeline


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    root, train = tmp_path_factory.mktemp("forest"), classified()
    model = fitted(RandomForestClassifier(9, random_state=0), train)
    return root, served(root, model, train)


def test_an_answer_of_a_forest_is_explained_exactly_in_probabilities(
    forest: tuple[Path, list[str]],
) -> None:
    root, ids = forest
    with cl.open(root) as store:
        for identifier, label in zip(ids, ("no", "yes"), strict=True):
            found = store.predictions.explain(identifier)
            answer = msgspec.json.decode(store.predictions.get(identifier).answer)
            assert (found.status, found.scale, found.label) == ("exact", "probability", label)
            assert found.total == pytest.approx(answer["probabilities"][label], abs=1e-9)
            total = found.base + sum(each.attribution for each in found.fields)
            assert total == pytest.approx(found.total, abs=1e-12)
            assert found.additivity_error < 1e-12
            assert found.fields[0].field == "age"
            assert {each.field for each in found.fields} == {"age", "hours", "work"}


def test_attributions_of_the_two_labels_are_opposites(forest: tuple[Path, list[str]]) -> None:
    root, ids = forest
    no, yes = (explain_prediction(opened(root), each) for each in ids)
    assert no.base == pytest.approx(1 - yes.base)


@pytest.mark.parametrize(
    "model", [LogisticRegression(max_iter=1000), RandomForestClassifier(5, random_state=0)]
)
def test_asked_again_it_gives_the_same_bytes(tmp_path: Path, model: object) -> None:
    train = classified()
    ids = served(tmp_path, fitted(model, train), train)
    found = [explain_prediction(opened(tmp_path), ids[0], budget=400) for _ in range(2)]
    assert msgspec.json.encode(found[0]) == msgspec.json.encode(found[1])


def test_other_models_are_estimated_and_say_so(tmp_path: Path) -> None:
    train = classified()
    ids = served(tmp_path, fitted(LogisticRegression(max_iter=1000), train), train)
    found = explain_prediction(opened(tmp_path), ids[1], budget=3000)
    assert (found.status, found.scale, found.label) == ("estimated", "probability", "yes")
    assert found.background_rows == 200
    assert 0 < found.model_rows <= 3000
    assert found.seed is not None
    assert found.additivity_error < 1e-9
    assert all(each.standard_error is not None for each in found.fields)


def test_a_regression_is_explained_in_its_own_unit(tmp_path: Path) -> None:
    train = people().with_columns(y=pl.col("age") * 3.0)
    ids = served(tmp_path, fitted(RandomForestRegressor(5, random_state=0), train), train)
    found = explain_prediction(opened(tmp_path), ids[1])
    with cl.open(tmp_path) as store:
        value = msgspec.json.decode(store.predictions.get(ids[1]).answer)["value"]
    assert (found.label, found.scale) == (None, "value")
    assert found.total == pytest.approx(value)


def test_labels_that_are_booleans_are_explained(tmp_path: Path) -> None:
    train = classified(bool)
    ids = served(tmp_path, fitted(RandomForestClassifier(5, random_state=0), train), train)
    assert explain_prediction(opened(tmp_path), ids[1]).label is True


def test_the_arm_that_answered_is_explained(tmp_path: Path) -> None:
    train = classified()
    model = fitted(RandomForestClassifier(5, random_state=0), train)
    graph = "graph:\n  route: {kind: weights, weights: {a: 0.5, b: 0.5}}\n  arms: {a: m@1, b: m@1}"
    ids = served(tmp_path, model, train, graph)
    assert explain_prediction(opened(tmp_path), ids[0]).model == "m@1"


def test_a_prediction_of_several_models_is_refused(tmp_path: Path) -> None:
    train = classified()
    model = fitted(RandomForestClassifier(5, random_state=0), train)
    ids = served(tmp_path, model, train, "graph:\n  combine: mean\n  branches: {a: m@1, b: m@1}")
    with pytest.raises(NotSupported, match="combine"):
        explain_prediction(opened(tmp_path), ids[0])


def test_an_unknown_prediction_and_a_bad_budget_are_refused(
    forest: tuple[Path, list[str]],
) -> None:
    root, ids = forest
    with pytest.raises(NotFound):
        explain_prediction(opened(root), "01a1fc0f-0000-7000-8000-000000000000")
    with pytest.raises(InvalidInput, match="0"):
        explain_prediction(opened(root), ids[0], budget=0)


def test_the_command_prints_each_field_and_its_share(
    forest: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    root, ids = forest
    assert status(["explain", ids[0], "--project", str(root)]) == 0
    printed = capsys.readouterr().out
    assert "probability of no" in printed
    assert "Exact Shapley values" in printed
    for name in ("age", "hours", "work"):
        assert name in printed
    assert status(["explain", ids[0], "--project", str(root), "--json"]) == 0
    found = msgspec.json.decode(capsys.readouterr().out, type=AttributionExplanation)
    assert found.prediction == ids[0]


Show = Callable[[AttributionExplanation], None]


def test_an_estimate_is_printed_with_its_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = classified()
    ids = served(tmp_path, fitted(LogisticRegression(max_iter=1000), train), train)
    command.show(explain_prediction(opened(tmp_path), ids[0], budget=400))
    printed = capsys.readouterr().out
    assert "±" in printed
    assert "Estimated Shapley values" in printed
