"""Anchors of a forest of 100 trees on Adult, beside Alibi, and how precise they are afterwards."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np
from numpy.typing import NDArray
from shared.income import DATA, EXAMPLE, sample
from shared.keep import keep
from shared.peers import PEERS, make_environment

from clewline.explain.anchors import AnchorExplainer, AnchorOptions
from clewline.explain.explained_model import ExplainedModel
from clewline.explain.explained_row import ExplainedRow
from clewline.model.families.family import TRAINING_SAMPLE
from clewline.model.families.sample_file import decode_sample
from clewline.model.register import convert_model
from clewline.model.runtime.outputs import take_rows
from clewline.model_families import family_named
from clewline.serve.json_reader import JsonReader
from clewline.signature.check import Checker
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

FRESH, ROWS_PER_CALL = 100_000, 5000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=200, help="test rows that are explained")
    arguments.add_argument("--beside", type=int, default=30, help="of these, by Alibi as well")
    arguments.add_argument("--fresh", type=int, default=FRESH, help="rows that check a rule")
    given = arguments.parse_args()
    rows = sample(given.rows, whole=True)
    sys.path.insert(0, str(EXAMPLE / "pipelines"))
    import income

    train, test = (income.parse(DATA / "adult" / f"adult.{part}.gz") for part in ("data", "test"))
    forest = income.forest(trees=100, seed=0).fit(train.drop(income.TARGET), train[income.TARGET])
    contents = convert_model(forest, train=train, test=test, target=income.TARGET)
    signature, files = contents.signature, contents.compiled.files
    predictor = family_named(contents.compiled.runtime).load(files, signature)
    training = decode_sample(contents.files[TRAINING_SAMPLE], signature, len(train))
    reader = JsonReader(Checker(signature))
    columns = reader.checker.columns(reader.read(msgspec.json.encode({"rows": rows})).rows).columns
    labels = signature.output.labels or ()

    def model() -> ExplainedModel:
        return ExplainedModel("income@1", signature, lambda: predictor, lambda: training)

    def row_of(at: int, of: ExplainedModel) -> ExplainedRow:
        row = take_rows(columns, slice(at, at + 1))
        choice = int(predictor.predict(row).choices[0])
        return ExplainedRow(
            model=of, columns=row, values=rows[at], answer={"label": labels[choice]}, seed=at
        )

    def explain(of: ExplainedModel, is_alone: bool) -> tuple[list[Any], list[float], list[float]]:
        found, seconds, cpu = [], [], []
        AnchorExplainer().explain(row_of(0, of), AnchorOptions())  # prepares the training rows
        for at in range(given.rows):
            if is_alone:
                of._remembered.pop("anchors, rules", None)
            row = row_of(at, of)
            started = time.perf_counter(), time.process_time()
            found.append(AnchorExplainer().explain(row, AnchorOptions()))
            seconds.append(time.perf_counter() - started[0])
            cpu.append(time.process_time() - started[1])
        return found, seconds, cpu

    alone, seconds, cpu = explain(model(), is_alone=True)
    again, with_memory, _ = explain(model(), is_alone=False)
    assert [msgspec.json.encode(each) for each in alone] == [
        msgspec.json.encode(each) for each in again
    ], "what was explained before changed an explanation"
    judge = Judge(predictor, training.columns, signature, given.fresh)
    ours = [judge(each.conditions, columns, at) for at, each in enumerate(alone)]
    with tempfile.TemporaryDirectory() as folder:
        joblib.dump(forest, Path(folder) / "model.joblib")
        named = {
            field.name: plain(training.columns, signature, field.name) for field in signature.fields
        }
        table = [
            dict(zip(named, values, strict=True)) for values in zip(*named.values(), strict=True)
        ]
        (Path(folder) / "train.json").write_text(json.dumps(table))
        (Path(folder) / "rows.json").write_text(json.dumps(rows[: given.beside]))
        command = [make_environment("alibi") / "python", PEERS / "alibi_anchors.py"]
        command += [f"{folder}/{name}" for name in ("model.joblib", "train.json", "rows.json")]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    peer = json.loads(done.stdout)
    theirs = [judge(each["conditions"], columns, at) for at, each in enumerate(peer)]
    met = [at for at, each in enumerate(alone) if each.status == "met"]
    both = [at for at in range(len(peer)) if theirs[at][0] >= 0.95 and at in met]
    found = {
        "rows": given.rows,
        "ms a row, median": quantile(seconds, 0.5, 1e3),
        "ms a row, 95th percentile": quantile(seconds, 0.95, 1e3),
        "CPU ms a row, median": quantile(cpu, 0.5, 1e3),
        "ms a row with memory, median": quantile(with_memory, 0.5, 1e3),
        "model rows, median": quantile([each.model_rows for each in alone], 0.5),
        "model rows, 95th percentile": quantile([each.model_rows for each in alone], 0.95),
        "met": f"{len(met)} of {len(alone)}",
        "fresh rows": given.fresh,
        "precise on fresh rows, of those met": share(ours[at][0] >= 0.95 for at in met),
        "least precision of those met": round(min(ours[at][0] for at in met), 4),
        "mean coverage of those met": mean(ours[at][1] for at in met),
        "mean conditions of those met": mean(len(alone[at].conditions) for at in met),
        "Alibi": {
            "rows": len(peer),
            "ms a row, median": quantile([each["seconds"] for each in peer], 0.5, 1e3),
            "CPU ms a row, median": quantile([each["cpu"] for each in peer], 0.5, 1e3),
            "model rows, median": quantile([each["rows"] for each in peer], 0.5),
            "calls, median": quantile([each["calls"] for each in peer], 0.5),
            "precise on fresh rows": share(each[0] >= 0.95 for each in theirs),
            "mean coverage": mean(each[1] for each in theirs),
            "mean conditions": mean(len(each["conditions"]) for each in peer),
        },
        "times as fast as Alibi, on its rows": times(peer, "seconds", seconds),
        "times less CPU": times(peer, "cpu", cpu),
        "where both rules hold": {
            "rows": len(both),
            "mean coverage, ours": mean(ours[at][1] for at in both),
            "mean coverage, Alibi": mean(theirs[at][1] for at in both),
        },
    }
    keep("anchors", found, versions=("onnxruntime", "scikit-learn", "numpy"))
    print(json.dumps(found, indent=2))


class Judge:
    """Says how precise a rule is on fresh perturbed rows, and how many training rows fulfil it."""

    def __init__(self, predictor: Any, rows: Columns, signature: Signature, fresh: int) -> None:
        self._predictor, self._rows, self._fresh = predictor, rows, fresh
        self._numbers = [field.name for field in signature.numeric]
        self._texts = [field.name for field in signature.textual]

    def __call__(self, conditions: Iterable[Any], columns: Columns, at: int) -> tuple[float, float]:
        """Return precision and coverage of a rule that the row at a place fulfils."""
        rows, random = self._rows, np.random.default_rng(at + 1_000_000)
        row = take_rows(columns, slice(at, at + 1))
        answer = self._predictor.predict(row).choices[0]
        fulfils, numbers, texts = np.ones(len(rows), dtype=bool), set(), set()
        for each in msgspec.to_builtins(list(conditions)):
            if each["field"] in self._texts:
                texts.add(column := self._texts.index(each["field"]))
                fulfils &= np.equal(rows.texts[:, column], each.get("value"))
                continue
            numbers.add(column := self._numbers.index(each["field"]))
            values = rows.numbers[:, column]
            if each.get("value") is not None:
                fulfils &= values == each["value"]
            fulfils &= values > each.get("above", -np.inf)
            fulfils &= values <= each.get("at_most", np.inf)
        fulfilling = np.flatnonzero(fulfils)
        held = 0
        for size in [ROWS_PER_CALL] * (self._fresh // ROWS_PER_CALL):
            mixed = take_rows(rows, random.integers(len(rows), size=size))
            taken, source = row, np.zeros(size, dtype=np.intp)
            if len(fulfilling):
                taken, source = rows, fulfilling[random.integers(len(fulfilling), size=size)]
            for into, own, places in (
                (mixed.numbers, taken.numbers, numbers),
                (mixed.texts, taken.texts, texts),
            ):
                for column in places:
                    into[:, column] = own[source, column]
            held += int((self._predictor.predict(mixed).choices == answer).sum())
        return held / (self._fresh // ROWS_PER_CALL * ROWS_PER_CALL), float(fulfils.mean())


def plain(columns: Columns, signature: Signature, name: str) -> list[Any]:
    """Return a column as JSON takes it."""
    for at, field in enumerate(signature.textual):
        if field.name == name:
            texts: list[Any] = columns.texts[:, at].tolist()
            return texts
    at = [field.name for field in signature.numeric].index(name)
    return [int(value) for value in columns.numbers[:, at].tolist()]


def times(peer: list[dict[str, Any]], key: str, ours: list[float]) -> float:
    """Compare medians over the peer's rows."""
    theirs = float(np.median([each[key] for each in peer]))
    return round(theirs / float(np.median(ours[: len(peer)])), 1)


def quantile(values: list[float], share: float, factor: float = 1.0) -> float:
    """Return a quantile, for a person."""
    return round(float(np.quantile(values, share)) * factor, 1)


def mean(values: Iterable[float]) -> float:
    """Return a mean, for a person."""
    return round(float(np.mean(list(values))), 4)


def share(values: Iterable[bool]) -> float:
    """Return how many are true, as a share."""
    held: NDArray[np.bool_] = np.array(list(values))
    return round(float(held.mean()), 4)


if __name__ == "__main__":
    main()
