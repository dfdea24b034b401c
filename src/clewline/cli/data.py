"""`clewline data`: look at tables before a model is trained on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from clewline.cli.output import console, emit, print_message

if TYPE_CHECKING:
    from clewline.data.assessment import Assessment

app = App(name="data", help="Assess tables before a model is trained on them.")

STYLES = {"harmful": "red", "doubtful": "yellow", "note": "dim"}


@app.command
def assess(
    table: Path,
    /,
    *,
    target: str | None = None,
    protected: str = "",
    test: Path | None = None,
    against: Path | None = None,
    out: Path | None = None,
    seed: int = 0,
) -> None:
    """
    Assess a table before a model is trained on it.

    Parameters
    ----------
    table
        The training table: CSV, Parquet or Arrow.
    target
        The column that is to be predicted.
    protected
        Fields by which people must not be treated differently: sex,race.
    test
        The test table, to find rows that it shares with the training table.
    against
        A second table that should be like the first, such as live rows.
    out
        Write a page to this file (HTML).
    seed
        Seed of samples and models.
    """
    from clewline.data.assess import assess as assess_table
    from clewline.data.table_files import read_table

    others = {
        name: None if path is None else read_table(path)
        for name, path in (("test", test), ("against", against))
    }
    found = assess_table(
        read_table(table),
        target=target,
        protected=[name.strip() for name in protected.split(",") if name.strip()],
        seed=seed,
        **others,
    )
    emit(found, print_assessment)
    if out is not None:
        from clewline.cli.output import write_page
        from clewline.html.data_report import write_data_report
        from clewline.version import __version__

        write_page(out, write_data_report(found, table.name, __version__))


def print_assessment(found: Assessment) -> None:
    """Print the findings, the most harmful first."""
    from rich.markup import escape

    from clewline.data.finding_text import describe_finding
    from clewline.formatting import format_count

    screen = console()
    rows, fields = format_count(found.rows, "row"), format_count(len(found.fields), "column")
    screen.print(f"{rows}, {fields}, {format_count(len(found.findings), 'finding')}")
    for finding in found.findings:
        text, style = describe_finding(finding), STYLES[finding.severity]
        screen.print()
        title = f"[{style}]{finding.severity:<8}[/{style}]  [bold]{escape(text.title)}[/bold]"
        screen.print(title)
        screen.print(f"  {escape(text.what)}")
        screen.print(f"  {escape(text.advice)}")
    if not found.findings:
        print_message("Nothing was found that would harm a model.")
