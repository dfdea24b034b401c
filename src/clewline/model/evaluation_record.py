"""The evaluation record of a registered version."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from clewline.errors import IntegrityError
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
