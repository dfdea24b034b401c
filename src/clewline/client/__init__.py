"""
A small typed client of the prediction server: `Client`, and `AsyncClient` for asyncio.

It imports neither the server nor NumPy or Polars; it needs httpx (the extra `client`).
"""

from clewline.entry_points import install_command
from clewline.errors import NotSupported

try:
    import httpx  # noqa: F401
except ImportError as error:
    raise NotSupported("The client needs httpx.", install_command("client")) from error

from clewline.client.async_client import AsyncClient
from clewline.client.client import Client
from clewline.client.responses import Unreachable
from clewline.client.results import (
    EndpointFailure,
    EndpointInfo,
    Prediction,
    PredictionRecord,
    PredictResult,
)

__all__ = [
    "AsyncClient",
    "Client",
    "EndpointFailure",
    "EndpointInfo",
    "PredictResult",
    "Prediction",
    "PredictionRecord",
    "Unreachable",
]
