"""The validator on real rows: UCI Adult, from CLEWLINE_DATA or the folder beside the repository."""

import json

import polars as pl
import pytest
from projects import read_adult

from clewline.signature.check import Checker
from clewline.signature.infer import infer_signature

NUMBERS = ["age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week"]


@pytest.fixture(scope="module")
def checker() -> Checker:
    return Checker(infer_signature(pl.from_pandas(read_adult("adult.data.gz")), target="income"))


@pytest.fixture(scope="module")
def held_out() -> pl.DataFrame:
    return pl.from_pandas(read_adult("adult.test.gz")).drop("income")


def test_its_fields_are_found(checker: Checker) -> None:
    found = {field.name: field for field in checker.signature.fields}
    assert (found["age"].kind, found["age"].bounds) == ("integer", (13, 94))
    assert {name for name, field in found.items() if field.kind == "integer"} == set(NUMBERS)
    assert {name for name, field in found.items() if field.nullable} == {
        "workclass",
        "occupation",
        "native-country",
    }
    assert len(found["native-country"].levels or ()) == 41


def test_the_test_table_and_the_same_rows_as_json_are_the_same_arrays(
    checker: Checker, held_out: pl.DataFrame
) -> None:
    by_table = checker.table(held_out)
    by_json = checker.columns(checker.decode(json.dumps(held_out.to_dicts()).encode()))
    assert by_json.columns.numbers.tobytes() == by_table.columns.numbers.tobytes()
    assert by_json.columns.texts.tolist() == by_table.columns.texts.tolist()
    assert by_json.flags == by_table.flags
    assert len(by_json.columns) == 16281


def test_no_real_row_needs_the_second_pass(checker: Checker, held_out: pl.DataFrame) -> None:
    for row in held_out.head(2000).to_dicts():
        body = json.dumps(row).encode()
        rows = checker._decode_fast(body)
        assert rows
        assert not checker.suspicious(body, rows)
