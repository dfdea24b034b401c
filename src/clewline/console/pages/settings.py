"""Tokens and roles, keys, what the doctor finds, sizes of the store, versions."""

from __future__ import annotations

import platform
import re
import sqlite3
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from typing import Any

from clewline.console.jobs import JobProgress, JobResult
from clewline.console.page import PageAnswer, PageRequest, PageRoute, Redirect, View
from clewline.console.table import Column, Table, TableRows, offset_source
from clewline.errors import InvalidInput
from clewline.formatting import format_count, parse_duration
from clewline.html.markup import Content, element
from clewline.model.registry_chain import last_link
from clewline.model.sealed_changes import SealedChange, sealed_changes
from clewline.serve.access import ROLES, NewToken, add_token, revoke_token, token_state
from clewline.serve.doctor import check_project, finding_text
from clewline.store.doctor import Finding
from clewline.store.records import Token
from clewline.store.sizes import store_sizes
from clewline.store.store import Store
from clewline.version import __version__

DOCTOR = "doctor"
"""Key of the job that checks the project."""
NOTE, REASON = 200, 500
"""Most characters of a note and of a reason."""
FINDINGS_SHOWN = 100


class SettingsPage:
    """Tokens and roles, keys, what the doctor finds, sizes of the store, versions."""

    name = "settings"
    title = "Settings"
    place = 90

    def routes(self) -> Sequence[PageRoute]:
        """Return the page, and what its forms do."""
        return (
            PageRoute("/settings", show_settings),
            PageRoute("/settings/doctor", start_doctor, method="POST", role="review"),
            PageRoute("/settings/tokens", add, method="POST", role="operate"),
            PageRoute("/settings/tokens/{token}/revoke", revoke, method="POST", role="operate"),
        )


def show_settings(request: PageRequest, new: NewToken | None = None) -> PageAnswer:
    """Show all of it; a new token is shown once, in the answer to the form that added it."""
    project, catalog = request.project, request.store.catalog
    checked = next((job for job in request.jobs.all() if job.key == DOCTOR), None)
    findings: list[Finding] = []
    if checked is not None and checked.result is not None:
        findings = checked.result.value
    head = last_link(catalog)
    return View(
        "settings.html",
        title="Settings",
        values={
            "new": new,
            "tokens": _token_table(request) if request.person.may("operate") else None,
            "roles": ROLES,
            "may_operate": request.person.may("operate"),
            "may_check": request.person.may("review"),
            "note_length": NOTE,
            "reason_length": REASON,
            "changes": _change_table(request),
            "public_key": project.public_key,
            "private_key": project.private_key.exists(),
            "head": head,
            "checked": checked,
            "findings": [
                (*finding_text(finding), finding.harmless)
                for finding in sorted(findings, key=lambda each: each.harmless)[:FINDINGS_SHOWN]
            ],
            "more_findings": max(0, len(findings) - FINDINGS_SHOWN),
            "sizes": store_sizes(project.store_root),
            "versions": installed_versions(),
        },
    )


def start_doctor(request: PageRequest) -> PageAnswer:
    """Check the project, as `clewline doctor` does."""
    deep = request.form.get("deep") == "yes"

    def work(_: JobProgress) -> JobResult:
        found = check_project(request.project, deep=deep)
        harmful = sum(not each.harmless for each in found)
        message = "All is well." if not harmful else f"{format_count(harmful, 'finding')}."
        return JobResult(message, "/settings#doctor", found)

    job = request.jobs.start("Check the project", work, person=request.person.name, key=DOCTOR)
    return Redirect(job.address)


def add(request: PageRequest) -> PageAnswer:
    """Add a token, and show it once."""
    form = request.form
    role, wanted = form.get("role", ""), form.get("expires", "").strip()
    if role not in ROLES:
        raise InvalidInput(f"There is no role {role!r}.", f"Choose among {', '.join(ROLES)}.")
    span = parse_duration(wanted) if wanted else None
    if wanted and span is None:
        raise InvalidInput(f"{wanted!r} is not a span of time.", "Write it as 12h or 90d.")
    with Store.open(request.project.store_root) as store:
        new = add_token(
            request.project,
            store,
            [role],
            note=form.get("note", "").strip()[:NOTE],
            expires=None if span is None else time.time() + span,
            person=request.person.name,
            reason=form.get("reason", "").strip()[:REASON],
        )
    return show_settings(request, new)


def revoke(request: PageRequest) -> PageAnswer:
    """Revoke a token for good."""
    with Store.open(request.project.store_root) as store:
        revoke_token(
            request.project,
            store,
            request.path["token"],
            person=request.person.name,
            reason=request.form.get("reason", "").strip()[:REASON],
        )
    return Redirect("/settings#tokens")


@cache
def installed_versions() -> list[tuple[str, str]]:
    """Return what is installed of that which clewline requires, by name, after clewline itself."""
    found = {}
    for requirement in metadata.requires("clewline") or ():
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # of an extra that is not installed
    own = [("clewline", __version__), ("Python", platform.python_version())]
    return [*own, ("SQLite", sqlite3.sqlite_version), *sorted(found.items())]


def _token_table(request: PageRequest) -> Table:
    catalog = request.store.catalog

    def rows(offset: int, limit: int, sort: str) -> Sequence[Mapping[str, Any]]:
        found = catalog.find(Token, order="-created", offset=offset, limit=limit)
        return [
            {
                "id": token.id,
                "roles": ", ".join(token.roles),
                "note": token.note,
                "state": token_state(token),
                "created": token.created,
                "expires": token.expires,
            }
            for token in found
        ]

    def revoke_form(row: Mapping[str, Any]) -> Content:
        if row["state"] != "valid":
            return element("span", row["state"], class_="muted")
        name = f"reason-{row['id']}"
        return element(
            "form",
            element("input", type="hidden", name="csrf", value=request.csrf_token),
            element("label", f"Why is {row['id']} revoked?", for_=name, class_="unseen"),
            element("input", id=name, name="reason", placeholder="Why?", maxlength=REASON),
            element("button", "Revoke", class_="quiet"),
            method="post",
            action=f"/settings/tokens/{row['id']}/revoke",
            class_="actions",
        )

    return Table(
        "tokens",
        [
            Column("id", "Token", "id"),
            Column("roles", "Roles"),
            Column("note", "Whose"),
            Column("created", "Added", "time"),
            Column("expires", "Expires", "time"),
            Column("state", "State", show=revoke_form),
        ],
        offset_source(rows, catalog.count(Token)),
        request,
        empty="There are no tokens. On loopback none is needed.",
        caption="Tokens",
        page_rows=20,
    )


def _change_table(request: PageRequest) -> Table:
    changes = sealed_changes(request.store.catalog)

    def rows(offset: int, limit: int, sort: str) -> Sequence[Mapping[str, Any]]:
        return [_change_row(change) for change in changes[offset : offset + limit]]

    source = offset_source(rows, len(changes))

    def page(cursor: str | None, limit: int, sort: str) -> TableRows:
        return source(cursor, limit, sort)

    return Table(
        "changes",
        [
            Column("time", "When", "time"),
            Column("what", "What"),
            Column("which", "Which"),
            Column("who", "Who"),
            Column("reason", "Why"),
        ],
        page,
        request,
        empty="Nothing has been changed yet.",
        caption="Changes",
        page_rows=20,
    )


def _change_row(change: SealedChange) -> dict[str, Any]:
    what = change.kind.replace("_", " ")
    return {
        "time": change.created,
        "what": f"{what} to {change.alias}" if change.alias else what,
        "which": ", ".join(change.refs),
        "who": change.user if change.person in (None, "local") else change.person,
        "reason": change.reason,
    }
