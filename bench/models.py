"""What compiled models cost: a forest of 100 trees beside scikit-learn, and a small one."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil
from shared.keep import keep

from fairlead.model.compile import Compiled, compile
from fairlead.model.runtime.frames import columns_of
from fairlead.model.runtime.onnx import OnnxRuntime
from fairlead.model.runtime.rows import part_of
from fairlead.signature.field import Signature
from fairlead.signature.infer import infer

BATCHES = (1, 8, 32, 128, 1000)
NAMES = (
    "age workclass fnlwgt education education-num marital-status occupation relationship race sex"
    " capital-gain capital-loss hours-per-week native-country income"
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, default=Path("../shared/data/adult"))
    arguments.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    arguments.add_argument("--copies", type=int, default=1, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.load:
        return load(given.load, given.copies)
    found = {"adult": adult(given.data), "small": small()}
    keep("models", found, versions=("onnxruntime", "scikit-learn", "skl2onnx"))
    for name in ("adult", "small"):
        print(name, *(f"  {key}: {value}" for key, value in found[name].items()), sep="\n")
    return None


def adult(folder: Path) -> dict[str, Any]:
    """Rows a second of the forest, compiled and as it is, in one run."""
    train, test = (
        read(folder / name, skip) for name, skip in (("adult.data.gz", 0), ("adult.test.gz", 1))
    )
    signature = infer(train, target="income")
    fields = train.columns[:-1]
    model = forest([n for n in fields if train[n].dtype == "int64"], fields).fit(
        train[fields], train["income"]
    )
    started = time.perf_counter()
    compiled = compile(model, signature, test=test[fields], train=train[fields], frame="pandas")
    found: dict[str, Any] = {"equality": compiled.equality.sentence}
    found["compile_s"] = round(time.perf_counter() - started, 2)
    found |= loading(compiled, signature, copies=1)
    predictor = OnnxRuntime().load(compiled.files, signature)
    rows = columns_of(test, signature)
    for size in BATCHES:
        calls = max(8, 3000 // size)
        starts = [(at * size) % (len(rows) - size) for at in range(calls)]
        batches = [part_of(rows, slice(at, at + size)) for at in starts]
        seconds = best(lambda b=batches: [predictor.predict(x) for x in b]) / calls
        found[f"batch {size}"] = f"{seconds * 1e6:.0f} µs a call, {size / seconds:,.0f} rows/s"
    one = best(lambda: [model.predict_proba(test[fields][i : i + 1]) for i in range(20)]) / 20
    found["scikit-learn, batch 1"] = f"{one * 1e6:.0f} µs a call"
    return found


def forest(numeric: list[str], fields: Any) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    encoder = OneHotEncoder(handle_unknown="ignore")
    encoded = make_pipeline(SimpleImputer(strategy="most_frequent"), encoder)
    texts = [name for name in fields if name not in numeric]
    transformer = ColumnTransformer([("n", scaled, numeric), ("t", encoded, texts)])
    return make_pipeline(transformer, RandomForestClassifier(100, random_state=0, n_jobs=2))


def small() -> dict[str, Any]:
    """Load time and memory of a model of a few kilobytes, over 300 copies."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    table = load_breast_cancer(as_frame=True).frame
    signature = infer(table, target="target", labels=(0, 1))
    fields = table.drop(columns="target")
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(fields, table["target"])
    compiled = compile(model, signature, test=fields, train=fields, frame="pandas")
    return {"equality": compiled.equality.sentence} | loading(compiled, signature, copies=300)


def loading(compiled: Compiled, signature: Any, copies: int) -> dict[str, Any]:
    """Load in a fresh process, whose memory no earlier work has left free."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model").write_bytes(compiled.files["model.onnx"])
        (Path(folder) / "signature").write_bytes(msgspec.json.encode(signature))
        command = [sys.executable, __file__, "--load", folder, "--copies", str(copies)]
        measured = subprocess.run(command, check=True, capture_output=True)
    return {"file_bytes": len(compiled.files["model.onnx"])} | json.loads(measured.stdout)


def load(folder: Path, copies: int) -> None:
    files = {"model.onnx": (folder / "model").read_bytes()}
    signature = msgspec.json.decode((folder / "signature").read_bytes(), type=Signature)
    runtime = OnnxRuntime()
    first = runtime.load(files, signature) if copies > 1 else None  # what the library itself takes
    before, started = psutil.Process().memory_info().rss, time.perf_counter()
    kept = [runtime.load(files, signature) for _ in range(copies)]
    seconds = (time.perf_counter() - started) / len(kept)
    grown = (psutil.Process().memory_info().rss - before) / len(kept)
    print(json.dumps({"load_ms": round(seconds * 1e3, 2), "memory_mib": round(grown / 2**20, 3)}))
    del first


def read(path: Path, skip: int) -> Any:
    import pandas as pd

    table = pd.read_csv(
        path, names=NAMES.split(), skipinitialspace=True, na_values="?", skiprows=skip
    )
    return table.assign(income=table["income"].str.rstrip("."))


def best(work: Callable[[], object], times: int = 5) -> float:
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


if __name__ == "__main__":
    main()
