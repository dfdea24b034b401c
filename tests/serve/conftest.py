"""Frames as the server makes them."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from fairlead.serve.frame import Frame, Part
from fairlead.store.digest import Digest
from fairlead.store.ids import prediction_ids

MakeFrame = Callable[..., Frame]


@pytest.fixture
def frame() -> MakeFrame:
    """Make a frame of `rows` rows, one part a row unless told otherwise."""

    def make(
        rows: int = 1,
        *,
        endpoint: str = "income",
        ids: bytes | None = None,
        key: str | None = None,
        parts: list[Part] | None = None,
        padding: str = "",
    ) -> Frame:
        if parts is None:
            bodies = [msgspec.json.encode({"age": i, "note": padding}) for i in range(rows)]
            parts = [Part("json", body, 1, [f"c-{i}"], key) for i, body in enumerate(bodies)]
        return Frame(
            ids=b"".join(prediction_ids(rows)) if ids is None else ids,
            endpoint=endpoint,
            revision=12,
            model="income@3",
            package=Digest("ab" * 32),
            time=1_795_000_000.0,
            parts=parts,
            answers=[msgspec.json.encode({"label": "<=50K", "row": i}) for i in range(rows)],
            path=[("model", 81.0)],
        )

    return make
