"""The model as a BentoML service."""

from __future__ import annotations

from typing import Any

import bentoml
from income_model import load


@bentoml.service(workers=1)
class Income:
    """One worker, as all servers here."""

    def __init__(self) -> None:
        self._answer = load()

    @bentoml.api
    def predict(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answer each row."""
        return [self._answer(row) for row in rows]
