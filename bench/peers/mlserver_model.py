"""The ONNX file behind MLServer: a custom runtime, since MLServer has none for ONNX."""

from __future__ import annotations

import json

from income_model import load
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse, RequestInput


def _column(column: RequestInput) -> list[object]:
    if column.datatype == "BYTES":
        texts = StringCodec.decode_input(column)
        return [text or None for text in texts]
    return list(NumpyCodec.decode_input(column).reshape(-1).tolist())


class Income(MLModel):
    """Answers rows that come as one tensor a field."""

    async def load(self) -> bool:
        """Load the model."""
        self._answer = load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer each row."""
        columns = {column.name: _column(column) for column in payload.inputs}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        answers = [json.dumps(self._answer(row)) for row in rows]
        output = StringCodec.encode_output("answers", answers)
        return InferenceResponse(model_name=self.name, outputs=[output])
