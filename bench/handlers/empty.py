"""The empty handler: Granian RSGI that reads the body and answers, with no model at all."""

from __future__ import annotations

from typing import Any

HEADERS = [("content-type", "application/json")]
ANSWER = b'{"label":"<=50K","probabilities":{"<=50K":0.97,">50K":0.03}}'


async def app(scope: Any, protocol: Any) -> None:
    """Answer every request alike."""
    await protocol()
    protocol.response_bytes(200, HEADERS, ANSWER)
