"""Moving an alias to a version, past the gate."""

from __future__ import annotations

from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec

from clewline.errors import CheckFailed, Conflict, Fault, GateRefused, NotFound, UsageError
from clewline.model import gate, git_anchor, registry_chain
from clewline.model.package import BACKGROUND, Package
from clewline.model.registry import Registry, load_predictor
from clewline.model.seal import Sealer
from clewline.store.records import Alias, ModelVersion
from clewline.store.ref import require_alias_name

if TYPE_CHECKING:
    from clewline.store.catalog import Catalog, Transaction

LATENCY_ROWS = 64
"""Background rows that are timed, one at a time."""


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """What came of moving an alias."""

    model: str  # name@number
    alias: str
    before: str | None  # who held it
    moved: bool  # False when it was there already
    verdicts: list[gate.GateVerdict] | None  # None when gate.yaml asks nothing of this model
    forced: str | None  # the reason why lines that failed were overruled
    anchored: str | None = None  # the Git ref that holds the head of the chain


def promote(registry: Registry, ref: str, alias: str, *, force: str | None = None) -> Promotion:
    """
    Move an alias to a version that passes `gate.yaml`.

    Args:
        registry: Where both are.
        ref: The version.
        alias: Such as `champion`.
        force: Why it is to be moved though lines fail; recorded in the chain.

    Raises:
        GateRefused: Lines fail, and no reason to overrule them was given.
        IntegrityError: The package is not what was registered.
        Fault: The alias was moved, and Git would not take the head of the chain.
    """
    require_alias_name(alias)
    if force is not None and not force.strip():
        raise UsageError("The reason to overrule the gate is empty.", "Say why, in words.")
    version, sealer = registry.get(ref), registry.sealer()
    promotion = _judge_and_move(registry, version, alias, force, sealer)
    return msgspec.structs.replace(promotion, anchored=_anchor(registry, promotion))


def latency_ms(opened: Package) -> float | None:
    """Time the model on background rows, one at a time: the median; None without rows."""
    from clewline.signature.check import Checker

    checker = Checker(opened.signature)
    rows = checker.decode(opened.files[BACKGROUND])[:LATENCY_ROWS]
    columns = [checker.columns([row]).columns for row in rows]
    model = load_predictor(opened)
    try:
        model.predict(columns[0])  # the first call also allocates
        return median(_timed(model.predict, row) for row in columns) * 1000
    finally:
        model.close()


def gate_candidate(opened: Package, latency: float | None = None) -> gate.GateCandidate:
    """Gather what the gate judges from a package that was checked."""
    manifest = opened.manifest
    report: dict[str, Any] = manifest.report or {}
    return gate.GateCandidate(
        ref=manifest.ref,
        scores=scores(report),
        headline=report.get("headline"),
        size_bytes=opened.size_bytes,
        latency_ms=latency,
        beats_baseline=report["verdict"] == "better" if "verdict" in report else None,
        baseline=_baseline(report),
        gain=_score(report["gain"]) if report.get("gain") else None,
        test=(manifest.data.get("test") or {}).get("artifact"),
    )


def scores(report: dict[str, Any]) -> dict[str, gate.Score]:
    """Give the metrics of a manifest's report with their intervals."""
    return {name: _score(interval) for name, interval in report.get("metrics", {}).items()}


def _judge_and_move(
    registry: Registry, version: ModelVersion, alias: str, force: str | None, sealer: Sealer
) -> Promotion:
    catalog = registry.store.catalog
    asked = gate.read_gate(registry.project.gate, version.name)
    against = asked.rules.not_worse_than if asked else None
    for _ in range(10):
        rival = _holder(catalog, version.name, against)
        verdicts = _judge(registry, asked, version, rival)
        overruled = _refuse(version, alias, verdicts, force)
        with catalog.transaction() as transaction:
            # The one that it was held against may have lost its alias while it was judged.
            if _holder(transaction, version.name, against) == rival:
                return _move(transaction, version, alias, verdicts, overruled, sealer)
    raise Conflict(f"The alias {against} was moved each time we judged.", "Try again.")


def _anchor(registry: Registry, promotion: Promotion) -> str | None:
    """Write the head of the chain into Git; what was done stays done when that fails."""
    head = registry_chain.last_link(registry.store.catalog)
    try:
        return git_anchor.write_anchor(registry.project, head) if head else None
    except Fault as error:
        raise Fault(
            f"{promotion.model} is {promotion.alias}, but the head of the registry's chain is not "
            f"in Git: {error.message}",
            "Mend the repository, and promote again: that only writes the head.",
        ) from error


def _judge(
    registry: Registry, asked: gate.Gate | None, version: ModelVersion, rival: ModelVersion | None
) -> list[gate.GateVerdict] | None:
    opened = registry.read(version)
    if asked is None:
        return None
    mine = gate_candidate(opened, latency_ms(opened) if asked.rules.latency_ms else None)
    return gate.judge_version(asked, mine, _rival(registry, rival) if rival else None)


def _rival(registry: Registry, version: ModelVersion) -> gate.GateCandidate:
    """Gather what is known of the alias's holder; a damaged one must not bar its successor."""
    try:
        return gate_candidate(registry.read(version))
    except (CheckFailed, NotFound) as error:
        return gate.GateCandidate(ref=version.ref, problem=error.message)


def _refuse(
    version: ModelVersion, alias: str, verdicts: list[gate.GateVerdict] | None, force: str | None
) -> str | None:
    """Give the reason that overrules what failed; None when nothing did."""
    failed = [verdict for verdict in verdicts or () if not verdict.passed]
    if not failed:
        return None
    if force is None:
        lines = "; ".join(map(str, failed))
        raise GateRefused(
            f"{version.ref} may not be {alias}: {lines}.",
            "Register a better version, change gate.yaml, or overrule it with --force REASON.",
            tuple(verdicts or ()),
        )
    return force


def _move(
    transaction: Transaction,
    version: ModelVersion,
    alias: str,
    verdicts: list[gate.GateVerdict] | None,
    overruled: str | None,
    sealer: Sealer,
) -> Promotion:
    before = transaction.get(Alias, version.name, alias)
    promotion = Promotion(
        model=version.ref,
        alias=alias,
        before=f"{version.name}@{before.number}" if before else None,
        moved=before is None or before.number != version.number,
        verdicts=verdicts,
        forced=overruled,
    )
    if promotion.moved:
        body = msgspec.to_builtins(promotion)
        told = {key: body[key] for key in ("model", "alias", "before", "verdicts", "forced")}
        link = registry_chain.next_link(
            registry_chain.last_link(transaction), registry_chain.PROMOTED, told, sealer
        )
        moved = Alias(name=version.name, alias=alias, number=version.number, moved=link.created)
        transaction.replace(moved)
        transaction.add(link)
    return promotion


def _holder(records: Catalog | Transaction, name: str, alias: str | None) -> ModelVersion | None:
    held = records.get(Alias, name, alias) if alias else None
    return records.get(ModelVersion, name, held.number) if held else None


def _score(interval: dict[str, float | None]) -> gate.Score:
    ends = (interval.get(end) for end in ("value", "low", "high"))
    # JSON has no NaN, and writes null.
    return gate.Score(*(float("nan") if end is None else end for end in ends))


def _baseline(report: dict[str, Any]) -> str:
    baseline, headline = report.get("baseline") or {}, report.get("headline")
    score = scores(baseline).get(headline or "")
    reached = f", {headline} {score}" if score else ""
    return f"the rule {baseline.get('rule')}{reached}"


def _timed(predict: Any, row: Any) -> float:
    start = perf_counter()
    predict(row)
    return perf_counter() - start
