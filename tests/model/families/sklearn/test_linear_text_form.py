"""Linear models over texts are served by a runtime of ours, others compiled or as they are."""

from __future__ import annotations

import pickle
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import (
    CountVectorizer,
    HashingVectorizer,
    TfidfTransformer,
    TfidfVectorizer,
)
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier, SGDClassifier
from sklearn.naive_bayes import ComplementNB, MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler
from sklearn.svm import LinearSVC

from clewline.errors import IntegrityError, InvalidInput
from clewline.evaluation.evaluate import evaluate
from clewline.model.families.family import PackageContents
from clewline.model.families.linear_text_model.family import LinearTextFamily, term_splitter
from clewline.model.families.sklearn.linear_text_form import linear_text_spec
from clewline.model.register import convert_model
from clewline.model_families import family_named
from clewline.signature.columns import Columns

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


def packed(model: Any, train: Any = TRAIN, test: Any = TEST) -> PackageContents:
    model.fit(train["text"], train["mood"])
    return convert_model(model, train=train, test=test, target="mood")


def answers(made: PackageContents, texts: tuple[str, ...]) -> Any:
    column = np.array(texts, dtype=object).reshape(-1, 1)
    predictor = family_named(made.compiled.runtime).load(made.files, made.signature)
    return predictor.predict(Columns(np.empty((len(texts), 0)), column))


MODELS = {
    "tf-idf": (TfidfVectorizer(), LogisticRegression()),
    "counts": (CountVectorizer(lowercase=False, token_pattern="[a-zA-Z]+"), MultinomialNB()),
    "runs of words": (
        TfidfVectorizer(ngram_range=(1, 3), stop_words=["a", "the"], sublinear_tf=True),
        LinearSVC(),
    ),
    "runs of two alone": (CountVectorizer(ngram_range=(2, 2), binary=True), ComplementNB()),
    "characters": (
        TfidfVectorizer(analyzer="char", ngram_range=(1, 3), norm="l1"),
        RidgeClassifier(),
    ),
    "characters of words": (
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), norm=None),
        SGDClassifier(loss="log_loss", random_state=0),
    ),
    "accents": (CountVectorizer(strip_accents="unicode"), MultinomialNB()),
    "accents, ASCII": (TfidfVectorizer(strip_accents="ascii", use_idf=False), LinearSVC()),
    "counts, then tf-idf": (
        make_pipeline(CountVectorizer(), TfidfTransformer(smooth_idf=False)),
        LogisticRegression(),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_linear_model_over_terms_is_served_without_its_library(name: str) -> None:
    vectorizer, final = MODELS[name]
    model = make_pipeline(vectorizer, final)
    made = packed(model)
    held = made.compiled.equality
    assert (made.compiled.runtime, held.form, held.flips) == (
        "linear_text_model",
        "terms and weights",
        0,
    )
    assert held.sentence.startswith("our own runtime (terms and weights) verified equal on")
    assert (held.batch_sizes, held.rows_per_call) == ((1, 2, 7, 64, 1000), None)
    found = answers(made, ODD)
    labels = made.signature.output.labels or ()
    assert [labels[choice] for choice in found.choices] == model.predict(list(ODD)).tolist()
    if found.probabilities is not None:
        np.testing.assert_allclose(found.probabilities, model.predict_proba(list(ODD)), atol=1e-12)
    assert (found.probabilities is None) == (not made.signature.output.has_probabilities)
    assert [field.kind for field in made.signature.fields] == ["text"]


@pytest.mark.parametrize(
    "final",
    [LogisticRegression(), MultinomialNB(), LinearSVC(), SGDClassifier("log_loss", random_state=0)],
    ids=lambda final: type(final).__name__,
)
def test_several_labels_are_told_apart_as_the_original_does(final: Any) -> None:
    moods = [f"{mood} {'late' if len(text) % 2 else 'early'}" for text, mood in TRAIN.to_numpy()]
    train = TRAIN.assign(mood=moods)
    model = make_pipeline(TfidfVectorizer(), final)
    made = packed(model, train, train[:60])
    assert made.compiled.runtime == "linear_text_model"
    found = answers(made, ODD)
    labels = made.signature.output.labels or ()
    assert [labels[choice] for choice in found.choices] == model.predict(list(ODD)).tolist()


def test_a_value_is_answered_and_null_is_refused_by_row() -> None:
    train = TRAIN.assign(mood=TRAIN.text.str.len().astype(float))
    model = make_pipeline(TfidfVectorizer(), Ridge())
    made = packed(model, train, None)
    assert made.compiled.runtime == "linear_text_model"
    np.testing.assert_allclose(answers(made, ODD).values, model.predict(list(ODD)), rtol=1e-12)
    with pytest.raises(InvalidInput) as caught:
        answers(made, ("a", None))  # type: ignore[arg-type]
    assert [(problem.row, problem.field) for problem in caught.value.fields] == [(1, "text")]


SERVED = {
    "words of every alphabet, scaled": (
        make_pipeline(TfidfVectorizer(), MaxAbsScaler()),
        LogisticRegression(),
        "MaxAbsScaler after TfidfVectorizer cannot be converted",
    ),
    "hashes": (HashingVectorizer(n_features=256), SGDClassifier(), "keeps no terms"),
    "another loss": (TfidfVectorizer(), SGDClassifier(loss="modified_huber"), "numbers differ"),
}


@pytest.mark.parametrize("name", SERVED)
def test_what_has_no_equal_form_is_served_by_scikit_learn(name: str) -> None:
    vectorizer, final, reason = SERVED[name]
    model = make_pipeline(vectorizer, final)
    made = packed(model)
    assert made.compiled.runtime == "sklearn"
    assert reason in (made.compiled.equality.reason or "")
    labels = made.signature.output.labels or ()
    found = [labels[choice] for choice in answers(made, ODD).choices]
    assert found == model.predict(list(ODD)).tolist()


ANALYZERS = st.builds(
    lambda analyzer, ngrams, lower, accents, stop: CountVectorizer(
        analyzer=analyzer,
        ngram_range=(min(ngrams), max(ngrams)),
        lowercase=lower,
        strip_accents=accents,
        stop_words=stop,
    ),
    st.sampled_from(["word", "char", "char_wb"]),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.booleans(),
    st.sampled_from([None, "unicode", "ascii"]),
    st.sampled_from([None, ["good", "été"], "english"]),
)


@given(ANALYZERS, st.text() | st.lists(st.sampled_from(ODD), max_size=4).map("  ".join))
def test_any_text_is_cut_as_scikit_learn_cuts_it(vectorizer: Any, text: str) -> None:
    spec = linear_text_spec(vectorizer, vectorizer, "text", "labels")
    with warnings.catch_warnings(action="ignore"):
        wanted = vectorizer.build_analyzer()(text)
    assert Counter(term_splitter(spec)(text)) == Counter(wanted)


@pytest.mark.parametrize("analyzer", ["word", "char", "char_wb"])
@pytest.mark.parametrize("ngrams", [(1, 1), (1, 4), (2, 3), (4, 5)])
def test_texts_shorter_than_a_term_are_cut_as_scikit_learn_cuts_them(
    analyzer: str, ngrams: tuple[int, int]
) -> None:
    vectorizer = CountVectorizer(analyzer=analyzer, ngram_range=ngrams)
    cut = term_splitter(linear_text_spec(vectorizer, vectorizer, "text", "labels"))
    for text in (*ODD, "a", "ab", "abc", "one two", "one two three four five"):
        assert Counter(cut(text)) == Counter(vectorizer.build_analyzer()(text))


def test_damaged_files_are_refused() -> None:
    made = packed(make_pipeline(TfidfVectorizer(), LogisticRegression()))
    files, runtime = made.files, LinearTextFamily()
    pickled = pickle.dumps(np.zeros(1))
    for name in ("linear_text.json", "terms.json", "weights.npy", "bias.npy", "idf.npy"):
        for damaged in (b"", files[name][:-3], b"[]", pickled):
            with pytest.raises(IntegrityError):
                runtime.load({**files, name: damaged}, made.signature)
    with pytest.raises(IntegrityError, match=r"has no weights\.npy"):
        runtime.load({n: d for n, d in files.items() if n != "weights.npy"}, made.signature)


def test_texts_of_polars_and_a_regression_are_welcome() -> None:
    train = pl.from_pandas(TRAIN.assign(mood=(TRAIN.mood == "good").astype(float) + 0.25))
    made = packed(make_pipeline(CountVectorizer(), Ridge()), train, None)
    assert made.signature.output.task == "regression"


def test_a_column_of_texts_may_stand_beside_numbers() -> None:
    train = TRAIN.assign(length=TRAIN.text.str.len())
    prepare = make_column_transformer((TfidfVectorizer(), "text"), (StandardScaler(), ["length"]))
    model = make_pipeline(prepare, LogisticRegression()).fit(train.drop(columns="mood"), train.mood)
    made = convert_model(model, train=train, test=train, target="mood")
    assert [field.kind for field in made.signature.fields] == ["text", "integer"]
    assert made.compiled.equality.flips == 0


def test_a_pipeline_over_texts_is_evaluated() -> None:
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TRAIN.text, TRAIN.mood)
    assert evaluate(model, TEST, target="mood", resamples=50).metrics["accuracy"].value > 0.9


def test_a_second_column_beside_the_texts_is_refused() -> None:
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TRAIN.text, TRAIN.mood)
    with pytest.raises(InvalidInput, match="one column of texts"):
        convert_model(model, train=TRAIN.assign(n=1), target="mood")
