"""What every kind does with the tables that it is given."""

from __future__ import annotations

import sys
from typing import Any, Literal

import msgspec

from clewline.errors import InvalidInput
from clewline.model import background, profile
from clewline.model.compile.result import Compiled
from clewline.model.kinds.kind import Given
from clewline.model.package import BACKGROUND, EQUALITY, PROFILE, SIGNATURE
from clewline.signature import dataframes
from clewline.signature.check import Checker
from clewline.signature.field import Signature
from clewline.signature.json_rows import NameSuggestions


def with_probabilities(signature: Signature, has_them: bool) -> Signature:
    """State whether a classifier tells probabilities with its labels."""
    output = signature.output
    if output.labels is None or output.has_probabilities == has_them:
        return signature
    output = msgspec.structs.replace(output, has_probabilities=has_them)
    return msgspec.structs.replace(signature, output=output)


def described(signature: Signature, compiled: Compiled, train: Any, test: Any) -> dict[str, bytes]:
    """
    Make the files of a package that describe its model.

    Args:
        signature: Of the model.
        compiled: The model as it will be served.
        train: Checked rows that it was trained on, as `Columns`.
        test: Checked rows that it has not seen, or None.
    """
    from clewline.model.runtime.outputs import runtime_named

    predictor = runtime_named(compiled.runtime).load(compiled.files, signature)
    try:
        measured = profile.measure_profile(signature, train, predictor, test=test)
    finally:
        predictor.close()
    return {
        SIGNATURE: json_of(signature),
        EQUALITY: json_of(compiled.equality),
        PROFILE: json_of(measured),
        BACKGROUND: json_of(background.rows(signature, train)),
    }


def described_fields(signature: Signature, compiled: Compiled, train: Any) -> dict[str, bytes]:
    """Make the files that describe preprocessing, whose output nobody counts; as `described`."""
    return {
        SIGNATURE: json_of(signature),
        EQUALITY: json_of(compiled.equality),
        PROFILE: json_of(profile.measure_fields(signature, train)),
        BACKGROUND: json_of(background.rows(signature, train)),
    }


def require_train(given: Given) -> None:
    """Raise InvalidInput unless a training table is given."""
    if given.train is None:
        raise InvalidInput("No training table is given.", "Pass train=, rows that it was made for.")


def named_fields(names: list[str], present: list[str]) -> list[str]:
    """Give the columns that a model was fitted on, each of which the training table must have."""
    for name in names:
        if name not in present:
            raise InvalidInput(
                f"The model was fitted on a column {name!r}, which the training table has not"
                f"{NameSuggestions(present).hint(name)}.",
                "Pass the table that it was fitted on.",
            )
    return names


def chosen(table: Any, columns: list[str]) -> Any:
    """Take columns of a table, in order; all must be there."""
    opened = dataframes.open_table(table)
    for column in columns:
        dataframes.require_column(opened, column)
    return opened.select(columns).to_native()


def fitting(checker: Checker, table: Any) -> tuple[Any, list[str]]:
    """
    Leave out rows that an endpoint would refuse; the training table never showed such.

    Returns:
        The other rows, and what to tell the person who registers.
    """
    try:
        checker.table(table)
    except InvalidInput as error:
        rows = {problem.row for problem in error.fields}
        opened = dataframes.open_table(table)
        if not rows or len(rows) >= len(opened):
            raise
        first = error.fields[0]
        note = (
            f"{len(rows):,} of {len(opened):,} test rows were left out, as an endpoint refuses "
            f"them: row {first.row}, {first.field} {first.value!r} instead of {first.expected}."
        )
        kept = [row for row in range(len(opened)) if row not in rows]
        return opened[kept, :].to_native(), [note]
    return table, []


def frame_kind(table: Any) -> Literal["polars", "pandas"]:
    """Say of which library a table is."""
    pandas = sys.modules.get("pandas")
    return "pandas" if pandas is not None and isinstance(table, pandas.DataFrame) else "polars"


def json_of(value: Any) -> bytes:
    """Write a value as a file of a package."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"
