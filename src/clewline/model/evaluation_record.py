"""The evaluation record of a registered version."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from clewline.errors import IntegrityError
from clewline.evaluation.metrics import Interval
from clewline.model.families.family import EVALUATION

if TYPE_CHECKING:
    from clewline.evaluation.report import Report
    from clewline.model.package import Package


def read_evaluation(package: Package) -> Report | None:
    """
    Return the evaluation record of a checked package.

    None if the version was not evaluated, or was registered before packages had this record;
    then its manifest may still hold the metrics.

    Raises:
        IntegrityError: It was changed; or a newer clewline wrote it, and this one cannot read it.
    """
    from clewline.evaluation.report import Report

    if EVALUATION not in package.manifest.files:
        return None
    try:
        return msgspec.json.decode(package.read_file(EVALUATION), type=Report)
    except msgspec.MsgspecError as error:
        raise IntegrityError(
            f"{EVALUATION} of {package.manifest.ref} is sealed, but this version cannot read it: "
            f"{error}.",
            "Use the clewline that wrote it, or a newer one.",
        ) from error


def report_figures(report: Report) -> dict[str, Interval]:
    """
    Return the figures of a report that the gate can ask for, by their names in `gate.yaml`.

    `metrics.accuracy`, `value.gain`, `slices.women.accuracy`, `calibration.ece`,
    `fairness.sex.selection_rate_ratio`; a figure without an interval has both ends at its value.
    """
    found = {f"metrics.{name}": interval for name, interval in report.metrics.items()}
    if value := report.value:
        found |= {
            "value.per_row": value.per_row,
            "value.total": _exactly(value.total),
            "value.gain": value.gain,
        }
    for part in report.slices.given if report.slices else ():
        found |= {f"slices.{part.name}.{name}": each for name, each in part.metrics.items()}
    if report.calibration and report.calibration.curves:
        curve = report.calibration.curves[0]
        found |= {
            "calibration.ece": _exactly(curve.ece),
            "calibration.ece_debiased": curve.ece_debiased,
            "calibration.rms_debiased": _exactly(curve.rms_debiased),
        }
        for name in ("classwise_ece", "slope", "intercept"):
            figure = getattr(report.calibration, name)
            if figure is not None:
                exact = figure if isinstance(figure, Interval) else _exactly(figure)
                found[f"calibration.{name}"] = exact
    for field, groups in (report.fairness.fields if report.fairness else {}).items():
        for rate, disparity in groups.disparities.items():
            found[f"fairness.{field}.{rate}_difference"] = disparity.difference
            if disparity.ratio is not None:
                found[f"fairness.{field}.{rate}_ratio"] = disparity.ratio
    return found


def _exactly(value: float) -> Interval:
    return Interval(value, value, value)
