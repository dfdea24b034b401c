"""`clewline doctor`: checks all that a project keeps, and says how to mend what it finds."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from clewline import project
from clewline.cli.output import console, emit
from clewline.store import doctor as store_doctor
from clewline.store.doctor import Finding


def doctor(
    *,
    quick: Annotated[bool, Parameter(negative="")] = False,
    mend: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """
    Check store, packages, registry, key and log. Exit status 1 when something is found.

    Parameters
    ----------
    quick
        Do not read and verify every blob, package and segment of the log.
    mend
        First mend what needs no judgement: half-written records, stale locks, runs whose
        process is dead, indexes of the log.
    """
    from clewline.flow.values import INSIDE
    from clewline.model.doctor import model_findings as model_findings
    from clewline.serve.log import check as log_check

    here = project.find()
    if mend:
        store_doctor.mend(here.store_root)
        log_check.fix_log(here)
    deep = not quick
    found = store_doctor.check(here.store_root, deep=deep, inside=INSIDE)
    found += model_findings(here, deep=deep)
    found += log_check.check_log(here, deep=deep)
    emit(found, show)
    if found:
        raise SystemExit(1)


def show(found: list[Finding]) -> None:
    """Print what was found."""
    from rich.text import Text

    out = console()
    if not found:
        out.print("All is well.")
    for finding in found:
        out.print(Text.assemble((finding.kind, "bold red"), "  ", finding.what))
        out.print(Text(f"  {finding.fix}", "dim"))
