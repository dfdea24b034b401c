"""Sends the test rows to the server, as any client would, and prints one prediction."""

import json
import sys
import urllib.request

from pipelines.tumours import TARGET, load, split


def predict(address: str, rows: list[dict]) -> list[dict]:
    """Ask the endpoint for the predictions of some rows."""
    request = urllib.request.Request(
        f"{address}/v1/endpoints/tumours/predict",
        data=json.dumps({"rows": rows}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)["predictions"]


def main(address: str) -> None:
    _, test = split(load())
    truth = test[TARGET].to_list()
    answers = [predict(address, [row])[0] for row in test.drop(TARGET).to_dicts()]
    right = sum(answer["label"] == label for answer, label in zip(answers, truth, strict=True))
    print(f"{right} of {len(answers)} test rows predicted correctly", file=sys.stderr)
    print(json.dumps(answers[0]))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8470")
