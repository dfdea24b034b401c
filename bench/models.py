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

from clewline.model.compile.compiler import compile_model
from clewline.model.compile.equivalence import CompiledModel
from clewline.model.families.family import RegistrationInputs
from clewline.model.families.model_files import convert_bytes
from clewline.model.families.onnx.family import OnnxFamily
from clewline.model.runtime.frames import columns_of
from clewline.model.runtime.outputs import take_rows
from clewline.model_families import family_named
from clewline.signature.field import Signature
from clewline.signature.infer import infer_signature

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
    found = {"adult": adult(given.data), "small": small(), "kinds": kinds(given.data)}
    libraries = ("lightgbm", "xgboost-cpu", "catboost")
    keep("models", found, versions=("onnxruntime", "scikit-learn", "skl2onnx", *libraries))
    for name in ("adult", "small", "kinds"):
        print(name, *(f"  {key}: {value}" for key, value in found[name].items()), sep="\n")
    return None


def adult(folder: Path) -> dict[str, Any]:
    """Rows a second of the forest, compiled and as it is, in one run."""
    train, test = (
        read(folder / name, skip) for name, skip in (("adult.data.gz", 0), ("adult.test.gz", 1))
    )
    signature = infer_signature(train, target="income")
    fields = train.columns[:-1]
    model = forest([n for n in fields if train[n].dtype == "int64"], fields).fit(
        train[fields], train["income"]
    )
    started = time.perf_counter()
    compiled = compile_model(
        model, signature, test=test[fields], train=train[fields], frame="pandas"
    )
    found: dict[str, Any] = {"equality": compiled.equality.sentence}
    found["compile_s"] = round(time.perf_counter() - started, 2)
    found |= loading(compiled, signature, copies=1)
    predictor = OnnxFamily().load(compiled.files, signature)
    rows = columns_of(test, signature)
    for size in BATCHES:
        calls = max(8, 3000 // size)
        starts = [(at * size) % (len(rows) - size) for at in range(calls)]
        batches = [take_rows(rows, slice(at, at + size)) for at in starts]
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


def kinds(folder: Path) -> dict[str, Any]:
    """Each other kind as it is served, beside its library's own estimator, on the same rows."""
    train, test = (
        read(folder / name, skip) for name, skip in (("adult.data.gz", 0), ("adult.test.gz", 1))
    )
    numbers = train.select_dtypes("int64").columns.tolist()
    models = boosters()
    found = {}
    for name, model in models.items():
        model.fit(train[numbers], (train["income"] == ">50K").astype(int))
        table = train[numbers].assign(income=(train["income"] == ">50K").astype(int))
        found[name] = served(model, table, test[numbers])
    found["texts, words of ASCII"] = texts("[a-zA-Z]+", folder.parent)
    found["texts, words of every alphabet"] = texts(r"(?u)\b\w\w+\b", folder.parent)
    found["an ONNX file"] = brought(train[numbers], train["income"])
    return found


def boosters() -> dict[str, Any]:
    import catboost
    import lightgbm
    import xgboost

    light = {"n_estimators": 100, "verbose": -1, "n_jobs": 1}
    extreme = {"n_estimators": 100, "n_jobs": 1}
    cat = {"iterations": 100, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
    return {
        "LightGBM, compiled": lightgbm.LGBMClassifier(**light),
        "LightGBM, own format": lightgbm.LGBMClassifier(zero_as_missing=True, **light),
        "XGBoost, compiled": xgboost.XGBClassifier(**extreme),
        "XGBoost, own format": xgboost.XGBClassifier(booster="dart", **extreme),
        "CatBoost, compiled": catboost.CatBoostClassifier(**cat),
        "CatBoost, own format": catboost.CatBoostClassifier(grow_policy="Depthwise", **cat),
    }


def served(model: Any, train: Any, test: Any, target: str = "income") -> dict[str, str]:
    """Register, load and ask."""
    from clewline.model.register import convert_model

    made = convert_model(model, train=train, test=test[:2000], target=target)
    seconds, told = asked(made, test)
    own = best(lambda: model.predict_proba(own_rows(made, test)[:1000]), 3)
    one = best(lambda: [model.predict_proba(own_rows(made, test)[i : i + 1]) for i in range(20)])
    return told | {
        "library, batch 1": f"{one / 20 * 1e6:.0f} µs",
        "library, batch 1000": f"{1000 / own:,.0f} rows/s",
        "gain at 1": f"{one / 20 / seconds:.1f}",
    }


def own_rows(made: Any, test: Any) -> Any:
    """Rows as the library takes them: a list where it takes texts."""
    is_text = [field.kind for field in made.signature.fields] == ["text"]
    return test[made.signature.fields[0].name].tolist() if is_text else test


def asked(made: Any, test: Any) -> tuple[float, dict[str, str]]:
    runtime = family_named(made.compiled.runtime)
    load_s = best(lambda: runtime.load(made.compiled.files, made.signature).close())
    predictor = runtime.load(made.compiled.files, made.signature)
    rows = columns_of(test, made.signature)
    single, many = (
        [take_rows(rows, slice(i, i + 1)) for i in range(200)],
        take_rows(rows, slice(0, 1000)),
    )
    one = best(lambda: [predictor.predict(row) for row in single]) / len(single)
    seconds = best(lambda: predictor.predict(many), 3)
    return one, {
        "served by": made.compiled.runtime,
        "load": f"{load_s * 1e3:.1f} ms",
        "batch 1": f"{one * 1e6:.0f} µs",
        "batch 1000": f"{len(many) / seconds:,.0f} rows/s",
    }


def texts(pattern: str, data: Path) -> dict[str, str]:
    """TF-IDF and logistic regression over 24,783 short texts."""
    import pandas as pd
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    table = pd.read_csv(data / "davidson-hate-speech" / "labeled_data.csv.gz")
    table = table[["tweet", "class"]].rename(columns={"class": "income"})
    train, test = table[:8000], table[8000:12000].reset_index(drop=True)
    model = make_pipeline(TfidfVectorizer(token_pattern=pattern), LogisticRegression(max_iter=200))
    return served(model.fit(train["tweet"], train["income"]), train, test)


def brought(fields: Any, target: Any) -> dict[str, str]:
    """A forest of 20 trees as somebody else exported it."""
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier

    numbers = fields.astype("float32")
    model = RandomForestClassifier(20, max_depth=8, random_state=0).fit(numbers.to_numpy(), target)
    data = to_onnx(model, numbers.to_numpy()[:1]).SerializeToString()
    given = RegistrationInputs(train=numbers.assign(income=target), target="income")
    return asked(convert_bytes(data, given, "forest.onnx"), numbers)[1]


def small() -> dict[str, Any]:
    """Load time and memory of a model of a few kilobytes, over 300 copies."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    table = load_breast_cancer(as_frame=True).frame
    signature = infer_signature(table, target="target", labels=(0, 1))
    fields = table.drop(columns="target")
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(fields, table["target"])
    compiled = compile_model(model, signature, test=fields, train=fields, frame="pandas")
    return {"equality": compiled.equality.sentence} | loading(compiled, signature, copies=300)


def loading(compiled: CompiledModel, signature: Any, copies: int) -> dict[str, Any]:
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
    runtime = OnnxFamily()
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
