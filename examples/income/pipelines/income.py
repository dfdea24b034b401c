"""Predict from census answers who earns more than 50,000 dollars a year (UCI Adult)."""

import gzip
from pathlib import Path

import clewline as cl
import polars as pl
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

TARGET = "income"
NUMBERS = ["age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week"]
CATEGORIES = [
    "workclass",
    "education",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "native-country",
]
COLUMNS = [
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education-num",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital-gain",
    "capital-loss",
    "hours-per-week",
    "native-country",
    TARGET,
]


def parse(path: Path) -> pl.DataFrame:
    """
    Read one file of the set.

    A comma and a space separate the fields, and a question mark is a missing value. The
    test file begins with a comment and ends its labels with a dot.
    """
    with gzip.open(path, "rt", encoding="ascii") as file:
        lines = [line.strip() for line in file]
    rows = [line.split(", ") for line in lines if line and not line.startswith("|")]
    table = pl.DataFrame(rows, schema=COLUMNS, orient="row")
    return table.with_columns(
        pl.col(NUMBERS).cast(pl.Int64),
        pl.col(CATEGORIES).replace("?", None),
        pl.col(TARGET).str.strip_chars_end("."),
    )


@cl.step
def load(data: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Load the training and the test table."""
    return parse(data / "adult.data.gz"), parse(data / "adult.test.gz")


def forest(trees: int, seed: int) -> Pipeline:
    """Build a forest behind imputation, scaling and one-hot encoding."""
    prepare = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
            (
                "categories",
                make_pipeline(
                    SimpleImputer(strategy="most_frequent", missing_values=None),
                    OneHotEncoder(handle_unknown="ignore", sparse_output=False),
                ),
                CATEGORIES,
            ),
        ]
    )
    return make_pipeline(prepare, RandomForestClassifier(n_estimators=trees, random_state=seed))


@cl.step
def fit(train: pl.DataFrame, *, trees: int = 100, seed: int = 0) -> Pipeline:
    """Train the forest."""
    return forest(trees, seed).fit(train.drop(TARGET), train[TARGET])


@cl.pipeline
def income(data: Path, trees: int = 100, seed: int = 0):
    train, test = load(data)
    model = fit(train, trees=trees, seed=seed)
    report = cl.evaluate(model, test, target=TARGET, protected=["sex", "race"])
    cl.register("income", model, train=train, test=test, target=TARGET, report=report)
