"""
A small typed client of the prediction server: `Client`, and `AsyncClient` for asyncio.

It imports neither the server nor NumPy or Polars; it needs httpx (the extra `client`).
"""

from clewline.client.aio import AsyncClient
from clewline.client.answers import EndpointInfo, Failure, Logged, Prediction, Predictions
from clewline.client.failures import Unreachable
from clewline.client.sync import Client

__all__ = [
    "AsyncClient",
    "Client",
    "EndpointInfo",
    "Failure",
    "Logged",
    "Prediction",
    "Predictions",
    "Unreachable",
]
