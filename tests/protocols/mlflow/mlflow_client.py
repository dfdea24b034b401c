"""
What MLflow's own client makes of a running server; run by its own Python, prints JSON.

    mlflow_client.py PORT
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pandas as pd
import requests
from mlflow.deployments import PredictionsResponse
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

FRAME = pd.DataFrame({"age": [39, 40, 120], "hours": [40.5, 1, 2], "job": ["nurse", "smith", None]})
RECORDS = FRAME.to_dict("records")
FLOATS = FRAME.assign(age=FRAME["age"].astype(float))  # as pandas makes integers with nulls


def predicted(answer: PredictionsResponse) -> list[Any]:
    return list(answer.get_predictions()[0])


def main(port: str) -> dict[str, Any]:
    client = ScoringServerClient("127.0.0.1", port)
    client.wait_server_ready(timeout=10)
    posted = f"http://127.0.0.1:{port}/mlflow/income/invocations"
    found: dict[str, Any] = {
        "version": client.get_version(),
        "split": predicted(client.invoke(FRAME)),
        "floats": predicted(client.invoke(FLOATS)),
        "indexed": predicted(client.invoke(FRAME.set_index(pd.Index(["a", "b", "c"])))),
        "params": predicted(client.invoke(FRAME, params={"temperature": 0.5})),
        "records": predicted(client.invoke(json.dumps({"dataframe_records": RECORDS}))),
        "lists": predicted(client.invoke(FRAME.to_numpy(object).tolist())),
        "inputs": predicted(client.invoke(json.dumps({"inputs": FRAME.to_dict("list")}))),
        "instances": predicted(client.invoke(json.dumps({"instances": RECORDS}))),
    }
    csv = requests.post(
        posted, data=FRAME.to_csv(index=False), headers={"Content-Type": "text/csv"}, timeout=10
    )
    found["csv"] = predicted(PredictionsResponse.from_json(csv.text))
    answer = client.invoke(FRAME)
    found["ids"] = answer["prediction_ids"]
    found["array"] = answer.get_predictions("ndarray", np.object_).tolist()
    try:
        client.invoke(FRAME.drop(columns="job"))
    except Exception as error:
        found["refused"] = str(error)
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
