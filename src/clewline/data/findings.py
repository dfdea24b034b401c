"""
What an assessment found, ordered by harm: codes and numbers.

The sentences for people stand in `clewline.data.finding_text`, by `code`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Severity = Literal["harmful", "doubtful", "note"]


class DataFinding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing in a table that may harm a model trained on it."""

    code: str  # such as "leak"
    harm: float  # from 0 to 1, the largest first
    fields: list[str] = []
    values: dict[str, Any] = {}  # the numbers of the case

    @property
    def severity(self) -> Severity:
        """The harm as a word."""
        return "harmful" if self.harm >= 0.7 else "doubtful" if self.harm >= 0.3 else "note"
