"""Predict from comments in r/science which of them the moderators remove."""

import csv
import gzip
from pathlib import Path

import clewline as cl
import comments
import polars as pl
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

TARGET = "removed"


@cl.step
def load(data: Path) -> pl.DataFrame:
    """Load the comments; two that are equal are one."""
    with gzip.open(data / "reddit_test.csv.gz", "rt", encoding="latin-1", newline="") as file:
        rows = [(row["BODY"], row["REMOVED"] == "1") for row in csv.DictReader(file)]
    table = pl.DataFrame(rows, schema={"comment": pl.String, TARGET: pl.Boolean}, orient="row")
    return table.unique("comment", keep="first", maintain_order=True)


@cl.step
def clean(table: pl.DataFrame) -> pl.DataFrame:
    """Clean the comments, as the endpoint does."""
    return comments.clean(table)


@cl.step
def tokenise(table: pl.DataFrame) -> pl.DataFrame:
    """Cut the comments into words, as the endpoint does."""
    return comments.tokenise(table)


@cl.step
def split(table: pl.DataFrame, *, seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Shuffle the comments and keep a quarter of them for the test."""
    table = table.sample(fraction=1, shuffle=True, seed=seed)
    return table.tail(-(len(table) // 4)), table.head(len(table) // 4)


@cl.step
def vectorise(train: pl.DataFrame, *, rarest: int = 2) -> TfidfVectorizer:
    """Learn the weight of each word that stands in at least `rarest` comments."""
    vectoriser = TfidfVectorizer(token_pattern=r"\S+", min_df=rarest, sublinear_tf=True)
    return vectoriser.fit(train["comment"])


@cl.step
def classify(train: pl.DataFrame, words: TfidfVectorizer, *, strength: float = 3.0) -> Pipeline:
    """Learn which words removed comments have."""
    classifier = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
    classifier.fit(words.transform(train["comment"]), train[TARGET])
    return Pipeline([("vectorise", words), ("classify", classifier)])


@cl.pipeline
def moderation(data: Path, strength: float = 3.0, seed: int = 0):
    train, test = split(tokenise(clean(load(data))), seed=seed)
    model = classify(train, vectorise(train), strength=strength)
    report = cl.evaluate(model, test, target=TARGET)
    cl.register("moderation", model, train=train, test=test, target=TARGET, report=report)
