"""`clewline predict`."""

from __future__ import annotations

from pathlib import Path

from clewline.cli.output import emit, print_message
from clewline.errors import InvalidInput


def predict(ref: str, table: Path, /, *, out: Path | None = None) -> None:
    """
    Answer the rows of a table with a registered version. Nothing is logged.

    Parameters
    ----------
    ref
        The version, such as income@3 or income@champion.
    table
        The rows, as CSV or Parquet.
    out
        Write rows and answers to this CSV or Parquet file; by default they are printed as CSV.
    """
    from clewline.data.table_files import read_table, write_table
    from clewline.model.registered_model import load

    rows = read_table(table)
    with load(ref) as model:
        answers = model.answer_table(rows)
    if taken := sorted({*answers.columns} & {*rows.columns}):
        raise InvalidInput(
            f"{table} has a column {taken[0]!r} already, which the answers have as well.",
            "Rename that column.",
        )
    answered = rows.hstack(answers)
    if out is not None:
        write_table(answered, out)
        print_message(f"{model.ref} answered {answered.height:,} rows; they are in {out}.")
        return
    emit(answered.to_dicts(), lambda _: print(answered.write_csv(), end=""))
