"""Moving an alias to a version that passes the gate."""

from __future__ import annotations

import time
from statistics import median
from time import perf_counter
from typing import Any

import msgspec

from clewline.errors import CheckFailed, Conflict, Fault, GateRefused, NotFound, UsageError
from clewline.evaluation.metrics import Interval
from clewline.model import registry_chain
from clewline.model.evaluation_record import read_evaluation, report_figures
from clewline.model.families.family import BACKGROUND
from clewline.model.gate import Gate, GateCandidate, GateVerdict, judge_version, read_gate
from clewline.model.package import Package
from clewline.model.registry import Registry, load_predictor
from clewline.model.sealed_records import SealedRecords
from clewline.store.records import Alias, ModelVersion
from clewline.store.ref import RecordSource, Ref, require_alias_name

LATENCY_ROWS = 64
"""Background rows that are timed, one at a time."""
ATTEMPTS = 10
SAID = ("reason", "person")
"""Fields of a promotion that the chain holds only where they were given."""


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """What moving an alias did."""

    model: str  # name@number
    alias: str
    before: str | None  # the version that held it
    moved: bool  # False if the version held it already
    verdicts: list[GateVerdict] | None  # None if gate.yaml asks nothing of this model
    forced: str | None  # the reason for overruling lines that failed
    reason: str | None = None  # why it was moved
    person: str | None = None  # who moved it in the console; the chain names the user besides
    anchored: str | None = None  # the Git ref that holds the head of the chain


def promote(
    registry: Registry,
    ref: str,
    alias: str,
    *,
    force: str | None = None,
    reason: str | None = None,
    person: str | None = None,
) -> Promotion:
    """
    Move an alias to a version that passes `gate.yaml`.

    Args:
        registry: Holds both.
        ref: The version, such as `income@3`.
        alias: Such as `champion`.
        force: The reason for moving it even if lines fail; recorded in the chain.
        reason: Why it is moved; recorded in the chain.
        person: Who moves it, where that is not the user of the process; recorded in the chain.

    Raises:
        UsageError: The alias is not a name, or the reason is empty.
        NotFound: There is no such version, or the private key is missing.
        GateRefused: Lines fail, and no reason to overrule them was given.
        IntegrityError: The package is not what was registered.
        Conflict: The alias of `not_worse_than` was moved each time the version was judged.
        Fault: The alias was moved, but Git did not take the head of the chain.
    """
    require_alias_name(alias)
    if force is not None and not force.strip():
        raise UsageError("The reason to overrule the gate is empty.", "Say why, in words.")
    if not Ref.parse(ref).mark:
        newest = registry.get(ref).ref
        raise UsageError(
            f"{ref!r} names a model and no version of it.",
            f"Write the version that is to be {alias}, such as {newest}, its newest.",
        )
    version, sealer = registry.get(ref), registry.sealer()
    catalog, name = registry.store.catalog, version.name
    names = {each.name for each in catalog.find(ModelVersion, limit=None)}
    gate = read_gate(registry.project.gate, name, names)
    rival_alias = gate.rules.not_worse_than if gate else None
    for _ in range(ATTEMPTS):
        rival = _holder(SealedRecords(registry.project, catalog), name, rival_alias)
        verdicts = _judge(registry, gate, version, rival)
        failed = [verdict for verdict in verdicts or () if not verdict.passed]
        if failed and force is None:
            raise GateRefused(
                f"{version.ref} may not be {alias}: {'; '.join(map(str, failed))}.",
                "Register a better version, change gate.yaml, or overrule it with --force REASON.",
                tuple(verdicts or ()),
            )
        with catalog.transaction() as transaction:
            # The rival may have lost its alias while the version was judged.
            if _holder(SealedRecords(registry.project, transaction), name, rival_alias) != rival:
                continue
            before = transaction.get(Alias, name, alias)
            promotion = Promotion(
                model=version.ref,
                alias=alias,
                before=f"{name}@{before.number}" if before else None,
                moved=before is None or before.number != version.number,
                verdicts=verdicts,
                forced=force if failed else None,
                reason=reason,
                person=person,
            )
            if promotion.moved:
                body = msgspec.to_builtins(promotion)
                del body["moved"], body["anchored"]
                body = {key: value for key, value in body.items() if key not in SAID or value}
                moved = Alias(name=name, alias=alias, number=version.number, moved=time.time())
                kind = registry_chain.PROMOTED
                registry_chain.append_link(transaction, kind, body, sealer, moved)
                transaction.replace(moved)
        head = registry_chain.last_link(catalog)
        try:
            anchored = registry_chain.write_anchor(registry.project, head) if head else None
        except Fault as error:
            raise Fault(
                f"{version.ref} is {alias}, but the head of the registry's chain is not in Git: "
                f"{error.message}",
                "Repair the Git repository and promote again: that only writes the head.",
            ) from error
        return msgspec.structs.replace(promotion, anchored=anchored)
    raise Conflict(f"The alias {rival_alias} was moved each time we judged.", "Try again.")


def judge(registry: Registry, ref: str) -> list[GateVerdict] | None:
    """
    Judge a version by `gate.yaml`, and move nothing.

    Returns:
        A verdict on each line; None if the file asks nothing of this model.

    Raises:
        NotFound, IntegrityError, InvalidConfig: As `promote` does.
    """
    version, catalog = registry.get(ref), registry.store.catalog
    names = {each.name for each in catalog.find(ModelVersion, limit=None)}
    gate = read_gate(registry.project.gate, version.name, names)
    rival_alias = gate.rules.not_worse_than if gate else None
    rival = _holder(SealedRecords(registry.project, catalog), version.name, rival_alias)
    return _judge(registry, gate, version, rival)


def _judge(
    registry: Registry, gate: Gate | None, version: ModelVersion, rival: ModelVersion | None
) -> list[GateVerdict] | None:
    package = registry.read(version)
    if gate is None:
        return None
    mine = _gate_candidate(package, _measure_latency(package) if gate.rules.latency_ms else None)
    if rival is None:
        return judge_version(gate, mine, None)
    try:
        theirs = _gate_candidate(registry.read(rival))
    except (CheckFailed, NotFound) as error:  # a damaged holder must not bar its successor
        theirs = GateCandidate(ref=rival.ref, problem=error.message)
    return judge_version(gate, mine, theirs)


def _holder(records: RecordSource, name: str, alias: str | None) -> ModelVersion | None:
    held = records.get(Alias, name, alias) if alias else None
    return records.get(ModelVersion, name, held.number) if held else None


def _measure_latency(package: Package) -> float | None:
    """Return the median time of one background row, in milliseconds; None without rows."""
    from clewline.signature.check import Checker

    checker = Checker(package.signature)
    rows = checker.decode(package.files[BACKGROUND])[:LATENCY_ROWS]
    columns = [checker.columns([row]).columns for row in rows]
    model = load_predictor(package)
    try:
        model.predict(columns[0])  # the first call also allocates
        times_s = []
        for row in columns:
            start = perf_counter()
            model.predict(row)
            times_s.append(perf_counter() - start)
        return median(times_s) * 1000
    finally:
        model.close()


def _gate_candidate(package: Package, latency_ms: float | None = None) -> GateCandidate:
    """Return what the gate judges of a checked package."""
    manifest = package.manifest
    report: dict[str, Any] = manifest.report or {}
    baseline, headline = report.get("baseline") or {}, report.get("headline")
    score = report_metrics(baseline).get(headline or "")
    evaluation = read_evaluation(package)
    figures = {f"metrics.{name}": each for name, each in report_metrics(report).items()}
    if evaluation is not None:
        figures = report_figures(evaluation)
    return GateCandidate(
        ref=manifest.ref,
        figures=figures,
        headline=headline,
        size_bytes=package.size_bytes,
        latency_ms=latency_ms,
        beats_baseline=report["verdict"] == "better" if "verdict" in report else None,
        baseline=f"the rule {baseline.get('rule')}" + (f", {headline} {score}" if score else ""),
        gain=_interval(report["gain"]) if report.get("gain") else None,
        test=(manifest.data.get("test") or {}).get("artifact"),
    )


def report_metrics(report: dict[str, Any]) -> dict[str, Interval]:
    """Return the metrics of a manifest's report, or of its baseline."""
    return {name: _interval(interval) for name, interval in report.get("metrics", {}).items()}


def _interval(interval: dict[str, float | None]) -> Interval:
    ends = (interval.get(end) for end in ("value", "low", "high"))
    return Interval(*(float("nan") if end is None else end for end in ends))  # JSON has no NaN
