"""A Python class becomes a version: its code, files and arguments, held against the object."""

from __future__ import annotations

import importlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

import clewline as cl
from clewline.errors import NotFound, NotSupported, UsageError
from clewline.flow.run import execute
from clewline.model.families.family import PackageContents
from clewline.model.families.python_class.family import PythonClassFamily
from clewline.model.register import convert_model
from clewline.model.registry import Registry, load_predictor
from clewline.model.verify import verify
from clewline.project import Project
from clewline.signature.check import Checker

TEXTS = ["a fine day", "an awful day", "fine, fine", "awful and fine and awful", "a day"] * 12
TABLE = pl.DataFrame({"text": TEXTS, "stars": list(range(60))}).with_columns(
    mood=pl.when(pl.col("text").str.count_matches("awful") > 0)
    .then(pl.lit("bad"))
    .otherwise(pl.lit("good")),
    price=pl.col("stars") * 2.0,
)
MOODS = TABLE.drop("price")
PRICES = TABLE.select("stars", "price")

SENTIMENT = """
import json
from pathlib import Path

import TOKENS

class Sentiment:
    def __init__(self, vocabulary: Path, *, bias: float = 0.0):
        self.bias = bias
        self.weights = json.loads(vocabulary.read_text())

    def predict(self, rows):
        return [self.mood(row["text"]) for row in rows]

    def mood(self, text):
        score = self.bias + sum(self.weights.get(each, 0) for each in TOKENS.tokens(text))
        share = 1 / (1 + 2.0 ** -score)
        return {"good": share, "bad": 1 - share}
"""
WEIGHTS = {"fine": 1, "awful": -4}

Module = Callable[..., Any]
_number = itertools.count()


@pytest.fixture
def module(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Module]:
    """Write a module of the project and import it: `module(source)`."""
    monkeypatch.syspath_prepend(project.root)
    names: list[str] = []

    def write(source: str) -> Any:
        names.append(f"own_{next(_number)}")
        (project.root / f"{names[-1]}.py").write_text(source)
        importlib.invalidate_caches()
        return importlib.import_module(names[-1])

    yield write
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def sentiment(project: Project, module: Module) -> Any:
    """A model with a tokenizer in a module of its own and a vocabulary in a file."""
    tokens = module("def tokens(text):\n    return text.replace(',', ' ').split()\n")
    (project.root / "words.json").write_text(json.dumps(WEIGHTS))
    return module(SENTIMENT.replace("TOKENS", tokens.__name__)).Sentiment


def answers(contents: PackageContents, table: pl.DataFrame) -> Any:
    loaded = PythonClassFamily().load(contents.files, contents.signature)
    found = loaded.predict(Checker(contents.signature).table(table).columns)
    loaded.close()
    return found


def spec(contents: PackageContents) -> Any:
    return msgspec.json.decode(contents.files["python.json"])


def test_a_version_answers_as_the_object_did_whatever_becomes_of_the_project(
    registry: Registry, sentiment: Any
) -> None:
    words = registry.project.root / "words.json"

    @cl.pipeline
    def moods() -> None:
        model = sentiment(words, bias=0.5)
        cl.register(
            "moods", model, train=MOODS, test=MOODS, target="mood", files={"vocabulary": words}
        )

    execute(moods, {}, project=registry.project, store=registry.store)
    wanted = sentiment(words, bias=0.5).predict(MOODS.to_dicts())
    words.unlink()
    for path in registry.project.root.glob("own_*.py"):
        path.write_text("raise RuntimeError('the working tree was imported')\n")
    package = registry.open("moods@1")
    loaded = load_predictor(package)
    found = loaded.predict(Checker(package.signature).table(MOODS.drop("mood")).columns)
    loaded.close()
    assert found.probabilities.tolist() == [[each["bad"], each["good"]] for each in wanted]
    assert package.manifest.runtime == "python_class"
    assert package.manifest.report is not None
    assert package.manifest.report["metrics"]["accuracy"]["value"] == 1.0
    assert verify(registry, "moods@1").sound
    assert not [name for name in package.files if name.endswith((".pkl", ".pickle", ".skops"))]
    assert {name for name in package.files if not name.startswith("code.own_")} == {
        "python.json", "file.vocabulary.json", "signature.json", "equality.json", "profile.json",
        "background.json",
    }  # fmt: skip


def test_the_same_class_files_and_arguments_are_no_new_version(
    registry: Registry, sentiment: Any
) -> None:
    words = registry.project.root / "words.json"

    @cl.pipeline
    def moods(bias: float) -> None:
        cl.register(
            "moods", sentiment, train=MOODS, target="mood",
            files={"vocabulary": words}, arguments={"bias": bias},
        )  # fmt: skip

    for bias in (0.5, 0.5, 0.75):
        execute(moods, {"bias": bias}, project=registry.project, store=registry.store)
    assert [version.number for version in registry.list()] == [2, 1]


def test_a_pandas_model_is_given_pandas_frames(module: Module) -> None:
    own = module(
        "class Model:\n    def predict(self, table):\n"
        "        return table['stars'].astype(float).mul(2)\n"
    )
    table = PRICES.to_pandas()
    contents = convert_model(own.Model(), train=table, target="price")
    assert spec(contents)["frame"] == "pandas"
    assert list(spec(contents)["requirements"]) == ["pandas"]
    assert answers(contents, PRICES.drop("price")).values.tolist() == PRICES["price"].to_list()
    assert contents.compiled.equality.identical_rows == 60


@pytest.mark.parametrize(
    ("parameter", "frame"),
    [("rows", "rows"), ("table: 'np.ndarray'", "numpy"), ("table", "polars")],
)
def test_what_predict_takes_is_told_by_its_parameter(
    module: Module, parameter: str, frame: str
) -> None:
    name = parameter.partition(":")[0]
    own = module(
        f"class Model:\n    def predict(self, {parameter}):\n        return [1.5] * len({name})\n"
    )
    contents = convert_model(own.Model, train=PRICES, target="price")
    assert spec(contents)["frame"] == frame
    assert contents.signature.output.task == "regression"
    assert answers(contents, PRICES[:2].drop("price")).values.tolist() == [1.5, 1.5]


def test_what_an_object_learned_and_no_file_holds_is_refused(module: Module) -> None:
    own = module(
        "class Model:\n    def __init__(self):\n        self.mean = 0.0\n"
        "    def fit(self, table):\n        self.mean = 7.0\n        return self\n"
        "    def predict(self, rows):\n        return [self.mean] * len(rows)\n"
    )
    with pytest.raises(NotSupported, match="does not answer as the object"):
        convert_model(own.Model().fit(PRICES), train=PRICES, target="price")


def test_a_file_that_is_read_on_the_side_is_refused(
    project: Project, module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    Path("factor.txt").write_text("2")
    own = module(
        "from pathlib import Path\nclass Model:\n    def __init__(self):\n"
        "        self.factor = float(Path('factor.txt').read_text())\n"
        "    def predict(self, rows):\n        return [self.factor for row in rows]\n"
    )
    with pytest.raises(NotSupported, match="works only where it was registered") as caught:
        convert_model(own.Model, train=PRICES, target="price")
    assert "factor.txt" in caught.value.message


def test_a_model_that_is_not_deterministic_says_so(module: Module) -> None:
    own = module(
        "import random\nclass Model:\n    def predict(self, rows):\n"
        "        return [random.random() for _ in rows]\n"
    )
    contents = convert_model(own.Model(), train=PRICES, target="price")
    assert contents.compiled.equality.sentence == (
        "served by Model itself: a Python class, not deterministic: replay will differ"
    )
    assert (spec(contents)["deterministic"], spec(contents)["rows_per_call"]) == (False, 1)


def test_a_class_that_tells_labels_alone_says_so(module: Module) -> None:
    own = module(
        "class Model:\n    def predict(self, rows):\n        return ['dear'] * len(rows)\n"
    )
    table = PRICES.with_columns(price=pl.Series(["dear", "cheap"] * (len(PRICES) // 2)))
    assert not convert_model(
        own.Model, train=table, target="price"
    ).signature.output.has_probabilities


def test_a_model_that_minds_its_neighbours_is_called_a_row_at_a_time(module: Module) -> None:
    own = module(
        "class Model:\n    def predict(self, rows):\n        return [1 / len(rows)] * len(rows)\n"
    )
    contents = convert_model(own.Model, train=PRICES, target="price")
    assert (spec(contents)["deterministic"], spec(contents)["rows_per_call"]) == (True, 1)
    assert answers(contents, PRICES[:3].drop("price")).values.tolist() == [1, 1, 1]


def test_a_folder_is_given_whole(project: Project, module: Module) -> None:
    (project.root / "lists" / "a").mkdir(parents=True)
    (project.root / "lists" / "a" / "one.txt").write_text("1")
    (project.root / "lists" / "a.one.txt").write_text("2")
    own = module(
        "class Model:\n    def __init__(self, lists):\n"
        "        parts = [lists / 'a' / 'one.txt', lists / 'a.one.txt']\n"
        "        self.total = sum(float(each.read_text()) for each in parts)\n"
        "    def predict(self, rows):\n        return [self.total] * len(rows)\n"
    )
    files = {"lists": project.root / "lists"}
    contents = convert_model(own.Model, train=PRICES, target="price", files=files)
    assert answers(contents, PRICES[:1].drop("price")).values.tolist() == [3.0]


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({}, NotSupported, "cannot be made without 'vocabulary'"),
        ({"files": {"vocabularies": "words.json"}}, UsageError, "no parameter 'vocabularies'"),
        ({"files": {"vocabulary": "gone.json"}}, NotFound, r"gone\.json"),
        ({"arguments": {"vocabulary": {1, 2}}}, NotSupported, "is a set"),
        ({"arguments": {"vocabulary": (1, 2)}}, NotSupported, "is a tuple"),
    ],
)
def test_what_cannot_be_made_again_is_refused(
    sentiment: Any, given: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        convert_model(sentiment, train=MOODS, target="mood", **given)


def test_an_argument_that_an_object_does_not_keep_is_asked_for(module: Module) -> None:
    own = module(
        "class Model:\n    def __init__(self, scale=1.0):\n        self.hidden = scale\n"
        "    def predict(self, rows):\n        return [r['stars'] * self.hidden for r in rows]\n"
    )
    with pytest.raises(NotSupported, match="does not keep its argument 'scale'"):
        convert_model(own.Model(2.0), train=PRICES, target="price")
    contents = convert_model(own.Model(2.0), train=PRICES, target="price", arguments={"scale": 2.0})
    assert answers(contents, PRICES[:3].drop("price")).values.tolist() == [0, 2, 4]


def test_a_class_inside_of_a_function_has_no_file_to_come_from() -> None:
    class Local:
        def predict(self, rows):
            return [0.0] * len(rows)

    with pytest.raises(NotSupported, match="inside of a function"):
        convert_model(Local(), train=PRICES, target="price")
