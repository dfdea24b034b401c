"""Reading the training sample of a package."""

from __future__ import annotations

import msgspec

from clewline.model.families.family import PROFILE, TRAINING_SAMPLE
from clewline.model.families.sample_file import TrainingSample, decode_sample
from clewline.model.package import Package


class _ProfileRows(msgspec.Struct, frozen=True):
    rows: int


def read_training_sample(package: Package) -> TrainingSample | None:
    """
    Read the training sample of a package.

    Returns:
        None if it has none: an older clewline registered the model, or it was registered without
        rows, or with `sample_rows=0`, or it answers with arrays.

    Raises:
        IntegrityError: The file was changed.
    """
    if TRAINING_SAMPLE not in package.manifest.files:
        return None
    of_rows = msgspec.json.decode(package.files[PROFILE], type=_ProfileRows).rows
    return decode_sample(package.read_file(TRAINING_SAMPLE), package.signature, of_rows)
