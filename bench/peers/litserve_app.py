"""The model behind LitServe, which reads annotations when it starts. Usage: litserve_app.py PORT"""

import sys
from typing import Any

import litserve
from income_model import load


class Income(litserve.LitAPI):
    """One worker, as all servers here."""

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        self._answer = load()

    def decode_request(self, request) -> list[dict[str, Any]]:
        """Take the rows."""
        return list(request["rows"])

    def predict(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answer each row."""
        return [self._answer(row) for row in rows]

    def encode_response(self, output: list[dict[str, Any]]) -> dict[str, Any]:
        """Name the answers."""
        return {"predictions": output}


if __name__ == "__main__":
    server = litserve.LitServer(Income(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
