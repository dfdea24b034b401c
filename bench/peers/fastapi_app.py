"""A server as one writes it by hand with FastAPI: typed rows, one endpoint."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from income_model import load
from pydantic import BaseModel

answer = load()
app = FastAPI()


class Request(BaseModel):
    """The rows of a request."""

    rows: list[dict[str, Any]]


@app.post("/predict")
async def predict(request: Request) -> dict[str, Any]:
    """Answer each row."""
    return {"predictions": [answer(row) for row in request.rows]}
