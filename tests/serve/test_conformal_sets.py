"""`conformal:` of an endpoint: sets and intervals with the answers, sealed, logged and replayed."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from explained import answer_rows
from projects import make_project
from sklearn.linear_model import LinearRegression, LogisticRegression

from clewline.errors import InvalidConfig
from clewline.evaluation.conformal import (
    aps_scores,
    conformal_quantile,
    group_quantiles,
    uniforms_of,
)
from clewline.model.conformal_scores import ConformalScores, score_test_rows
from clewline.model.families.family import CONFORMAL
from clewline.model.package import PackageMetadata
from clewline.model.register import convert_model
from clewline.model.registry import Registry
from clewline.project import Project
from clewline.protocols.mlflow.scoring import write_answer
from clewline.protocols.oip.infer_request import InferOptions
from clewline.protocols.oip.infer_response import infer_response
from clewline.protocols.rest.answer_tables import table_of
from clewline.protocols.rest.content_types import ARROW_TYPE, CSV_TYPE
from clewline.protocols.rest.openapi import prediction
from clewline.serve import revision as revisions
from clewline.serve.endpoint_file import parse_endpoint
from clewline.serve.graph.problems import InvalidEndpoint
from clewline.serve.loaded_revision import LoadedRevision
from clewline.serve.log.reader import get_prediction
from clewline.serve.model_cache.loaded_models import SharedModels
from clewline.serve.prediction_replay import replay_prediction
from clewline.serve.request.predict_request import PredictResponse
from clewline.serve.trial import try_graph
from clewline.store.ids import id_bytes
from clewline.store.store import Store

ROWS = [{"x": x / 4, "z": 0.5} for x in range(-10, 12, 2)]


def made(labels: tuple[str, ...] = ("no", "yes", "maybe"), seed: int = 0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    x, z = random.normal(size=600), random.normal(size=600)
    scores = np.column_stack([x * place + random.gumbel(size=600) for place in range(len(labels))])
    return pl.DataFrame(
        {"x": x, "z": z, "y": np.array(labels)[scores.argmax(axis=1)], "v": 3 * x + z**2}
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """`labels@1`, `labels@2` and `value@1` have 300 scores, `few@1` 30, `none@1` none."""
    project = make_project(tmp_path_factory.mktemp("conformal"))
    table = made()
    train, test = table[:300], table[300:]
    first = LogisticRegression().fit(train.select("x", "z"), train["y"].to_list())
    second = LogisticRegression(C=0.01).fit(train.select("x", "z"), train["y"].to_list())
    value = LinearRegression().fit(train.select("x", "z"), train["v"])
    with Store.open(project.store_root) as store:
        add = Registry(project, store).add
        for name, model, rows, target in (
            ("labels", first, test, "y"),
            ("labels", second, test, "y"),
            ("few", first, test[:30], "y"),
            ("value", value, test, "v"),
            ("none", first, None, "y"),
        ):
            kept = ["x", "z", target]
            some = None if rows is None else rows.select(kept)
            contents = convert_model(model, train=train.select(kept), test=some, target=target)
            files = dict(contents.files)
            scores = score_test_rows(contents, some, target)
            assert (scores is None) == (rows is None)
            if scores is not None:
                files[CONFORMAL] = scores
            output = contents.signature.output
            about = PackageMetadata(
                name=name, number=0, runtime=contents.compiled.runtime, task=output.task,
                target=target, created=0.0,
            )  # fmt: skip
            add(files, about)
    return project


def serve(project: Project, text: str, endpoint: str = "e") -> None:
    with Store.open(project.store_root) as store:
        body = f"endpoint: {endpoint}\n{text}\n".encode()
        spec = parse_endpoint(body, Path(f"endpoints/{endpoint}.yaml"))
        drafts = [revisions.resolve(project, store.catalog, spec)]
        try_graph(SharedModels(project), drafts[0], spec.file)
        revisions.make_live(project, store, drafts)


def answers(project: Project, text: str, endpoint: str = "e") -> tuple[list[Any], list[str]]:
    serve(project, text, endpoint)
    ids = answer_rows(project, endpoint, ROWS)
    logged = [get_prediction(project.log, identifier).answer for identifier in ids]
    return [msgspec.json.decode(answer) for answer in logged], ids


def scores_of(project: Project, name: str, number: int = 1) -> ConformalScores:
    data = (project.packages / name / str(number) / CONFORMAL).read_bytes()
    return msgspec.msgpack.decode(data, type=ConformalScores)


def test_an_answer_has_the_set_of_its_labels(project: Project) -> None:
    found, ids = answers(project, "model: labels@1\nconformal: 0.9")
    scores = scores_of(project, "labels")
    assert (scores.rows, scores.of_rows) == (300, 300)
    threshold = conformal_quantile(scores.of("lac"), 0.9)
    for answer in found:
        shares = answer["probabilities"]
        assert answer["set"] == [name for name in shares if 1 - shares[name] <= threshold]
    assert len({len(answer["set"]) for answer in found}) > 1
    for identifier in ids:
        replayed = replay_prediction(project, identifier)
        assert replayed.equal
        assert "set" in {one.what for one in replayed.compared}


def test_without_the_key_answers_have_no_set(project: Project) -> None:
    found, _ = answers(project, "model: labels@1", "plain")
    assert all("set" not in answer for answer in found)


def test_cumulative_sets_and_thresholds_by_class(project: Project) -> None:
    scores = scores_of(project, "labels")
    of_sums = conformal_quantile(scores.of("aps"), 0.8)
    of_class, _ = group_quantiles(scores.of("lac"), scores.true_labels, 3, 0.8)
    assert len(set(of_class.tolist())) == 3
    text = "model: labels@1\nconformal: {coverage: 0.8, method: aps}"
    found, ids = answers(project, text, "aps")
    for answer in found:
        labels = list(answer["probabilities"])
        shares = np.array([list(answer["probabilities"].values())])
        sums = aps_scores(shares, uniforms_of([id_bytes(answer["id"])]))[0]
        inside = (sums <= of_sums) | (np.array(labels) == answer["label"])
        assert answer["set"] == [labels[place] for place in np.flatnonzero(inside)]
    assert all(replay_prediction(project, identifier).equal for identifier in ids)
    text = "model: labels@1\nconformal: {coverage: 0.8, by: class}"
    for answer in answers(project, text, "by")[0]:
        pairs = zip(answer["probabilities"].items(), of_class.tolist(), strict=True)
        assert answer["set"] == [name for (name, p), limit in pairs if 1 - p <= limit]


def test_a_regression_has_an_interval(project: Project) -> None:
    found, ids = answers(project, "model: value@1\nconformal: 0.8", "value")
    half = conformal_quantile(scores_of(project, "value").of("residual"), 0.8)
    for answer in found:
        assert answer["interval"] == [answer["value"] - half, answer["value"] + half]
    assert all(replay_prediction(project, identifier).equal for identifier in ids)
    by_value = answers(project, "model: value@1\nconformal: {coverage: 0.8, by: value}", "by-value")
    widths = {round(high - low, 9) for low, high in (each["interval"] for each in by_value[0])}
    assert len(widths) > 1


def test_each_arm_of_a_route_has_its_own_threshold(project: Project) -> None:
    arms = "graph:\n  route: {kind: rules, otherwise: b, rules: [{if: {x: {below: 0}}, arm: a}]}\n"
    text = f"{arms}  arms: {{a: labels@1, b: labels@2}}\nconformal: 0.9"
    found, ids = answers(project, text, "routed")
    for answer in found:
        number = int(answer["model"].rpartition("@")[2])
        threshold = conformal_quantile(scores_of(project, "labels", number).of("lac"), 0.9)
        shares = answer["probabilities"]
        assert answer["set"] == [name for name in shares if 1 - shares[name] <= threshold]
    assert {answer["arm"] for answer in found} == {"a", "b"}
    assert all(replay_prediction(project, identifier).equal for identifier in ids)


def test_more_coverage_than_the_rows_support_is_refused_with_the_number_needed(
    project: Project,
) -> None:
    with pytest.raises(InvalidEndpoint, match=r"needs 99 test rows, and few@1 .* with 30"):
        serve(project, "model: few@1\nconformal: 0.99")
    with pytest.raises(InvalidEndpoint, match=r"needs 99 test rows of 'maybe'|of 'no'|of 'yes'"):
        serve(project, "model: labels@1\nconformal: {coverage: 0.99, by: class}")
    serve(project, "model: few@1\nconformal: 0.9", "enough")


def test_a_version_without_scores_is_refused_with_the_way_out(project: Project) -> None:
    with pytest.raises(InvalidEndpoint, match=r"none@1 has none.*test rows"):
        serve(project, "model: none@1\nconformal: 0.9")


def test_a_graph_that_joins_answers_is_refused(project: Project) -> None:
    graph = "graph: {combine: mean, branches: [labels@1, labels@2]}"
    with pytest.raises((InvalidEndpoint, InvalidConfig), match="one model makes"):
        serve(project, f"{graph}\nconformal: 0.9")


def test_a_shadow_needs_no_scores(project: Project) -> None:
    found, _ = answers(project, "model: labels@1\nshadow: [none@1]\nconformal: 0.9", "shadowed")
    assert all("set" in answer for answer in found)


@pytest.mark.parametrize(
    "written", ["1", "0", "true", "ninety", "{cover: 0.9}", "{coverage: 0.9, method: top}", "[0.9]"]
)
def test_a_wrong_value_is_refused(project: Project, written: str) -> None:
    with pytest.raises(InvalidConfig, match="conformal"):
        serve(project, f"model: labels@1\nconformal: {written}")


@pytest.mark.parametrize(
    ("model", "option"),
    [("labels@1", "by: value"), ("value@1", "by: class"), ("value@1", "method: aps")],
)
def test_an_option_that_does_not_fit_the_answer_is_refused(
    project: Project, model: str, option: str
) -> None:
    with pytest.raises(InvalidEndpoint, match="does not fit an endpoint that answers"):
        serve(project, f"model: {model}\nconformal: {{coverage: 0.9, {option}}}")


def test_another_coverage_makes_another_revision(project: Project) -> None:
    with Store.open(project.store_root) as store:
        drafts = []
        for text in ("conformal: 0.9", "conformal: {coverage: 0.9}", "conformal: 0.95", ""):
            body = f"endpoint: e\nmodel: labels@1\n{text}\n".encode()
            spec = parse_endpoint(body, Path("endpoints/e.yaml"))
            drafts.append(revisions.resolve(project, store.catalog, spec).revision)
    contents = [revisions.content(draft) for draft in drafts]
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]
    assert contents[0] != contents[3]
    changes = revisions.revision_changes(drafts[3], drafts[2], {}, {})
    assert [(each.what, each.after) for each in changes] == [("conformal", "0.95")]


def test_every_protocol_gives_the_sets(project: Project) -> None:
    serve(project, "model: labels@1\nconformal: 0.9", "formats")
    with Store.open(project.store_root) as store:
        revision = revisions.require_live(store.catalog, "formats")
    with closing(LoadedRevision.load(revision, SharedModels(project))) as loaded:
        rows = loaded.json_reader.read(msgspec.json.encode({"rows": ROWS})).rows
        found = loaded.answer(rows, [None] * len(ROWS)).answers
        output = loaded.signature.output
    sets = [msgspec.json.decode(answer)["set"] for answer in found]
    response = PredictResponse(revision.ref, found, b"")
    parameters = infer_response(response, output, InferOptions()).parameters
    assert msgspec.json.decode(parameters["sets"]) == sets
    assert msgspec.json.decode(write_answer(response))["sets"] == sets
    arrow = pl.read_ipc_stream(table_of(response, ARROW_TYPE))
    assert [msgspec.json.decode(text) for text in arrow["set"].to_list()] == sets
    assert b"set" in table_of(response, CSV_TYPE).splitlines()[0]
    assert prediction(output, is_conformal=True)["properties"]["set"]["items"] == {
        "enum": list(output.labels or ())
    }
    assert "set" not in prediction(output)["properties"]


def test_the_rows_of_a_label_that_the_model_does_not_know_count_as_missed() -> None:
    table = made(("no", "yes"))
    train = table[:300].select("x", "z", "y")
    test = table[300:].select("x", "z", pl.lit("new").alias("y"))
    model = LogisticRegression().fit(train.select("x", "z"), train["y"].to_list())
    contents = convert_model(model, train=train, test=test, target="y")
    data = score_test_rows(contents, test, "y")
    assert data is not None
    assert np.isinf(msgspec.msgpack.decode(data, type=ConformalScores).of("lac")).all()
