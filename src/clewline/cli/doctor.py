"""`clewline doctor`: checks everything that a project keeps, and says how to fix what it finds."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from clewline import project
from clewline.cli.output import console, emit, print_message
from clewline.store.doctor import Finding, fix_store


def doctor(
    *,
    quick: Annotated[bool, Parameter(negative="")] = False,
    fix: Annotated[bool, Parameter(negative="")] = False,
    seal: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """
    Check store, packages, registry, key and log; exit with 1 if something is wrong.

    Parameters
    ----------
    quick
        Do not read and verify every blob, package, log segment and explanation.
    fix
        First fix what killed processes left behind, stale locks and log indexes.
    seal
        First seal the records that have no link in the signed chain, and that files of the log
        were removed. Check them before: their findings list them. An older clewline left such
        records, or someone without the private key.
    """
    from clewline.model.doctor import fix_models, seal_models
    from clewline.serve.doctor import check_project
    from clewline.serve.log.check import fix_log
    from clewline.serve.log.seals import fix_seals, seal_removals

    here = project.find()
    if fix:
        fix_store(here.store_root)
        fix_models(here)
        fix_log(here)
        fix_seals(here)
    if seal:
        for name in seal_models(here):
            print_message(f"sealed the {name}")
        for name in seal_removals(here):
            print_message(f"sealed that {name} was removed")
    found = check_project(here, deep=not quick)
    emit(found, show)
    if not all(finding.harmless for finding in found):
        raise SystemExit(1)


def show(found: list[Finding]) -> None:
    """Print findings, the harmless ones last."""
    from rich.text import Text

    from clewline.serve.doctor import finding_text

    out = console()
    if all(finding.harmless for finding in found):
        out.print("All is well.")
    for finding in sorted(found, key=lambda finding: finding.harmless):
        title, what, fix = finding_text(finding)
        style = "dim" if finding.harmless else "bold red"
        out.print(Text.assemble((title, style), "  ", what))
        out.print(Text(f"  {fix}", "dim"))
