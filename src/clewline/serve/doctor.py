"""Checking all that a project keeps: store, packages, registry, key and log; findings in words."""

from __future__ import annotations

from typing import Any

from clewline.flow.values import INSIDE
from clewline.formatting import format_count, format_list, format_size, short_digest
from clewline.model.doctor import model_findings
from clewline.project import Project
from clewline.serve.log.check import check_log
from clewline.serve.log.seals import check_seals
from clewline.store.doctor import Finding, check_store

_RUN_AGAIN = (
    "Run the step that made it again without the cache: storing it again repairs it. "
    "Or restore it from a backup."
)
_RESTORE_LOG = "Restore the file from a backup. Without one, its predictions are lost."
_RESTORE_CATALOG = "Restore `catalog.db` from a backup."

# The code of a finding, which is its title too → what is wrong, formatted with its values.
_WHAT = {
    "unfinished_blob": "{path} was being written when its process died. Nothing refers to it.",
    "unfinished_pack": "{path} ends in the middle of a blob, at byte {offset}: its process was "
    "killed. Nothing refers to that blob.",
    "damaged_pack": "{path} holds a damaged record at byte {offset}.",
    "damaged_blob": "The blob {blob} in {place} is damaged.",
    "missing_blob": "The blob {blob}, the {what} of {of}, is not in the store.",
    "orphan_blobs": "{count} ({size}) belong to no record: {examples}.",
    "damaged_catalog": "SQLite reports of {path}: {reason}.",
    "dangling_records": "{count} in {path} refer to records that are not there: {tables}.",
    "damaged_record": "{message}",
    "changed_explanation": "The stored explanation {explanation} was changed in the catalog.",
    "unfinished_run": "Run {run} of {pipeline} is recorded as running, but its process is dead.",
    "stale_lock": "{path} names {process}, which is dead. The lock holds nobody up.",
    "exposed_key": "Other users can read the private key {path} (mode {mode}).",
    "unreadable_key": "{message}",
    "no_key": "There is no private key at {path}. Without it nothing can be sealed: no model "
    "registered, no endpoint applied, no token added, no log segment sealed.",
    "unsealed_record": "{message}",
    "changed_record": "{message}",
    "wrong_key": "{path} is not the private half of the public key in clewline.toml.",
    "unverifiable_registry": "{message}",
    "damaged_package": "{model}: {problem}",
    "rewritten_registry": "{problem}",
    "unregistered_package": "{path} is in no record: its registration was killed, or the catalog "
    "is an older one.",
    "unfinished_package": "{path} was being written when its process died.",
    "damaged_log_index": "{path} does not match its frames.",
    "damaged_frames": "{path} is damaged between byte {start} and byte {end}: a frame there does "
    "not match its checksum.",
    "lost_log_segment": "{path} is gone, but its index {index} is there.",
    "unfinished_frame": "{path} ends in the middle of a frame, at byte {offset} of {size_bytes}: "
    "its writer was killed before anything in that frame was answered. Readers skip it.",
    "removed_log_file": "{path} is gone. It was closed and sealed in the signed chain.",
    "changed_log_file": "{path} was changed since it was closed and sealed in the signed chain.",
    "unsealed_log_files": "{count} of the prediction log have no link in the signed chain: "
    "{examples}.",
    "unfinished_log_file": "{path} was being written when its process died. Nothing refers to it.",
}
_FIX = {
    "damaged_pack": _RUN_AGAIN,
    "damaged_blob": _RUN_AGAIN,
    "missing_blob": _RUN_AGAIN,
    "orphan_blobs": "They do no harm. The same content uses them when it is stored again.",
    "damaged_catalog": _RESTORE_CATALOG,
    "dangling_records": _RESTORE_CATALOG,
    "damaged_record": "{fix}",
    "changed_explanation": "Run `clewline explain {prediction} --kind {kind} --fresh`, with its "
    "options: it computes and stores the explanation again.",
    "exposed_key": "Run `chmod 600 {path}`.",
    "unreadable_key": "{fix}",
    "no_key": "A machine that only serves models needs none. Otherwise restore it from a backup. "
    "If it is lost, docs/seals.md says how to begin with a new one.",
    "unsealed_record": "{fix}",
    "changed_record": "{fix}",
    "wrong_key": "Restore the wrong one of the two files from Git or a backup.",
    "unverifiable_registry": "{fix}",
    "damaged_package": "Restore it from a backup, or register the model again and promote that "
    "version.",
    "rewritten_registry": "Someone, or a restored backup, changed the registry's history. Compare "
    "it with a backup and with the heads in Git before you trust an alias.",
    "unregistered_package": "Remove it, unless the catalog is an older one.",
    "damaged_frames": "Restore the file from a backup. Without one, the predictions of that frame "
    "are lost; every other prediction is found.",
    "lost_log_segment": _RESTORE_LOG,
    "removed_log_file": "Restore the file from a backup. If you removed it on purpose, run "
    "`clewline doctor --seal`.",
    "changed_log_file": "Restore the file from a backup. Without one, do not trust what it says.",
    "unsealed_log_files": "Without the private key this machine cannot seal them. Changes of them "
    "are found only where they break a checksum.",
}


def check_project(project: Project, *, deep: bool = True) -> list[Finding]:
    """
    Check store, packages, registry, key and log. Reads only.

    Args:
        project: What to check.
        deep: Whether to read and verify every blob, package, log segment and explanation.
    """
    return [
        *check_store(project.store_root, deep=deep, inside=INSIDE),
        *model_findings(project, deep=deep),
        *check_log(project, deep=deep),
        *check_seals(project, deep=deep),
    ]


def finding_text(finding: Finding) -> tuple[str, str, str]:
    """Return the title of a finding, a sentence about what is wrong, and one about what to do."""
    values: dict[str, Any] = dict(finding.values)
    if finding.code == "orphan_blobs":
        values["count"] = format_count(len(values["blobs"]), "blob")
        values["size"] = format_size(values["size_bytes"])
        values["examples"] = format_list(map(short_digest, values["blobs"]), 3)
    elif finding.code == "unsealed_log_files":
        values["count"] = format_count(len(values["paths"]), "closed file")
        values["examples"] = format_list(values["paths"], 2)
    elif finding.code == "dangling_records":
        values["count"] = format_count(values["records"], "record")
        values["tables"] = format_list(values["tables"])
    fix = "Run `clewline doctor --fix`." if finding.fixable else _FIX[finding.code]
    title = finding.code.replace("_", " ")
    return title, _WHAT[finding.code].format(**values), fix.format(**values)
