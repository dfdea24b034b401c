"""Python classes, loaded from the bytes of their package and nothing else."""

from __future__ import annotations

import datetime as dt
import logging
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from clewline.errors import IntegrityError, ModelFailed, NotSupported
from clewline.model.families.python_class.family import PythonClassFamily
from clewline.model.families.python_class.loading import dicts_of, model_input
from clewline.model.families.python_class.spec import SPEC
from clewline.model.runtime.frames import ColumnLayout, TableLayout
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Output, Signature
from clewline.testing.family import FamilyContract, FamilyExample

MOOD = Signature(
    fields=(Field(name="text", kind="text", nullable=True), Field(name="stars", kind="integer")),
    output=Output(name="mood", task="binary", labels=("bad", "good")),
)
NUMBER = Signature(fields=MOOD.fields, output=Output(name="y", task="regression"))

SENTIMENT = """
import json
import words

class Model:
    def __init__(self, vocabulary, bias=0.0):
        self.weights, self.bias = json.loads(vocabulary.read_text()), bias

    def predict(self, rows):
        return [self.mood(row) for row in rows]

    def mood(self, row):
        score = self.bias + sum(self.weights.get(each, 0) for each in words.of(row["text"] or ""))
        share = 1 / (1 + 2.0 ** -score)
        return {"label": "good" if share > 0.5 else "bad",
                "probabilities": {"good": share, "bad": 1 - share}}
"""
WORDS = "def of(text):\n    return text.lower().split()\n"
TEXTS = ["a fine film", "an awful, awful film", None, "FINE"] * 6


def sentiment(package: Any, **said: Any) -> dict[str, bytes]:
    modules = {"words.py": WORDS, **said.pop("modules", {})}
    weights = {"fine": 2, "awful": -3}
    return package(SENTIMENT, modules=modules, vocabulary=weights, arguments={"bias": 0.1}, **said)


def rows(texts: list[str | None] = TEXTS) -> Columns:
    numbers = np.arange(len(texts), dtype=np.float64).reshape(-1, 1)
    held = np.empty((len(texts), 1), dtype=object)
    held[:, 0] = texts
    return Columns(numbers, held)


class TestPython(FamilyContract):
    @pytest.fixture
    def given(self, package: Any) -> FamilyExample:
        return FamilyExample("python_class", sentiment(package), MOOD, rows())


def test_labels_and_probabilities_stand_in_the_order_of_the_signature(package: Any) -> None:
    found = PythonClassFamily().load(sentiment(package), MOOD).predict(rows(["fine", "awful"]))
    assert found.choices is not None
    assert found.probabilities is not None
    assert found.choices.tolist() == [1, 0]
    assert found.probabilities[0].tolist() == [1 - 1 / (1 + 2.0**-2.1), 1 / (1 + 2.0**-2.1)]


def test_two_states_of_one_module_live_side_by_side(package: Any) -> None:
    plain = PythonClassFamily().load(sentiment(package), MOOD)
    upside = {"words.py": "def of(text):\n    return ['awful'] * len(text)\n"}
    other = PythonClassFamily().load(sentiment(package, modules=upside), MOOD)
    asked = rows(["fine"])
    assert [_choice(plain, asked), _choice(other, asked), _choice(plain, asked)] == [1, 0, 1]
    assert "words" not in sys.modules


def _choice(predictor: Any, asked: Columns) -> int:
    return int(predictor.predict(asked).choices[0])


KEEPS = """
import stat
class Model:
    def __init__(self, vocabulary):
        self.path = vocabulary
    def predict(self, rows):
        mode = stat.S_IMODE(self.path.stat().st_mode)
        raise RuntimeError(f"{self.path} {mode:o} {self.path.parent.stat().st_uid}")
"""


def test_files_are_read_only_copies_that_are_deleted_at_the_end(package: Any) -> None:
    loaded = PythonClassFamily().load(package(KEEPS, vocabulary=[1]), MOOD)
    with pytest.raises(ModelFailed, match=r"predict raised RuntimeError") as caught:
        loaded.predict(rows(["x"]))
    path, mode, _ = str(caught.value.__cause__).split()
    assert (Path(path).name, Path(path).read_bytes(), mode) == ("words.json", b"[1]", "400")
    loaded.close()
    assert not Path(path).parent.parent.exists()


def test_a_file_of_a_folder_cannot_be_written_outside_of_it(package: Any) -> None:
    files = package(KEEPS, vocabulary=[1])
    spec = msgspec.json.decode(files[SPEC])
    parts = spec["files"]["vocabulary"]["parts"]
    parts["../../../escaped.json"] = parts.pop("words.json")
    with pytest.raises(IntegrityError, match="leads out of its folder"):
        PythonClassFamily().load({**files, SPEC: msgspec.json.encode(spec)}, MOOD)


def test_a_library_that_is_missing_is_named_with_the_command(package: Any) -> None:
    files = package("class Model: ...\n", requirements={"no-such-library": "1.2", "numpy": "0"})
    with pytest.raises(NotSupported, match=r"no-such-library==1\.2") as caught:
        PythonClassFamily().load(files, MOOD)
    assert (caught.value.fix or "").endswith(" 'no-such-library==1.2'")


def test_a_library_of_another_version_is_a_warning(
    package: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        loaded = PythonClassFamily().load(
            package("class Model: ...\n", requirements={"numpy": "0"}), MOOD
        )
    assert len(loaded.warnings) == 1
    assert "registered with numpy 0" in loaded.warnings[0]
    assert loaded.warnings[0] in caplog.text


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("1 / 0\n", "ZeroDivisionError"),
        ("class Model:\n    def __init__(self):\n        open('gone.txt')\n", "gone.txt"),
        ("class Other: ...\n", "Model"),
    ],
)
def test_code_that_raises_as_it_is_loaded_is_a_failed_model(
    package: Any, source: str, says: str
) -> None:
    with pytest.raises(ModelFailed, match=says):
        PythonClassFamily().load(package(source), MOOD)


def test_what_it_answers_must_be_what_its_signature_says(package: Any) -> None:
    loaded = PythonClassFamily().load(
        package("class Model:\n    def predict(self, rows):\n        return ['meh'] * len(rows)\n"),
        MOOD,
    )
    with pytest.raises(ModelFailed, match="'meh' to row 0; expected one of"):
        loaded.predict(rows(["x"]))


def test_a_model_whose_bits_depend_on_the_batch_is_called_a_row_at_a_time(package: Any) -> None:
    source = "class Model:\n    def predict(self, rows):\n        return [len(rows)] * len(rows)\n"
    whole = PythonClassFamily().load(package(source), NUMBER).predict(rows(["x"] * 3))
    alone = (
        PythonClassFamily().load(package(source, rows_per_call=1), NUMBER).predict(rows(["x"] * 3))
    )
    assert whole.values is not None
    assert alone.values is not None
    assert whole.values.tolist() == [3, 3, 3]
    assert alone.values.tolist() == [1, 1, 1]


KINDS = Signature(
    fields=(
        Field(name="n", kind="integer", nullable=True),
        Field(name="b", kind="boolean"),
        Field(name="when", kind="datetime"),
        Field(name="s", kind="text", nullable=True),
        Field(name="x", kind="number"),
        Field(name="t", kind="tensor", dtype="float32", shape=(2,)),
    ),
    output=Output(name="y", task="regression"),
)


def test_rows_hold_the_values_that_a_caller_sent() -> None:
    texts = np.array([[None]], dtype=object)
    numbers = np.array([[np.nan, 1.0, 1_500_000.0, 2.0]])
    tensor = np.array([[1, 2]], dtype=np.float32)
    (row,) = dicts_of(Columns(numbers, texts, {"t": tensor}), KINDS)
    moment = dt.datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=dt.UTC)
    assert list(row) == ["n", "b", "when", "s", "x", "t"]
    assert (row["n"], row["b"], row["when"], row["s"], row["x"]) == (None, True, moment, None, 2.0)
    assert type(row["x"]) is float
    assert row["t"].tolist() == [1.0, 2.0]


def test_a_frame_has_the_library_and_the_types_of_the_training_table() -> None:
    import pandas as pd

    layout = TableLayout("pandas", {"text": ColumnLayout("object"), "stars": ColumnLayout("int64")})
    table = model_input(rows(["a", None]), MOOD, "pandas", layout)
    assert isinstance(table, pd.DataFrame)
    assert table.dtypes.astype(str).to_dict() == {"text": "object", "stars": "int64"}
