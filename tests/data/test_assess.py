"""`cl.assess`: what is wrong with a table is found, and what is right is left alone."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from html_pages import check_page
from scipy import stats
from sklearn.metrics import roc_auc_score

import clewline as cl
from clewline.cli.main import status
from clewline.data import discriminator, duplicates, find_problems
from clewline.data.assessment import Assessment
from clewline.data.associations import measure_associations
from clewline.data.field_power import code_target, measure_power
from clewline.data.finding_text import TEXTS, describe_finding
from clewline.data.prepared_table import prepare_table
from clewline.data.table_files import read_table
from clewline.errors import InvalidInput
from clewline.html.data_report import write_data_report

ROWS = 1200


def sound_table(rows: int = ROWS, seed: int = 0) -> pl.DataFrame:
    """A table in which nothing is wrong."""
    random = np.random.default_rng(seed)
    age = random.normal(40, 10, rows)
    pay = random.normal(3000, 900, rows)
    job = random.choice(["nurse", "smith", "clerk"], rows)
    sex = random.choice(["f", "m"], rows)
    chance = 1 / (1 + np.exp(-(age - 40) / 8 - (job == "nurse")))
    answer = np.where(random.random(rows) < chance, "yes", "no")
    return pl.DataFrame({"age": age, "pay": pay, "job": job, "sex": sex, "y": answer})


def codes(found: Assessment) -> set[str]:
    return {finding.code for finding in found.findings}


def only(found: Assessment, code: str) -> Any:
    [finding] = [each for each in found.findings if each.code == code]
    return finding


@pytest.fixture(scope="module")
def sound() -> Assessment:
    other = sound_table(seed=1)
    return cl.assess(
        sound_table(), target="y", protected=["sex"], test=other, against=sound_table(seed=2)
    )


def test_nothing_is_found_in_a_sound_table(sound: Assessment) -> None:
    assert codes(sound) == set()
    assert sound.against is not None
    assert sound.against.apart is not None
    assert sound.against.apart.low < 0.53
    assert sound.protected[0].from_others is not None
    assert sound.protected[0].from_others.low < 0.53


def test_its_numbers_are_those_of_the_table(sound: Assessment) -> None:
    table = sound_table()
    fields = {field.name: field for field in sound.fields}
    assert fields["age"].mean == pytest.approx(table["age"].mean())
    assert fields["age"].quartiles == pytest.approx(
        [table["age"].quantile(q, "linear") for q in (0.25, 0.5, 0.75)]
    )
    assert sum(fields["age"].histogram.rows) == ROWS
    assert {each.value: each.rows for each in fields["job"].levels} == dict(
        table["job"].value_counts().rows()
    )
    [groups] = [each.groups for each in sound.protected]
    for group in groups:
        part = table.filter(pl.col("sex") == group.group)
        assert (group.rows, group.rate) == (len(part), pytest.approx((part["y"] == "yes").mean()))
        assert group.low < group.rate < group.high


def test_the_same_table_gives_the_same_assessment_to_the_byte(sound: Assessment) -> None:
    again = cl.assess(
        sound_table(),
        target="y",
        protected=["sex"],
        test=sound_table(seed=1),
        against=sound_table(seed=2),
    )
    assert msgspec.json.encode(again) == msgspec.json.encode(sound)


Change = Callable[[pl.DataFrame], pl.DataFrame]
Y = (pl.col("y") == "yes").cast(pl.Int64)
ROW = pl.int_range(pl.len())
FAULTS: dict[str, tuple[Change, list[str]]] = {
    "leak": (lambda t: t.with_columns(paid=Y * 7 + 1), ["paid"]),
    "leak_suspect": (
        lambda t: t.with_columns(paid=pl.when(ROW % 25 == 0).then(1 - Y).otherwise(Y)),
        ["paid"],
    ),
    "missing_tells": (
        lambda t: t.with_columns(
            end=pl.when((pl.col("y") == "yes") & (ROW % 3 > 0)).then(1.5 * ROW)
        ),
        ["end"],
    ),
    "constant": (lambda t: t.with_columns(one=pl.lit("x")), ["one"]),
    "almost_constant": (lambda t: t.with_columns(one=(ROW == 7).cast(pl.Int8)), ["one"]),
    "empty": (lambda t: t.with_columns(gap=pl.lit(None, pl.Float64)), ["gap"]),
    "missing": (lambda t: t.with_columns(gap=pl.when(ROW % 4 > 0).then(pl.col("pay"))), ["gap"]),
    "identifier": (lambda t: t.with_columns(id=pl.format("c-{}", (ROW * 7919) % 1201)), ["id"]),
    "mixed_types": (
        lambda t: t.with_columns(
            size=pl.when(ROW % 9 == 0).then(pl.lit("big")).otherwise((ROW % 50).cast(pl.String))
        ),
        ["size"],
    ),
    "numbers_as_text": (lambda t: t.with_columns(size=(ROW % 50).cast(pl.String)), ["size"]),
    "null_texts": (
        lambda t: t.with_columns(job=pl.when(ROW % 9 == 0).then(pl.lit(" N/A")).otherwise("job")),
        ["job"],
    ),
    "spellings": (
        lambda t: t.with_columns(
            job=pl.when(ROW % 9 == 0).then(pl.col("job").str.to_uppercase()).otherwise("job")
        ),
        ["job"],
    ),
    "isolated_value": (
        lambda t: t.with_columns(pay=pl.when(ROW % 99 == 0).then(999_999.0).otherwise("pay")),
        ["pay"],
    ),
    "redundant": (lambda t: t.with_columns(cents=pl.col("pay") * 100), ["cents", "pay"]),
    "imbalance": (lambda t: t.filter((pl.col("y") == "no") | (ROW % 12 == 0)), ["y"]),
    "rare_labels": (
        lambda t: t.with_columns(y=pl.when(ROW < 3).then(pl.lit("maybe")).otherwise("y")),
        ["y"],
    ),
    "ordered_rows": (lambda t: t.sort("y"), ["y"]),
    "target_missing": (lambda t: t.with_columns(y=pl.when(ROW % 50 > 0).then(pl.col("y"))), ["y"]),
    "proxies": (
        lambda t: t.with_columns(
            height=pl.when(pl.col("sex") == "m").then(180).otherwise(165) + (ROW * 37) % 13
        ),
        ["sex"],
    ),
    "unequal_rates": (
        lambda t: t.with_columns(
            sex=pl.when(ROW % 3 == 0)
            .then(pl.when(Y == 1).then(pl.lit("m")).otherwise(pl.lit("f")))
            .otherwise("sex")
        ),
        ["sex"],
    ),
    "small_groups": (
        lambda t: t.with_columns(sex=pl.when(ROW < 20).then(pl.lit("x")).otherwise("sex")),
        ["sex"],
    ),
}


@pytest.mark.parametrize("code", FAULTS)
def test_a_fault_is_found_and_named(code: str) -> None:
    change, fields = FAULTS[code]
    found = cl.assess(change(sound_table()), target="y", protected=["sex"])
    assert only(found, code).fields == fields
    harms = [each.harm for each in found.findings]
    assert harms == sorted(harms, reverse=True)


def test_every_finding_has_a_text_and_every_text_a_finding() -> None:
    source = Path(find_problems.__file__).read_text()
    for code in TEXTS:
        assert f'"{code}"' in source, code


def test_a_leak_is_described_by_its_rule() -> None:
    found = only(cl.assess(FAULTS["leak"][0](sound_table()), target="y"), "leak")
    assert found.values["rule"] == "paid > 4.5 → yes, else no"
    assert "paid > 4.5 → yes" in describe_finding(found).what


def test_a_copy_of_a_number_leaks_it() -> None:
    table = sound_table().with_columns(copy=pl.col("pay") * 2 + 1)
    assert only(cl.assess(table, target="pay"), "leak").fields == ["copy"]


def test_a_column_of_chance_has_the_power_of_chance_however_many_levels_it_has() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 4000)
    for count in (2, 30, 4000):
        power = measure_power(random.integers(0, count, 4000), count, code_target(labels, None))
        assert 0.45 < power.value < 0.55
        assert power.low < 0.5
    power = measure_power(random.integers(0, 50, 4000), 50, code_target(None, random.random(4000)))
    assert -0.05 < power.value < 0.02


def test_the_power_of_a_field_is_the_auc_of_its_cross_fitted_rates() -> None:
    random = np.random.default_rng(1)
    groups = random.integers(0, 6, 3000)
    labels = (random.random(3000) < groups / 7).astype(np.int64)
    power = measure_power(groups, 6, code_target(labels, None))
    assert power.value == pytest.approx(roc_auc_score(labels, groups), abs=0.01)
    assert power.low < power.value < power.high < power.low + 0.06


def test_duplicates_contradictions_and_near_duplicates_are_counted_exactly() -> None:
    table = sound_table(500)
    twice, other = table.head(7), table[10:13]
    flipped = other.with_columns(y=pl.when(Y == 1).then(pl.lit("no")).otherwise(pl.lit("yes")))
    close = table[20:25].with_columns(age=pl.col("age") + 30)
    written = table[30:34].with_columns(job=pl.col("job").str.to_uppercase() + " ")
    whole = pl.concat([table, twice, flipped, close, written])
    found = cl.assess(whole, target="y").duplicates
    assert (found.repeated, found.repeated_fields) == (7, 10)
    assert (found.contradictory, found.unavoidable) == (6, 3)
    assert sorted(found.examples) == [[10, 507], [11, 508], [12, 509]]
    assert 2 * 5 + 2 * 4 <= found.near <= 2 * 5 + 2 * 4 + found.near_by_chance
    assert found.near_fields["age"] >= 10


def test_test_rows_in_the_training_table_are_counted() -> None:
    table, test = sound_table(), sound_table(100, seed=5)
    close = table[10:14].with_columns(pay=pl.col("pay") + 4000)
    test = pl.concat([test, table.head(3), close]).drop("y")
    found = cl.assess(table, target="y", test=test)
    assert (found.overlap.rows, found.overlap.exact, found.overlap.near) == (107, 3, 4)
    assert only(found, "test_in_train").values["rows"] == 3


def test_a_test_that_is_not_later_is_told() -> None:
    days = pl.datetime_range(
        pl.datetime(2024, 1, 1), pl.datetime(2024, 1, 1) + pl.duration(hours=ROWS - 1), "1h"
    )
    table = sound_table().with_columns(at=pl.select(days).to_series())
    later = cl.assess(table[:900], target="y", test=table[900:])
    assert "test_not_later" not in codes(later)
    mixed = cl.assess(table[::2], target="y", test=table[1::2])
    assert only(mixed, "test_not_later").fields == ["at"]


def test_a_second_table_is_told_apart_by_the_fields_that_differ() -> None:
    live = sound_table(seed=3).with_columns(
        age=pl.col("age") + 12, job=pl.when(ROW % 20 == 0).then(pl.lit("pilot")).otherwise("job")
    )
    found = cl.assess(sound_table(), target="y", against=live.drop("y", "sex").with_columns(new=1))
    shifted = only(found, "shifted")
    assert shifted.fields[0] == "age"
    assert "pay" not in shifted.fields
    assert shifted.values["auc"] > 0.75
    assert only(found, "unseen_levels").values["levels"] == ["pilot"]
    assert only(found, "unseen_levels").values["rows"] == 60
    assert only(found, "fields_gone").fields == ["sex"]
    assert only(found, "fields_new").fields == ["new"]
    distance = {shift.field: shift.distance for shift in found.against.shifts}
    known = stats.ks_2samp(sound_table()["age"], live["age"]).statistic
    assert distance["age"] == pytest.approx(known)


def test_associations_are_those_of_scipy() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=800)
    table = pl.DataFrame({"x": x, "z": x**3 + random.normal(size=800), "a": (x > 0).astype(str)})
    prepared = prepare_table(table.with_columns(b="a"))
    found = measure_associations(list(prepared.columns.values())).values
    assert found[0][1] == pytest.approx(
        abs(stats.spearmanr(table["x"], table["z"]).statistic), abs=1e-6
    )
    assert found[2][3] == pytest.approx(1, abs=2e-3)
    assert 0.8 < found[0][2] < 0.9  # a half tells √¾ of a uniform rank
    assert found == np.transpose(found).tolist()


def test_the_error_of_an_auc_is_delongs() -> None:
    random = np.random.default_rng(0)
    positive = random.random(400) < 0.3
    scores = (positive + random.normal(0, 1, 400)).round(1)
    value, error = discriminator.auc_with_error(scores, positive)
    assert value == pytest.approx(roc_auc_score(positive, scores))
    draws = []
    for _ in range(300):
        rows = random.integers(0, 400, 400)
        draws.append(roc_auc_score(positive[rows], scores[rows]))
    assert error == pytest.approx(np.std(draws), rel=0.2)


EMPTY = pl.DataFrame({"a": [], "y": []}, schema={"a": pl.Float64, "y": pl.String})
ODD = {
    "no rows": EMPTY,
    "one row": pl.DataFrame({"a": [1.0], "y": ["x"]}),
    "two rows": pl.DataFrame({"a": [1.0, 2.0], "y": ["x", "z"]}),
    "all null": pl.DataFrame({"a": [None] * 200, "y": [None] * 200}),
    "null target": pl.DataFrame(
        {"a": range(200), "y": [None] * 200}, schema_overrides={"y": pl.String}
    ),
    "not finite": pl.DataFrame(
        {"a": [np.nan, np.inf, -np.inf, 1.0] * 50, "y": [0.5, np.inf, np.nan, 1] * 50}
    ),
    "nested": pl.DataFrame({"a": [[1], [1, 2]] * 60, "b": [{"k": 1}] * 120, "y": ["x", "z"] * 60}),
    "binary": pl.DataFrame({"a": [b"\xff", b""] * 60, "y": [True, False] * 60}),
    "huge": pl.DataFrame({"a": [1e308, -1e308] * 60, "y": [1e308, -1e308] * 60}),
    "one label": pl.DataFrame({"a": range(200), "y": ["x"] * 200}),
    "only the target": pl.DataFrame({"y": ["x", "z"] * 60}),
    "levels": pl.DataFrame({"a": [f"level {n}" for n in range(10_000)], "y": ["x", "z"] * 5000}),
    "labels": pl.DataFrame({"a": range(2000), "y": [f"label {n}" for n in range(2000)]}),
    "hostile": pl.DataFrame(
        {"<script>": ["</svg>", "\x00", "😀"] * 60, "y": ["<b>", "‮", "x" * 9999] * 60}
    ),
    "times": pl.DataFrame({"a": [1, 2] * 60, "y": ["x", "z"] * 60}).with_columns(
        pl.col("a").cast(pl.Date).alias("d"), pl.col("a").cast(pl.Duration("us")).alias("l")
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_table_is_assessed_and_shown(name: str) -> None:
    table = ODD[name]
    protected = [each for each in table.columns if each != "y"][:1]
    against = table if protected else None
    found = cl.assess(table, target="y", protected=protected, test=table, against=against)
    assert found.rows == len(table)
    str(found)
    msgspec.json.encode(found)
    check_page(write_data_report(found, name, "1"))


def test_a_table_without_rows_says_so() -> None:
    assert codes(cl.assess(EMPTY, target="y")) == {"no_rows"}


def test_ten_thousand_columns_are_assessed_and_their_page_is_small() -> None:
    table = pl.DataFrame({f"f{n}": [n, n + 1, n + 2, n] for n in range(10_000)})
    found = cl.assess(table, target="f3", protected=["f4"], against=table)
    assert len(found.fields) == 10_000
    assert len(check_page(write_data_report(found, "wide", "1")).text) < 100_000


def test_pandas_and_arrow_tables_give_what_polars_does(sound: Assessment) -> None:
    table = sound_table()
    assert cl.assess(table.to_pandas(), target="y").findings == []
    found = cl.assess(table.to_arrow(), target="y")
    assert [field.distinct for field in found.fields] == [field.distinct for field in sound.fields]


def test_a_column_of_pandas_with_several_types_is_read_as_text() -> None:
    import pandas as pd

    table = pd.DataFrame({"a": [1, "two", None, 2.5] * 30, "y": [0, 1] * 60})
    found = cl.assess(table, target="y")
    assert found.fields[0].distinct == 3


def test_what_is_not_there_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InvalidInput, match=r"no column 'ag'.*'age'"):
        cl.assess(sound_table(), target="ag")
    with pytest.raises(InvalidInput, match=r"no column 'six'.*'sex'"):
        cl.assess(sound_table(), protected=["six"])
    with pytest.raises(InvalidInput, match="protected as well"):
        cl.assess(sound_table(), target="y", protected=["y"])
    with pytest.raises(InvalidInput, match="test table has no column 'age'"):
        cl.assess(sound_table(), target="y", test=sound_table().drop("age"))
    with pytest.raises(InvalidInput, match="no field of the first"):
        cl.assess(sound_table(), target="y", against=pl.DataFrame({"q": [1]}))
    with pytest.raises(InvalidInput, match="not a table"):
        cl.assess([1, 2])


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet", "arrow", "feather"])
def test_a_table_is_read_from_its_file(tmp_path: Path, suffix: str) -> None:
    table, path = sound_table(50), tmp_path / f"table.{suffix}"
    if suffix == "csv.gz":
        path.write_bytes(gzip.compress(table.write_csv().encode()))
    elif suffix == "csv":
        table.write_csv(path)
    elif suffix == "parquet":
        table.write_parquet(path)
    else:
        table.write_ipc(path)
    assert read_table(path).equals(table)


def test_a_column_that_turns_to_text_late_is_text(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a\n" + "1\n" * 20_000 + "unknown\n")
    assert read_table(path)["a"].dtype == pl.String


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("t.txt", b"a,b", "does not say by its name"),
        ("t.parquet", b"not parquet", "is not a table"),
        ("t.arrow", b"\x00" * 9, "is not a table"),
        ("t.csv", b"", "is empty"),
        ("t.csv.gz", b"plain", "is not a table"),
        ("gone.csv", None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_table_is_refused(
    tmp_path: Path, name: str, data: bytes | None, said
) -> None:
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InvalidInput, match=said):
        read_table(path)


def test_the_command_prints_findings_and_writes_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, page = tmp_path / "train.parquet", tmp_path / "page.html"
    FAULTS["leak"][0](sound_table()).write_parquet(path)
    words = ["data", "assess", str(path), "--target", "y", "--protected", "sex", "--out", str(page)]
    assert status(words) == 0
    printed = capsys.readouterr()
    assert "paid gives the answer away" in printed.out
    assert str(page) in printed.err
    found = check_page(page.read_text("utf-8"))
    assert "paid gives the answer away" in found.text
    assert status([*words[:5], "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["findings"][0]["code"] == "leak"


def test_the_command_names_the_nearest_column(tmp_path: Path, capsys) -> None:
    path = tmp_path / "train.csv"
    sound_table(50).write_csv(path)
    assert status(["data", "assess", str(path), "--target", "ag"]) == 2
    assert "Did you mean 'age'?" in capsys.readouterr().err
    assert status(["data", "assess", str(path), "--out", str(tmp_path / "no" / "page.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_hashes_do_not_depend_on_the_width_of_a_number() -> None:
    wide, narrow = (
        prepare_table(pl.DataFrame({"a": pl.Series([1, 2, None], dtype=kind)})).columns["a"]
        for kind in (pl.Int64, pl.Int8)
    )
    assert duplicates.hash_values(wide).tolist() == duplicates.hash_values(narrow).tolist()
