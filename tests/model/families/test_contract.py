"""Runtimes of ours pass the contract that every runtime passes."""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache

import msgspec
import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier
from support import TREES_IN_ONNX

from clewline.errors import IntegrityError, NotSupported
from clewline.model.compile.candidate_forms import MODEL
from clewline.model.compile.compiler import compile_model
from clewline.model.families.onnx.family import OnnxFamily
from clewline.model.families.sklearn.family import SklearnFamily
from clewline.model_families import family_named
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Output, Signature
from clewline.testing.family import FamilyContract, FamilyExample

FIELDS = (Field(name="a", kind="number"), Field(name="b", kind="number", nullable=True))
BINARY = Signature(fields=FIELDS, output=Output(name="y", task="binary", labels=(0, 1)))
MOODS = Signature(
    fields=(Field(name="text", kind="text"),),
    output=Output(name="mood", task="binary", labels=("good", "sad")),
)
NUMBER = Signature(fields=FIELDS, output=Output(name="y", task="regression"))


@lru_cache
def tables():
    import polars as pl

    values = np.random.default_rng(0).normal(size=(80, 2))
    holes = np.where(np.random.default_rng(1).random(80) < 0.2, None, values[:, 1])
    table = pl.DataFrame({"a": values[:, 0], "b": pl.Series(holes.tolist(), dtype=pl.Float64)})
    return table, (values[:, 0] > 0).astype(int)


def rows() -> Columns:
    numbers = tables()[0].to_numpy().astype(float)
    return Columns(np.ascontiguousarray(numbers), np.empty((80, 0), dtype=object))


@TREES_IN_ONNX
class TestOnnx(FamilyContract):
    def example(self) -> FamilyExample:
        return FamilyExample("onnx", dict(onnx_files()), BINARY, rows())


class TestSklearn(FamilyContract):
    def example(self) -> FamilyExample:
        return FamilyExample("sklearn", dict(sklearn_files()), NUMBER, complete())


class TestLinearTextModel(FamilyContract):
    def example(self) -> FamilyExample:
        return FamilyExample("linear_text_model", dict(linear_text_files()), MOODS, texts())


def texts() -> Columns:
    column = [f"{'good' if row % 2 else 'bad'} day {row} é" for row in range(40)]
    return Columns(np.empty((40, 0)), np.array(column, dtype=object).reshape(-1, 1))


def complete() -> Columns:
    whole = rows()
    return Columns(np.nan_to_num(whole.numbers), whole.texts)


@lru_cache
def onnx_files():
    table, y = tables()
    model = DecisionTreeClassifier(max_depth=3, random_state=0).fit(table, y)
    result = compile_model(model, BINARY, test=table, train=table, frame="polars")
    assert result.runtime == "onnx"
    return result.files


@lru_cache
def linear_text_files():
    import polars as pl

    table = pl.DataFrame({"text": texts().texts[:, 0].tolist()})
    model = make_pipeline(TfidfVectorizer(), LogisticRegression())
    model.fit(table["text"], np.where(np.arange(40) % 2, "good", "sad"))
    result = compile_model(model, MOODS, test=table, train=table, frame="texts")
    assert result.runtime == "linear_text_model"
    return result.files


@lru_cache
def sklearn_files():
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.preprocessing import QuantileTransformer

    table, y = tables()
    table = table.fill_null(0.0)
    around = TransformedTargetRegressor(
        LinearRegression(), transformer=QuantileTransformer(n_quantiles=10)
    )
    result = compile_model(
        around.fit(table, y * 1.0), NUMBER, test=table, train=table, frame="polars"
    )
    assert result.runtime == "sklearn"
    return result.files


@TREES_IN_ONNX
def test_an_onnx_file_that_does_not_state_its_encoding_is_refused():
    import onnx

    model = onnx.load_from_string(onnx_files()[MODEL])
    del model.metadata_props[:]
    with pytest.raises(IntegrityError, match="does not state"):
        OnnxFamily().load({MODEL: model.SerializeToString()}, BINARY)


def test_runtimes_are_found_by_name_and_an_unknown_one_names_those_there_are():
    assert isinstance(family_named("onnx"), OnnxFamily)
    assert isinstance(family_named("sklearn"), SklearnFamily)
    with pytest.raises(NotSupported, match=r"tensorrt.*onnx, .*sklearn"):
        family_named("tensorrt")


def boosted_files(library: str) -> dict[str, bytes]:
    """A booster of a library that has no compiled form, and is served as it is."""
    table, _ = tables()
    values, labels = complete().numbers, tables()[1]
    match library:
        case "lightgbm":
            import lightgbm

            model = lightgbm.LGBMClassifier(
                n_estimators=4, zero_as_missing=True, verbose=-1, min_child_samples=2, n_jobs=1
            )
            values = np.where(np.abs(values) < 0.2, 0.0, values)
        case "xgboost":
            import xgboost

            model = xgboost.XGBClassifier(n_estimators=4, missing=0.0, n_jobs=1)
            values = np.where(np.abs(values) < 0.2, 0.0, values)
        case _:
            import catboost

            model = catboost.CatBoostClassifier(
                iterations=4, grow_policy="Depthwise", verbose=0, allow_writing_files=False
            )
    frame = table.with_columns(a=values[:, 0], b=values[:, 1])
    fitted = family_named(library).as_estimator(model.fit(frame.to_pandas(), labels))
    result = compile_model(
        fitted, BINARY, test=frame.to_pandas(), train=frame.to_pandas(), frame="pandas"
    )
    assert result.runtime == library
    return result.files


class TestLightGBM(FamilyContract):
    def example(self) -> FamilyExample:
        return FamilyExample("lightgbm", boosted_files("lightgbm"), BINARY, rows())


class TestXGBoost(FamilyContract):
    def example(self) -> FamilyExample:
        return FamilyExample("xgboost", boosted_files("xgboost"), BINARY, rows())


class TestCatBoost(FamilyContract):
    def example(self) -> FamilyExample:
        return FamilyExample("catboost", boosted_files("catboost"), BINARY, rows())


def run_alone(code: str) -> str:
    """Run Python code in a new process; return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    return done.stdout


def test_finding_the_family_of_an_object_imports_no_library():
    heavy = {"sklearn", "lightgbm", "xgboost", "catboost", "skops", "onnx", "onnxruntime", "scipy"}
    code = "import sys; from clewline.model_families import family_of; family_of(object()); "
    assert not heavy & set(run_alone(code + "print(*sys.modules)").split())


@TREES_IN_ONNX
def test_serving_a_compiled_model_imports_no_training_library(tmp_path):
    (tmp_path / "model.onnx").write_bytes(onnx_files()[MODEL])
    (tmp_path / "signature.json").write_bytes(msgspec.json.encode(BINARY))
    code = f"""
import sys
from pathlib import Path
import msgspec
from clewline.model_families import family_named
from clewline.signature.field import Signature
folder = Path({str(tmp_path)!r})
signature = msgspec.json.decode((folder / "signature.json").read_bytes(), type=Signature)
family_named("onnx").load({{"model.onnx": (folder / "model.onnx").read_bytes()}}, signature)
print(*sys.modules)
"""
    loaded = set(run_alone(code).split())
    assert "onnxruntime" in loaded
    assert not {"sklearn", "skl2onnx", "onnx", "skops", "pandas", "polars"} & loaded
