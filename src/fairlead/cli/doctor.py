"""`fairlead doctor`: checks the store, and says how to mend what it finds."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from fairlead import project
from fairlead.cli.output import console, emit
from fairlead.store import doctor as store_doctor
from fairlead.store.doctor import Finding


def doctor(
    *,
    quick: Annotated[bool, Parameter(negative="")] = False,
    mend: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """
    Check the store, and say how to mend what is found. Exit status 1 when something is.

    Parameters
    ----------
    quick
        Do not read and verify every blob.
    mend
        First mend what needs no judgement: half-written records, stale locks and runs
        whose process is dead.
    """
    here = project.find()
    if mend:
        store_doctor.mend(here.store_root)
    found = store_doctor.check(here.store_root, deep=not quick)
    emit(found, show)
    if found:
        raise SystemExit(1)


def show(found: list[Finding]) -> None:
    """Print what was found."""
    out = console()
    if not found:
        out.print("All is well.")
    for finding in found:
        out.print(f"[bold red]{finding.kind}[/]", finding.what, sep="  ", markup=True)
        out.print(f"  {finding.fix}", style="dim", markup=False)
