"""Loan-like rows with categories, nulls and odd texts, and the real Adult data where it is."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ADULT = (
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
    "income",
)


def read_adult(name: str, **options: object) -> pd.DataFrame:
    """Read a file of the Adult data from CLEWLINE_DATA, or the folder beside the repository."""
    beside = Path(__file__).parents[4] / "shared" / "data"
    folder = Path(os.environ.get("CLEWLINE_DATA", beside)) / "adult"
    table = pd.read_csv(
        folder / name, names=list(ADULT), skipinitialspace=True, na_values="?", **options
    )
    return table.assign(income=table["income"].str.rstrip("."))


@pytest.fixture(scope="session")
def adult() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The first rows of the Adult training and test tables."""
    return read_adult("adult.data.gz", nrows=3000), read_adult(
        "adult.test.gz", skiprows=1, nrows=900
    )


@pytest.fixture(scope="session")
def loans() -> pd.DataFrame:
    """600 made rows: two numbers (one with nulls), an integer, a boolean, two texts, a label."""
    draw = np.random.default_rng(7)
    count = 600
    rate = draw.normal(5.0, 2.0, count)
    rate[draw.random(count) < 0.1] = np.nan
    town = draw.choice(["Oslo", "None", "nan", "", "Bergen"], count).astype(object)
    town[draw.random(count) < 0.1] = None
    table = pd.DataFrame(
        {
            "amount": draw.lognormal(8, 1, count),
            "rate": rate,
            "years": draw.integers(1, 40, count),
            "owner": draw.random(count) < 0.5,
            "town": pd.Series(town, dtype="str"),
            "purpose": draw.choice(["car", "home", "boat"], count),
        }
    )
    score = np.nan_to_num(table["rate"]) + table["years"] / 10 + (table["purpose"] == "car") * 2
    table["paid"] = np.where(score + draw.normal(0, 1, count) > 8, "yes", "no")
    return table
