"""Calls of an endpoint to copy: by curl, Python, Triton's client and MLflow's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pprint import pformat
from typing import Any
from urllib.parse import quote, urlsplit

from clewline.signature.field import Field

_DATATYPES = {"number": "FP64", "integer": "INT64", "boolean": "BOOL"}
_NUMPY = {"number": "float64", "integer": "int64", "boolean": "bool"}


def example_row(fields: Sequence[Field]) -> dict[str, Any]:
    """
    Return a row that the fields accept: the middle of bounds, the first level.

    >>> example_row([Field(name="age", kind="integer", bounds=(17.0, 90.0))])
    {'age': 53}
    """
    return {field.name: _example(field) for field in fields}


def _example(field: Field) -> Any:
    low, high = field.bounds or (0.0, 1.0)
    match field.kind:
        case "number":
            return float(f"{(low + high) / 2:.4g}")
        case "integer":
            return int((low + high) // 2)
        case "boolean":
            return True
        case "datetime":
            return field.bound_texts()[0] if field.bounds else "2026-01-01T00:00:00Z"
        case "tensor":
            return _zeros(field.shape or ())
        case _:
            return field.levels[0] if field.levels else "text"


def _zeros(shape: Sequence[int]) -> Any:
    if not shape:
        return 0.0
    return [_zeros(shape[1:]) for _ in range(shape[0])]


def example_calls(
    url: str, endpoint: str, fields: Sequence[Field], *, needs_token: bool = False
) -> dict[str, str]:
    """
    Write calls with one example row.

    Args:
        url: Of the prediction server.
        endpoint: Its name.
        fields: That it takes.
        needs_token: Whether a call must present a token.

    Returns:
        Name of the client → what to type or to run. Triton's is left out where a field is a
        tensor, a text that may be anything or a date, which need more than an example.
    """
    row = example_row(fields)
    body = json.dumps({"rows": [row]}, ensure_ascii=False)
    shown = pformat([row], width=88, sort_dicts=False)
    name = quote(endpoint, safe="")
    token = ' -H "Authorization: Bearer $CLEWLINE_TOKEN"' if needs_token else ""
    quoted = body.replace("'", "'\\''")
    python_token = ', token=os.environ["CLEWLINE_TOKEN"]' if needs_token else ""
    os_import = "import os\n\n" if needs_token else ""
    calls = {
        "curl": f"curl {url}/v1/endpoints/{name}/predict{token} \\\n"
        f"  -H 'Content-Type: application/json' -d '{quoted}'",
        "Python": f"{os_import}from clewline.client import Client\n\n"
        f"rows = {shown}\n"
        f"with Client({url!r}{python_token}) as client:\n"
        f"    print(client.predict({endpoint!r}, rows)[0])",
    }
    if all(field.kind in _DATATYPES or field.kind == "category" for field in fields):
        calls["tritonclient"] = _triton_call(url, endpoint, fields, row, needs_token)
    headers = 'headers={"Authorization": f"Bearer {os.environ[\'CLEWLINE_TOKEN\']}"}, '
    calls["MLflow"] = (
        f"{os_import}import pandas as pd\nimport requests\n"
        "from mlflow.deployments import PredictionsResponse\n\n"
        f"rows = pd.DataFrame({shown})\n"
        "answer = requests.post(\n"
        f"    {f'{url}/mlflow/{name}/invocations'!r}, {headers if needs_token else ''}timeout=30,\n"
        '    json={"dataframe_split": rows.to_dict("split", index=False)},\n'
        ")\n"
        "print(PredictionsResponse.from_json(answer.text).get_predictions())"
    )
    return calls


def _triton_call(
    url: str, endpoint: str, fields: Sequence[Field], row: dict[str, Any], needs_token: bool
) -> str:
    typed = {
        field.name: (
            _DATATYPES.get(field.kind, "BYTES"),
            _NUMPY.get(field.kind, "object"),
            row[field.name],
        )
        for field in fields
    }
    lines = [
        *(["import os", ""] if needs_token else []),
        "import numpy as np",
        "import tritonclient.http as triton",
        "",
        f"fields = {pformat(typed, width=88, sort_dicts=False)}",
        "inputs = []",
        "for name, (datatype, dtype, value) in fields.items():",
        "    inputs.append(triton.InferInput(name, [1], datatype))",
        "    inputs[-1].set_data_from_numpy(np.array([value], dtype=dtype))",
    ]
    head = '{"Authorization": "Bearer " + os.environ["CLEWLINE_TOKEN"]}'
    headers = f", headers={head}" if needs_token else ""
    lines += [
        f"client = triton.InferenceServerClient({urlsplit(url).netloc!r}"
        f"{', ssl=True' if url.startswith('https') else ''})",
        f"print(client.infer({endpoint!r}, inputs{headers}).get_response())",
    ]
    return "\n".join(lines)
