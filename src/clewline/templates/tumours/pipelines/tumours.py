"""Predict from measurements of its cell nuclei whether a tumour is malignant."""

import clewline as cl
import polars as pl
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

TARGET = "diagnosis"


@cl.step
def load() -> pl.DataFrame:
    """Load the Wisconsin diagnostic data: 569 tumours, 30 measurements each."""
    data = load_breast_cancer()
    names = [str(name).replace(" ", "_") for name in data.feature_names]
    table = pl.DataFrame(data.data, schema=names)
    diagnosis = [str(data.target_names[label]) for label in data.target]
    return table.with_columns(pl.Series(TARGET, diagnosis))


@cl.step
def split(
    table: pl.DataFrame, *, test: float = 0.25, seed: int = 0
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split off a share of the rows for the test, with the same balance of labels."""
    train_rows, test_rows = train_test_split(
        range(table.height), test_size=test, random_state=seed, stratify=table[TARGET].to_list()
    )
    return table[sorted(train_rows)], table[sorted(test_rows)]


@cl.step
def fit(train: pl.DataFrame, *, trees: int = 100, seed: int = 0) -> RandomForestClassifier:
    """Train a forest of `trees` trees."""
    model = RandomForestClassifier(n_estimators=trees, random_state=seed)
    model.fit(train.drop(TARGET), train[TARGET])
    cl.log_metric("depth", max(tree.get_depth() for tree in model.estimators_))
    return model


@cl.pipeline
def tumours(trees: int = 100, seed: int = 0):
    train, test = split(load(), seed=seed)
    model = fit(train, trees=trees, seed=seed)
    report = cl.evaluate(model, test, target=TARGET)
    cl.register("tumours", model, train=train, test=test, target=TARGET, report=report)
