"""Explanations of rows by a forest of 100 trees on Adult; attributions beside `shap`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import joblib
import msgspec
import numpy as np
from shared.income import DATA, EXAMPLE, sample
from shared.keep import keep
from shared.peers import PEERS, make_environment

from clewline.explain.counterfactual_search import ChangeLimits, CounterfactualSearch
from clewline.explain.explained_model import ExplainedModel
from clewline.explain.explained_row import ExplainedRow
from clewline.explain.explainer import Explainer
from clewline.explain.leaf_boxes import build_leaf_boxes
from clewline.explain.neighbours import NeighbourExplainer
from clewline.explain.shapley_values import TreeShapleyValues
from clewline.explain.what_if import WhatIfExplainer, WhatIfOptions
from clewline.model.families.family import TRAINING_SAMPLE
from clewline.model.families.sample_file import decode_sample
from clewline.model.register import convert_model
from clewline.model.runtime.outputs import take_rows
from clewline.model_families import family_named
from clewline.serve.json_reader import JsonReader
from clewline.signature.check import Checker
from clewline.signature.columns import Columns


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=200, help="test rows that are explained")
    arguments.add_argument("--beside", type=int, default=20, help="of these, by shap as well")
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    rows = sample(given.rows, whole=True)
    found = {
        f"depth {depth or 'unlimited'}": forest(depth, rows, given.beside, given.rounds)
        for depth in (None, 10)
    }
    keep("explain", found, versions=("onnxruntime", "scikit-learn", "numpy"))
    print(json.dumps(found, indent=2))


def forest(depth: int | None, rows: list[dict[str, Any]], beside: int, rounds: int) -> Any:
    """Explain rows of a forest of some depth, in turn with shap."""
    sys.path.insert(0, str(EXAMPLE / "pipelines"))
    import income

    train, test = (income.parse(DATA / "adult" / f"adult.{part}.gz") for part in ("data", "test"))
    model = income.forest(trees=100, seed=0).set_params(randomforestclassifier__max_depth=depth)
    model.fit(train.drop(income.TARGET), train[income.TARGET])
    contents = convert_model(model, train=train, test=test, target=income.TARGET)
    signature, files = contents.signature, contents.compiled.files
    family = family_named(contents.compiled.runtime)
    started = time.perf_counter()
    trees = family.served_trees(files, signature)
    assert trees is not None, contents.compiled.equality.sentence
    boxes = build_leaf_boxes(trees, signature)
    shapley = TreeShapleyValues(boxes)
    build_s = time.perf_counter() - started
    reader = JsonReader(Checker(signature))
    columns = columns_of_rows(reader, rows)
    background = columns_of_rows(reader, msgspec.json.decode(contents.files["background.json"]))
    predictor = family.load(files, signature)
    ours: list[float] = []
    theirs: list[float] = []
    worst, peer_worst = 0.0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        joblib.dump(model, Path(folder) / "model.joblib")
        (Path(folder) / "rows.json").write_text(json.dumps(rows[:beside]))
        for _ in range(rounds):
            for at in range(len(columns)):
                row = take_rows(columns, slice(at, at + 1))
                started = time.perf_counter()
                values = shapley.of(row)
                ours.append(time.perf_counter() - started)
                sum_ = values.base + float(values.values.sum())
                worst = max(worst, abs(sum_ - values.total) / trees.ensemble.count)
            done = subprocess.run(
                [
                    make_environment("shap") / "python",
                    PEERS / "shap_explain.py",
                    f"{folder}/model.joblib",
                    f"{folder}/rows.json",
                ],
                capture_output=True,
                check=True,
            )
            peer = json.loads(done.stdout)
            theirs += peer["seconds"]
            peer_worst = max(peer_worst, peer["additivity"])
    sample = decode_sample(contents.files[TRAINING_SAMPLE], signature, len(train))
    changes: dict[str, Any] = {}
    for name, start, answers in (
        ("", sample.columns, sample.answers),
        (" of 256 rows", background, None),
    ):
        search = CounterfactualSearch(predictor.predict, start, signature, boxes, answers)
        each = [
            counterfactual(take_rows(columns, slice(at, at + 1)), search, predictor)
            for at in range(len(columns))
        ]
        found = [one for one in each if one[1]]
        changes |= {
            f"counterfactuals{name}, ms a row, median": milliseconds([one[0] for one in each]),
            f"counterfactuals{name}, found of": f"{len(found)} of {len(each)}",
            f"counterfactuals{name}, changed fields, mean": round(
                float(np.mean([one[2] for one in found])), 2
            ),
            f"counterfactuals{name}, distance, mean": round(
                float(np.mean([one[3] for one in found])), 2
            ),
        }
    asked = ExplainedModel("income", signature, lambda: predictor, lambda: sample)
    asked.__dict__ |= {"trees": trees, "boxes": boxes}  # of no package
    logged = [
        explained_row(asked, take_rows(columns, slice(at, at + 1)), rows[at])
        for at in range(len(columns))
    ]
    others = {
        "neighbours, ms a row, median": milliseconds(timed(NeighbourExplainer(), logged)),
        "what-if over age, ms a row, median": milliseconds(
            timed(WhatIfExplainer(), logged, WhatIfOptions(field="age"))
        ),
    }
    return {
        "leaves": int(boxes.value.size),
        "players": len(boxes.players),
        "boxes built in s": round(build_s, 3),
        "attributions, ms a row, median": round(median(ours) * 1e3, 2),
        "attributions, ms a row, 95th percentile": round(float(np.quantile(ours, 0.95)) * 1e3, 2),
        "additivity error": worst,
        "shap, ms a row, median": round(median(theirs) * 1e3, 2),
        "shap, additivity error": peer_worst,
        "times as fast as shap": round(median(theirs) / median(ours), 1),
        **changes,
        **others,
    }


def columns_of_rows(reader: JsonReader, rows: list[dict[str, Any]]) -> Columns:
    """Check rows as a request's are checked."""
    read = reader.read(msgspec.json.encode({"rows": rows})).rows
    return reader.checker.columns(read).columns


def counterfactual(
    row: Columns, search: CounterfactualSearch, predictor: Any
) -> tuple[float, int, int, float]:
    """Find changes that give the other label: seconds, how many, changed fields, distance."""
    answered = int(predictor.predict(row).choices[0])
    started = time.perf_counter()
    found = search.find(
        row, lambda answers: np.not_equal(answers.choices, answered), limits=ChangeLimits()
    )
    spent = time.perf_counter() - started
    if len(found.rows):
        assert (predictor.predict(found.rows).choices != answered).all()
    if not len(found.rows):
        return spent, 0, 0, 0.0
    return spent, len(found.rows), int(found.changed[0].sum()), float(found.distances[0])


def explained_row(model: ExplainedModel, columns: Columns, values: dict[str, Any]) -> ExplainedRow:
    """Return a row with its answer, as it is read from the log."""
    labels, choices = model.signature.output.labels, model.predict(columns).choices
    assert labels is not None
    assert choices is not None
    answer = {"label": labels[int(choices[0])]}
    return ExplainedRow(model=model, columns=columns, values=values, answer=answer, seed=0)


def timed(explainer: Explainer[Any], rows: list[ExplainedRow], options: Any = None) -> list[float]:
    """Explain rows: seconds of each."""
    spent = []
    for row in rows:
        started = time.perf_counter()
        explainer.explain(row, options or explainer.options())
        spent.append(time.perf_counter() - started)
    return spent


def milliseconds(seconds: list[float]) -> float:
    return round(median(seconds) * 1e3, 2)


if __name__ == "__main__":
    main()
