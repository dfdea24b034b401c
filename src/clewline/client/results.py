"""What a server answers, as typed values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from clewline.signature.field import Flag, Signature


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """
    The answer to one row.

    A classifier answers `label`, and `probabilities` if it has them; a regressor or a model of
    tensors answers `value`.
    """

    id: str  # a UUIDv7; `Client.prediction` reads its record
    model: str = ""  # the version that answered, such as `income@3`
    arm: str | None = None  # of a route
    label: str | int | float | bool | None = None
    probabilities: dict[str, float] | None = None  # by label
    value: Any = None  # a number; or nested lists of numbers, of which None is not finite
    set: tuple[Any, ...] | None = None  # conformal: labels of which one is true as often as stated
    interval: tuple[float, float] | None = None  # conformal: holds the true value so often
    action: str | None = None  # the decision of the endpoint's policy
    flags: tuple[Flag, ...] = ()  # values outside the range of the training data


class PredictResult(msgspec.Struct, frozen=True):
    """The answers to one request, one per row, in the order of the rows."""

    revision: str  # of the endpoint, such as `income#12`
    predictions: tuple[Prediction, ...]

    def __len__(self) -> int:
        return len(self.predictions)

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.predictions)

    def __getitem__(self, row: int) -> Prediction:
        return self.predictions[row]


class PredictionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction in the log, and its lineage."""

    id: str
    time: float  # seconds since the epoch
    endpoint: str
    revision: str
    entity: str | None = None  # the entity that the row was about
    row: dict[str, Any]  # as it was sent
    answer: dict[str, Any]  # as it was given, or the error in its place
    line: Any = None  # as `clewline why ID --json` prints it


class StoredExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """An explanation in the catalog."""

    id: str  # a digest of the question
    kind: str
    created: float  # seconds since the epoch
    seconds: float  # that it took
    explanation: dict[str, Any]  # as `Client.explain` returns it


class FailedBackgroundExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why a prediction was not explained in the background."""

    kind: str
    reason: str
    time: float  # seconds since the epoch


class PredictionExplanations(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored about why a prediction was answered so."""

    explanations: list[StoredExplanation]  # the oldest first
    failed: list[FailedBackgroundExplanation] = []


class EndpointFailure(msgspec.Struct, frozen=True):
    """Why the revision that should answer does not."""

    revision: str
    message: str


class EndpointInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a server says of one of its endpoints; the signature comes with `Client.endpoint`."""

    endpoint: str
    ready: bool
    revision: str | None = None
    models: dict[str, str] = {}  # node → version
    failure: EndpointFailure | None = None
    signature: Signature | None = None
