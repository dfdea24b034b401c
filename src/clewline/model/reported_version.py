"""A version with its evaluation, and how much better than another it is."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

from clewline.errors import InvalidInput, NotFound, NotSupported
from clewline.evaluation.metrics import Interval
from clewline.evaluation.report import Report
from clewline.model.evaluation_record import read_evaluation
from clewline.model.package import Package
from clewline.model.registry import Registry
from clewline.store.records import Run


class ReportedVersion(NamedTuple):
    """A version and what is known of it."""

    package: Package
    report: Report | None
    aliases: Sequence[str] = ()
    run: Run | None = None

    @property
    def ref(self) -> str:
        """`name@number`."""
        return self.package.manifest.ref


class PairedDifference(NamedTuple):
    """How much one version is better than another in a metric, on the same test rows."""

    metric: str
    ours: float
    theirs: float
    difference: Interval | None  # None if both were not measured row by row on the same rows


def read_version(registry: Registry, ref: str) -> ReportedVersion:
    """
    Open a version, check every byte, and read its evaluation.

    Older packages hold the evaluation in the manifest alone.

    Raises:
        NotFound, IntegrityError: As `Registry.open`.
    """
    package = registry.open(ref)
    manifest = package.manifest
    found = read_evaluation(package)
    if found is None and manifest.report is not None:
        with suppress(msgspec.ValidationError):  # written by hand, or by a much older clewline
            found = msgspec.convert(manifest.report, Report)
    aliases = [
        each.alias for each in registry.aliases(manifest.name) if each.number == manifest.number
    ]
    run = registry.store.catalog.get(Run, manifest.run) if manifest.run else None
    return ReportedVersion(package, found, aliases, run)


def compare_metrics(version: ReportedVersion, other: ReportedVersion) -> list[PairedDifference]:
    """Compare the metrics that two versions have in common; none if one was not evaluated."""
    if version.report is None or other.report is None:
        return []
    theirs = other.report.metrics
    return [
        PairedDifference(name, found.value, theirs[name].value, None)
        for name, found in version.report.metrics.items()
        if name in theirs
    ]


def compare_reported(
    registry: Registry, version: ReportedVersion, other: ReportedVersion
) -> tuple[list[PairedDifference], str]:
    """
    Compare two versions, on the same rows if both can answer them.

    Returns:
        The differences, and why they have no intervals; empty if they have.
    """
    from clewline.model.paired_comparison import compare_on_test_rows  # loads what asks models

    try:
        found = compare_on_test_rows(registry.store, other.package, version.package)
    except (InvalidInput, NotFound, NotSupported) as error:
        return compare_metrics(version, other), error.message
    return [
        PairedDifference(name, each.right.value, each.left.value, each.difference)
        for name, each in found.metrics.items()
    ], ""
