"""Columns, CSV, Arrow and Parquet: the same rows as from JSON rows, and the same refusals."""

from __future__ import annotations

import csv
import io
import json
import struct
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clewline.errors import (
    BodyTooLarge,
    ClewlineError,
    InvalidInput,
    MalformedInput,
    TooManyRows,
    UnknownFormat,
)
from clewline.serve.formats import arrow, parquet
from clewline.serve.formats.body_format import ARROW, CSV, JSON_COLUMNS, PARQUET, load_format
from clewline.serve.formats.columns import (
    MOST_COLUMNS,
    FormatDetails,
    require_charset,
    write_details,
)
from clewline.serve.json_reader import JsonReader
from clewline.signature.accepted_limits import AcceptedFieldLimits, AcceptedLimits
from clewline.signature.check import Checker
from clewline.signature.field import Field, Output, Signature

SIGNATURE = Signature(
    fields=(
        Field(name="age", kind="integer", bounds=(0.0, 100.0)),
        Field(name="job", kind="category", nullable=True, levels=("nurse", "smith")),
        Field(name="note", kind="text"),
        Field(name="hours", kind="number", nullable=True),
        Field(name="away", kind="boolean"),
        Field(name="since", kind="datetime", nullable=True),
        Field(name="face", kind="tensor", dtype="float32", shape=(2, 2)),
    ),
    output=Output(name="y", task="binary", labels=("no", "yes")),
)
CHECKER = Checker(SIGNATURE)
BOUNDED = Checker(SIGNATURE, AcceptedLimits({"age": AcceptedFieldLimits(bounds=(17.0, 90.0))}))
LEVELLED = Checker(
    SIGNATURE, AcceptedLimits({"job": AcceptedFieldLimits(levels=("nurse", "smith"))})
)
ROW: dict[str, Any] = {
    "age": 39, "job": "nurse", "note": "", "hours": 40.5, "away": True,
    "since": "2024-05-01T12:00:00Z", "face": [[1.0, 2.0], [3.0, 4.0]],
}  # fmt: skip
FORMATS = (JSON_COLUMNS, CSV, ARROW, PARQUET)
MAX_ROWS = 100

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6)
small = st.floats(-8, 8, width=16).map(float)
rows_strategy = st.lists(
    st.fixed_dictionaries(
        {
            "age": st.integers(-(2**53) + 1, 2**53 - 1),
            "job": st.none() | texts,
            "note": texts,
            "hours": st.none() | st.floats(allow_nan=False, allow_infinity=False),
            "away": st.booleans(),
            "since": st.none() | st.datetimes(datetime(1950, 1, 1), datetime(2200, 1, 1)),
            "face": st.lists(st.lists(small, min_size=2, max_size=2), min_size=2, max_size=2),
        }
    ),
    min_size=1,
    max_size=8,
)


def plain(row: dict[str, Any]) -> dict[str, Any]:
    since = row["since"]
    if isinstance(since, datetime):
        return row | {"since": since.replace(tzinfo=UTC).isoformat()}
    return row


def frame_of(rows: list[dict[str, Any]]) -> pl.DataFrame:
    columns = {name: [row[name] for row in rows] for name in ROW}
    moments = [None if m is None else datetime.fromisoformat(m) for m in columns.pop("since")]
    return pl.DataFrame(
        {name: pl.Series(name, values) for name, values in columns.items() if name != "face"}
        | {
            "since": pl.Series("since", moments, pl.Datetime("us", "UTC")),
            "face": pl.Series("face", columns["face"], pl.List(pl.List(pl.Float32))),
        }
    )


def as_columns(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps({"columns": {name: [row[name] for row in rows] for name in ROW}}).encode()


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(ROW)
    for row in rows:
        cells = [json.dumps(v) if isinstance(v, list) else v for v in (row[n] for n in ROW)]
        writer.writerow(["" if cell is None else cell for cell in cells])
    return out.getvalue().encode()


def as_arrow(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    frame_of(rows).write_ipc_stream(out)
    return out.getvalue()


def as_parquet(rows: list[dict[str, Any]], **how: Any) -> bytes:
    out = io.BytesIO()
    frame_of(rows).write_parquet(out, **how)
    return out.getvalue()


WRITERS = {JSON_COLUMNS: as_columns, CSV: as_csv, ARROW: as_arrow, PARQUET: as_parquet}


def read(format: str, body: bytes, detail: str = "", checker: Checker = CHECKER) -> list[Any]:
    return load_format(format).read_rows(body, detail, checker, MAX_ROWS).rows


def from_json(rows: list[dict[str, Any]]) -> list[Any]:
    return JsonReader(CHECKER).read(json.dumps({"rows": rows}).encode()).rows


@settings(max_examples=40)
@given(rows_strategy)
def test_every_format_gives_the_rows_that_json_gives(rows):
    rows = [plain(row) for row in rows]
    wanted = list(map(msgspec.structs.astuple, from_json(rows)))
    for format, write in WRITERS.items():
        found = list(map(msgspec.structs.astuple, read(format, write(rows))))
        assert found == wanted, format


@pytest.mark.parametrize("format", FORMATS)
def test_nulls_are_refused_where_the_field_is_not_nullable_and_every_one_is_named(format):
    rows = [ROW, ROW | {"age": None}, ROW, ROW | {"away": None}]
    with pytest.raises(InvalidInput) as refused:
        read(format, WRITERS[format](rows))
    assert [(p.row, p.field) for p in refused.value.fields] == [(1, "age"), (3, "away")]


@pytest.mark.parametrize("format", FORMATS)
def test_accepted_bounds_refuse_and_proposed_ones_do_not(format):
    body = WRITERS[format]([ROW, ROW | {"age": 140}])
    assert len(read(format, body)) == 2
    with pytest.raises(InvalidInput) as refused:
        read(format, body, checker=BOUNDED)
    assert [(p.row, p.field, p.value) for p in refused.value.fields] == [(1, "age", 140)]


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("other", ["1.5", "1"])
def test_a_whole_number_of_csv_that_no_float_holds_is_never_rounded(sign, other):
    rows = [ROW, ROW]
    wanted = int(f"{sign}9007199254740993")
    head, first, second = as_csv(rows).split(b"\n")[:3]
    place = head.split(b",").index(b"hours")
    lines = [first.split(b","), second.split(b",")]
    lines[0][place], lines[1][place] = other.encode(), str(wanted).encode()
    body = b"\n".join([head, *map(b",".join, lines)])
    with pytest.raises(InvalidInput) as refused:
        read(CSV, body)
    with pytest.raises(InvalidInput) as refused_json:
        from_json([ROW | {"hours": float(other)}, ROW | {"hours": wanted}])
    assert [(p.row, p.field) for p in refused.value.fields] == [(1, "hours")]
    assert [(p.row, p.field) for p in refused_json.value.fields] == [(1, "hours")]


@pytest.mark.parametrize("format", FORMATS)
def test_accepted_levels_refuse_and_every_row_is_named(format):
    rows = [ROW, ROW | {"job": "pilot"}, ROW | {"job": "smith"}, ROW | {"job": "pilot"}]
    assert len(read(format, WRITERS[format](rows))) == 4
    with pytest.raises(InvalidInput) as refused:
        read(format, WRITERS[format](rows), checker=LEVELLED)
    assert [(p.row, p.field, p.value) for p in refused.value.fields] == [
        (1, "job", "pilot"),
        (3, "job", "pilot"),
    ]


@pytest.mark.parametrize("format", FORMATS)
def test_too_many_rows_and_none_are_told(format):
    with pytest.raises(TooManyRows):
        read(format, WRITERS[format]([ROW] * (MAX_ROWS + 1)))
    with pytest.raises(MalformedInput, match="no rows"):
        read(format, empty(format))


def empty(format: str) -> bytes:
    out = io.BytesIO()
    if format == CSV:
        return as_csv([])
    if format == JSON_COLUMNS:
        return as_columns([])
    frame = frame_of([ROW]).clear()
    frame.write_ipc_stream(out) if format == ARROW else frame.write_parquet(out)
    return out.getvalue()


@pytest.mark.parametrize("format", [ARROW, PARQUET])
def test_a_missing_and_an_unknown_column_are_named_with_the_nearest_name(format):
    out = io.BytesIO()
    frame = frame_of([ROW]).rename({"hours": "hour"})
    frame.write_ipc_stream(out) if format == ARROW else frame.write_parquet(out)
    with pytest.raises(InvalidInput) as refused:
        read(format, out.getvalue())
    problems = {p.field: p.expected for p in refused.value.fields}
    assert "the column is missing" in problems["hours"]
    assert "did you mean 'hours'" in problems["hour"]


REFUSED_NUMBERS = ("9007199254740993", "1e999", "NaN", "Infinity")


@pytest.mark.parametrize("literal", REFUSED_NUMBERS)
def test_a_number_that_a_double_does_not_hold_is_refused_as_in_json(literal):
    for body in (
        as_columns([ROW]).replace(b"40.5", literal.encode()),
        as_columns([ROW]).replace(b"[[1.0", b"[[" + literal.encode()),
    ):
        with pytest.raises(InvalidInput):
            read(JSON_COLUMNS, body)
    with pytest.raises(InvalidInput):
        read(CSV, as_csv([ROW]).replace(b"40.5", literal.encode()))


@pytest.mark.parametrize(
    "body",
    [
        b'{"columns": {"age": [1], "age": [2]}}',
        b'{"columns" : {"age" : [1], "age": [2]}}',
        b'{"columns": {"age": [1]}, "columns": {"age": [1]}}',
        b'{"columns": {"age": [1, 2], "job": [null]}}',
        b'{"columns": {"age": 5}}',
        b'{"columns": {}}',
        b'{"columns": {"age": [1]}, "more": 1}',
        b'{"columns": {"age": [1]}, "entities": [1]}',
        b"{",
        b"",
    ],
)
def test_columns_that_are_none_are_malformed(body):
    with pytest.raises(MalformedInput) as refused:
        read(JSON_COLUMNS, body)
    assert refused.value.code == "malformed_input"


def test_a_repeated_column_is_found_though_the_body_is_otherwise_right():
    whole = as_columns([ROW])
    twice = whole.replace(b'"age": [39]', b'"age" : [39], "age" : [40]')
    with pytest.raises(MalformedInput, match="twice"):
        read(JSON_COLUMNS, twice)


def test_a_repeated_column_is_found_beside_a_text_that_looks_like_a_key():
    fields = (SIGNATURE.fields[0], SIGNATURE.fields[2])
    plain = Checker(msgspec.structs.replace(SIGNATURE, fields=fields))
    whole = b'{"columns": {"age": [39], "note": ["entities"]}}'
    (row,) = read(JSON_COLUMNS, whole, checker=plain)
    assert msgspec.structs.astuple(row)[0] == 39
    with pytest.raises(MalformedInput, match="twice"):
        read(JSON_COLUMNS, whole.replace(b'{"age"', b'{"age": [38], "age"'), checker=plain)


def test_csv_reads_quoted_cells_charsets_and_what_programs_write():
    head = b"note,age,hours,away,since,job,face\r\n"
    face = b'"[[1,2],[3,4]]"'
    line = b'"a ""b"",\r\nc",39.0,+4.05e1,True,2024-05-01T12:00:00+00:00,,' + face
    (row,) = read(CSV, b"\xef\xbb\xbf" + head + line)
    assert msgspec.structs.astuple(row)[:4] == (39.0, 40.5, True, row.f3)
    assert 'a "b",\r\nc' in msgspec.structs.astuple(row)
    latin = write_details(FormatDetails(charset=require_charset("Latin1")))
    body = (head + "é,39,,0,,,".encode("latin-1") + face + b"\n").replace(b"\r\n", b"\r")
    (row,) = read(CSV, body, latin)
    assert "é" in msgspec.structs.astuple(row)
    with pytest.raises(MalformedInput, match="not utf-8"):
        read(CSV, body)
    with pytest.raises(UnknownFormat):
        require_charset("ebcdic")


@pytest.mark.parametrize(
    "body", [b"", b"age,age\n1,1", b"age\n1,2", b'age\n"1', b'age\n"1"2', b"\n\n"]
)
def test_csv_that_is_none_is_malformed(body):
    with pytest.raises(MalformedInput) as refused:
        read(CSV, body)
    assert refused.value.code == "malformed_input"


@pytest.mark.parametrize("format", [CSV, ARROW, PARQUET])
def test_a_column_of_entities_is_taken_out(format):
    rows = [ROW, ROW]
    detail = write_details(FormatDetails(entities="who"))
    if format == CSV:
        body = as_csv(rows)
        body = b"\r\n".join(
            name + b"," + line
            for name, line in zip((b"who", b"c-1", b"c-2"), body.split(b"\r\n")[:3], strict=True)
        )
    else:
        frame, out = frame_of(rows).with_columns(who=pl.Series(["c-1", "c-2"])), io.BytesIO()
        frame.write_ipc_stream(out) if format == ARROW else frame.write_parquet(out)
        body = out.getvalue()
    assert load_format(format).read_rows(body, detail, CHECKER, MAX_ROWS).entities == ["c-1", "c-2"]
    with pytest.raises(MalformedInput, match=r"no column 'whom'.*'who'"):
        read(format, body, write_details(FormatDetails(entities="whom")))


@pytest.mark.parametrize("format", FORMATS)
def test_a_body_is_shown_as_objects_without_a_signature(format):
    shown = [
        json.loads(row) for row in load_format(format).rows_as_json(WRITERS[format]([ROW, ROW]), "")
    ]
    assert [set(row) for row in shown] == [set(ROW)] * 2
    assert shown[0]["job"] == "nurse"


def test_arrow_reads_files_compressed_batches_and_categories():
    frame = frame_of([ROW, ROW]).with_columns(pl.col("job").cast(pl.Categorical))
    for compression in ("uncompressed", "lz4", "zstd"):
        out = io.BytesIO()
        frame.write_ipc(out, compression=compression)
        assert read(ARROW, out.getvalue()) == from_json([ROW, ROW])


@pytest.mark.parametrize("micros", [-(1 << 60), 1 << 60, 253_402_300_800_000_000])
def test_a_moment_that_no_datetime_holds_is_refused_by_name(micros):
    out = io.BytesIO()
    since = pl.Series("since", [micros], pl.Int64).cast(pl.Datetime("us", "UTC"))
    frame_of([ROW]).with_columns(since).write_parquet(out)
    with pytest.raises(InvalidInput) as refused:
        read(PARQUET, out.getvalue())
    assert [p.field for p in refused.value.fields] == ["since"]


# ---- small bodies that would unpack to very much


def test_a_small_parquet_of_very_much_is_refused_before_it_is_decoded():
    out = io.BytesIO()
    texts = pl.DataFrame({"note": ["x" * (1 << 20)] * 100})
    texts.write_parquet(out, compression="zstd", statistics=False)
    assert len(out.getvalue()) < 1 << 20
    with pytest.raises(BodyTooLarge):  # each text is a view on the same bytes
        read(PARQUET, out.getvalue())
    out = io.BytesIO()
    pl.DataFrame({"age": [7] * 5_000_000}).write_parquet(out)
    with pytest.raises(TooManyRows):
        read(PARQUET, out.getvalue())
    out = io.BytesIO()
    pl.DataFrame({"face": [[0] * 18_000_000]}).write_parquet(out)
    assert len(out.getvalue()) < 1 << 24
    with pytest.raises(BodyTooLarge):
        parquet.guard(out.getvalue(), MAX_ROWS)


def test_an_arrow_buffer_that_claims_to_be_huge_is_refused_before_it_is_decoded():
    out = io.BytesIO()
    pl.DataFrame({"note": ["abc" * 3000] * 3}).write_ipc_stream(out, compression="zstd")
    whole = out.getvalue()
    claims = [i for i in range(0, len(whole) - 8, 8) if whole[i + 8 : i + 12] == b"(\xb5/\xfd"]
    assert claims
    for place in claims:
        huge = whole[:place] + struct.pack("<q", 1 << 50) + whole[place + 8 :]
        with pytest.raises(BodyTooLarge):
            arrow.guard(huge, MAX_ROWS)
    out = io.BytesIO()
    pl.DataFrame({"nothing": [None] * 20_000_000}).write_ipc_stream(out)
    with pytest.raises((BodyTooLarge, TooManyRows)):
        read(ARROW, out.getvalue())


@pytest.mark.parametrize(
    ("format", "body"),
    [
        (CSV, b"age\n" + b"\n" * 3_000_000),
        (CSV, b"age\n" + b"," * 3_000_000),
        (JSON_COLUMNS, b'{"columns":{"age":[%b1]}}' % (b"1," * 3_000_000)),
        (JSON_COLUMNS, b'{"columns":{"age":[%b[]]}}' % (b"[]," * 3_000_000)),
    ],
)
def test_more_values_than_are_read_in_one_go_are_refused_before_they_are_read(format, body):
    with pytest.raises(BodyTooLarge):
        read(format, body)


@pytest.mark.parametrize("format", [CSV, ARROW, PARQUET])
def test_a_table_of_very_many_columns_is_refused(format):
    out = io.BytesIO()
    frame = pl.DataFrame({f"c{number}": [1] for number in range(MOST_COLUMNS + 1)})
    write = {CSV: frame.write_csv, ARROW: frame.write_ipc_stream, PARQUET: frame.write_parquet}
    write[format](out)
    with pytest.raises(MalformedInput, match=r"column|footer"):
        read(format, out.getvalue())


def test_arrow_messages_that_name_the_same_arrays_are_refused():
    out = io.BytesIO()
    frame = pl.DataFrame({f"c{number}": [] for number in range(3000)})
    frame.write_ipc_stream(out)
    schema, batch = arrow._stream_messages(out.getvalue())
    end = batch.body + batch.size
    with pytest.raises(MalformedInput, match="arrays and buffers"):
        arrow.guard(out.getvalue()[:end] + out.getvalue()[schema.body : end] * 500, MAX_ROWS)


# ---- whatever comes, only errors of ours


@settings(max_examples=150)
@given(
    st.sampled_from(FORMATS),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, 1 << 16),
)
def test_changed_bytes_are_read_or_refused(format, changes, cut):
    body = bytearray(WHOLE[format])
    for place, byte in changes:
        body[place % len(body)] = byte
    if cut % 3 == 0:
        del body[cut % len(body) :]
    with suppress(ClewlineError):
        load_format(format).read_rows(bytes(body), "", CHECKER, MAX_ROWS)


@settings(max_examples=100)
@given(st.sampled_from(FORMATS), st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(format, body):
    heads = {ARROW: b"\xff\xff\xff\xff", PARQUET: b"PAR1", CSV: b"age\n", JSON_COLUMNS: b"{"}
    for sent in (body, heads[format] + body, b"PAR1" + body + b"PAR1"):
        with pytest.raises(ClewlineError):
            load_format(format).read_rows(sent, "", CHECKER, MAX_ROWS)


WHOLE = {format: write([ROW, ROW | {"job": None}]) for format, write in WRITERS.items()}
