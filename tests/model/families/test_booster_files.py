"""Boosters in their libraries' own formats are described by their file, a signature or rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support import TREES_IN_ONNX

from clewline.errors import InvalidInput, NotSupported
from clewline.model.families.family import PackageContents, RegistrationInputs
from clewline.model.families.model_files import convert_bytes
from clewline.model.register import convert_model
from clewline.model_families import family_named
from clewline.signature.check import Checker
from clewline.signature.field import Field, Output, Signature

DRAW = np.random.default_rng(0)
ROWS = pd.DataFrame({"a": DRAW.normal(size=150), "b": DRAW.normal(size=150)})
LABELS = (ROWS.a > 0).astype(int)


def answers(made: PackageContents, rows: pd.DataFrame) -> Any:
    predictor = family_named(made.compiled.runtime).load(made.files, made.signature)
    columns = Checker(made.signature).table(rows).columns
    found = predictor.predict(columns).probabilities
    predictor.close()
    assert found is not None
    return found[:, 1]


def lightgbm_text(rows: pd.DataFrame) -> tuple[bytes, Any]:
    lightgbm = pytest.importorskip("lightgbm")
    data = lightgbm.Dataset(rows, LABELS)
    booster = lightgbm.train({"objective": "binary", "verbose": -1, "min_data_in_leaf": 5}, data, 8)
    return booster.model_to_string().encode(), booster.predict(rows)


def xgboost_file(form: str) -> tuple[bytes, Any]:
    xgboost = pytest.importorskip("xgboost")
    data = xgboost.DMatrix(ROWS, LABELS)
    booster = xgboost.train({"objective": "binary:logistic", "nthread": 1}, data, 8)
    return bytes(booster.save_raw(form)), booster.predict(data)


def catboost_file(form: str, path: Path) -> tuple[bytes, Any]:
    catboost = pytest.importorskip("catboost")
    model = catboost.CatBoostClassifier(
        iterations=8, verbose=False, allow_writing_files=False, thread_count=1
    )
    model.fit(ROWS, LABELS)
    model.save_model(str(path), format=form)
    return path.read_bytes(), model.predict_proba(ROWS)[:, 1]


FORMS = ["lightgbm", "xgboost-json", "xgboost-ubj", "catboost-cbm", "catboost-json"]


@pytest.mark.parametrize("form", FORMS)
def test_a_file_alone_tells_its_fields_and_answers_as_its_library(
    form: str, tmp_path: Path
) -> None:
    library, _, written = form.partition("-")
    match library:
        case "lightgbm":
            data, expected = lightgbm_text(ROWS)
        case "xgboost":
            data, expected = xgboost_file(written)
        case _:
            data, expected = catboost_file(written, tmp_path / "model")
    path = tmp_path / "whatever.bin"
    path.write_bytes(data)
    made = convert_model(path)
    assert [field.name for field in made.signature.fields] == ["a", "b"]
    assert made.signature.output.task == "binary"
    assert any("made from the signature" in note for note in made.notes)
    np.testing.assert_allclose(answers(made, ROWS), expected, atol=1e-6)


def test_categories_are_those_of_the_file_in_its_order(tmp_path: Path) -> None:
    words = pd.Categorical(DRAW.choice(["z", "a", "m"], 150), categories=["z", "a", "m"])
    table = ROWS.assign(c=words)
    data, expected = lightgbm_text(table)
    path = tmp_path / "model.txt"
    path.write_bytes(data)
    alone = convert_model(path)
    assert alone.signature.fields[2].levels == ("a", "m", "z")
    sampled = convert_model(path, train=table.assign(c=table.c.astype(str)))
    for made in (alone, sampled):
        np.testing.assert_allclose(answers(made, table), expected, atol=1e-6)


def test_a_signature_names_the_labels_and_must_have_the_fields(tmp_path: Path) -> None:
    data, _ = lightgbm_text(ROWS)
    path = tmp_path / "model.txt"
    path.write_bytes(data)
    fields = tuple(Field(name=name, kind="number") for name in ("a", "b"))
    output = Output(name="y", task="binary", labels=("no", "yes"))
    made = convert_model(path, signature=Signature(fields=fields, output=output))
    assert made.signature.output.labels == ("no", "yes")
    with pytest.raises(InvalidInput, match="takes the fields a, b"):
        convert_model(path, signature=Signature(fields=fields[::-1], output=output))
    three = Output(name="y", task="multiclass", labels=("x", "y", "z"))
    with pytest.raises(InvalidInput, match="knows 2 labels"):
        convert_model(path, signature=Signature(fields=fields, output=three))


@TREES_IN_ONNX
def test_a_table_with_the_target_is_compared_and_a_signature_beside_it_counts(
    tmp_path: Path,
) -> None:
    data, _ = lightgbm_text(ROWS)
    path = tmp_path / "model.txt"
    path.write_bytes(data)
    train = ROWS.assign(y=LABELS)
    compared = convert_model(path, train=train, target="y")
    assert compared.compiled.equality.form == "trees on raw fields"
    assert not any("made from the signature" in note for note in compared.notes)
    fields = tuple(Field(name=name, kind="number") for name in ("a", "b"))
    stated = Signature(fields=fields, output=Output(name="y", task="binary", labels=("no", "yes")))
    for more in ({"train": train, "target": "y"}, {"train": ROWS}):
        assert convert_model(path, signature=stated, **more).signature.output == stated.output


def test_a_file_without_names_says_what_to_write(tmp_path: Path) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    data = lightgbm.Dataset(ROWS.to_numpy(), LABELS)
    booster = lightgbm.train({"objective": "binary", "verbose": -1}, data, 3)
    path = tmp_path / "model.txt"
    path.write_text(booster.model_to_string())
    with pytest.raises(InvalidInput) as told:
        convert_model(path)
    assert "--signature FILE" in (told.value.fix or "")
    assert convert_model(path, train=ROWS).signature.fields[0].name == "a"


@pytest.mark.parametrize("library", ["lightgbm", "xgboost", "catboost"])
def test_a_damaged_file_is_refused_and_ends_no_process(library: str) -> None:
    """Native readers crash on some of these: another process reads the file first."""
    data = saved_classifier(library)
    draw = np.random.default_rng(1)
    damaged = [data[: len(data) // 2], data[:-20]]
    for _ in range(3):
        copy = bytearray(data)
        for place in draw.integers(40, len(copy), 30).tolist():
            copy[place] = int(draw.integers(0, 256))
        damaged.append(bytes(copy))
    for each in damaged:
        try:
            convert_bytes(each, RegistrationInputs(train=None, signature=TWO_NUMBERS), "model")
        except (NotSupported, InvalidInput):
            continue


TWO_NUMBERS = Signature(
    fields=(Field(name="a", kind="number"), Field(name="b", kind="number")),
    output=Output(name="y", task="binary", labels=(0, 1)),
)


def saved_classifier(library: str) -> bytes:
    """The file of a small classifier of two numbers."""
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(200, 2))
    labels = (rows[:, 0] > rows[:, 1]).astype(int)
    family = family_named(library)
    if library == "lightgbm":
        import lightgbm

        model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1).fit(rows, labels)
    elif library == "xgboost":
        import xgboost

        model = xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(rows, labels)
    else:
        import catboost

        model = catboost.CatBoostClassifier(iterations=5, verbose=0, allow_writing_files=False)
        model.fit(rows, labels)
    data: bytes = family.serialize(family.booster_of(model))
    return data
