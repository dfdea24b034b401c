"""A signature with every kind of field."""

import pytest

from clewline.signature.check import Checker
from clewline.signature.field import Field, Output, Signature

YEAR = 365.25 * 24 * 3600 * 1e6


MIXED = Signature(
    fields=(
        Field(name="job", kind="category", levels=("nurse", "smith")),
        Field(name="age", kind="integer", bounds=(13, 94)),
        Field(name="note", kind="text", nullable=True),
        Field(name="hours-per week", kind="number", nullable=True, bounds=(0.0, 99.5)),
        Field(name="class", kind="boolean"),
        Field(name="größe", kind="integer", nullable=True, bounds=(0, 10)),
        Field(name="rows", kind="datetime", nullable=True, bounds=(0, 60 * YEAR)),
        Field(name="", kind="category", nullable=True, levels=("a", "b")),
    ),
    output=Output(name="y", task="binary", labels=("no", "yes")),
)


@pytest.fixture(scope="session")
def mixed() -> Checker:
    return Checker(MIXED)
