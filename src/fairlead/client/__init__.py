"""
A small typed client of the prediction server: `Client`, and `AsyncClient` for asyncio.

It imports neither the server nor NumPy or Polars; it needs `pip install 'fairlead[client]'`.
"""

from fairlead.client.aio import AsyncClient
from fairlead.client.answers import EndpointInfo, Failure, Logged, Prediction, Predictions
from fairlead.client.failures import Unreachable
from fairlead.client.sync import Client

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
