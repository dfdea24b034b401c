"""Pipelines over texts are served, compiled where ONNX cuts words out as Python does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from fairlead.errors import InvalidInput
from fairlead.evaluate.report import evaluate
from fairlead.model import contents
from fairlead.model.runtime import registry
from fairlead.signature.columns import Columns

GOOD = ("good day to you", "a fine morning", "splendid work 42", "Bravo, bravo!")
BAD = ("what a bad day", "this is awful", "Terrible! never again", "rotten eggs")
DRAW = np.random.default_rng(0)
ODD = ("", " ", "...", "naïve CAFÉ", "日本語 text", "İstanbul", "x" * 3000, "a 1 b", "no_such-word")


def table(rows: int = 200) -> pd.DataFrame:
    good = DRAW.random(rows) < 0.5
    texts = [
        f"{DRAW.choice(GOOD if is_good else BAD)} {DRAW.choice(['é', 'one', 'Two', '3'])}"
        for is_good in good
    ]
    return pd.DataFrame({"text": texts, "mood": np.where(good, "good", "bad")})


TRAIN, TEST = table(), table(60)


def packed(model: Any, train: Any = TRAIN, test: Any = TEST) -> contents.Contents:
    model.fit(train["text"], train["mood"])
    return contents.make(model, train=train, test=test, target="mood")


def answers(made: contents.Contents, texts: tuple[str, ...]) -> Any:
    column = np.array(texts, dtype=object).reshape(-1, 1)
    predictor = registry.load(made.compiled.runtime).load(made.files, made.signature)
    return predictor.predict(Columns(np.empty((len(texts), 0)), column))


@pytest.mark.parametrize(
    ("vectorizer", "final"),
    [
        (TfidfVectorizer(token_pattern="[a-zA-Z]+"), LogisticRegression()),
        (CountVectorizer(token_pattern="[a-zA-Z]+", lowercase=False), MultinomialNB()),
    ],
    ids=["tf-idf", "counts"],
)
def test_words_of_ascii_letters_are_compiled_and_equal(vectorizer: Any, final: Any) -> None:
    model = make_pipeline(vectorizer, final)
    made = packed(model)
    held = made.compiled.equality
    assert (made.compiled.runtime, held.form, held.flips) == ("onnx", "texts, by skl2onnx", 0)
    found = answers(made, ODD)
    np.testing.assert_allclose(found.probabilities, model.predict_proba(list(ODD)), atol=1e-6)
    assert [field.kind for field in made.signature.fields] == ["text"]


SERVED = {
    "words of every alphabet": (TfidfVectorizer(), LogisticRegression(), "differ"),
    "hashes": (HashingVectorizer(n_features=256), SGDClassifier(), "HashingVectorizer"),
    "characters": (TfidfVectorizer(analyzer="char"), LinearSVC(), "char has no lowering"),
    "accents": (CountVectorizer(strip_accents="unicode"), MultinomialNB(), "strip_accents"),
}


@pytest.mark.parametrize("name", SERVED)
def test_what_onnx_cuts_otherwise_is_served_by_scikit_learn(name: str) -> None:
    vectorizer, final, reason = SERVED[name]
    model = make_pipeline(vectorizer, final)
    made = packed(model)
    assert made.compiled.runtime == "sklearn"
    assert reason in (made.compiled.equality.reason or "")
    labels = made.signature.output.labels or ()
    found = [labels[choice] for choice in answers(made, ODD).choices]
    assert found == model.predict(list(ODD)).tolist()


def test_texts_of_polars_and_a_regression_are_welcome() -> None:
    train = pl.from_pandas(TRAIN.assign(mood=(TRAIN.mood == "good").astype(float) + 0.25))
    made = packed(make_pipeline(CountVectorizer(), Ridge()), train, None)
    assert made.signature.output.task == "regression"


def test_a_column_of_texts_may_stand_beside_numbers() -> None:
    train = TRAIN.assign(length=TRAIN.text.str.len())
    prepare = make_column_transformer((TfidfVectorizer(), "text"), (StandardScaler(), ["length"]))
    model = make_pipeline(prepare, LogisticRegression()).fit(train.drop(columns="mood"), train.mood)
    made = contents.make(model, train=train, test=train, target="mood")
    assert [field.kind for field in made.signature.fields] == ["text", "integer"]
    assert made.compiled.equality.flips == 0


def test_a_pipeline_over_texts_is_evaluated() -> None:
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TRAIN.text, TRAIN.mood)
    assert evaluate(model, TEST, target="mood", resamples=50).metrics["accuracy"].value > 0.9


def test_a_second_column_beside_the_texts_is_refused() -> None:
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TRAIN.text, TRAIN.mood)
    with pytest.raises(InvalidInput, match="one column of texts"):
        contents.make(model, train=TRAIN.assign(n=1), target="mood")
