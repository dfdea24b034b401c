"""The document of the server: whole, bounded, and true, as Schemathesis finds by asking."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from support import wait_for

from clewline.protocols.http.error_responses import STATUS
from clewline.protocols.rest import openapi

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance"
)
EXPECTED = '[checks.not_a_server_error]\nexpected-statuses = ["2xx", "4xx", "503", "504", "507"]\n'
"""504 is due where a request allows no time."""
ROW = {"age": 39, "hours": 40.5, "job": "nurse"}


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        here = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return here.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def test_the_document_names_what_it_refers_to_every_code_and_every_protocol(income):
    document = income.ask("GET", "/openapi.json")[1]
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= known
    error = document["components"]["schemas"]["error"]["properties"]["error"]
    assert set(error["properties"]["code"]["enum"]) == set(STATUS)
    post = document["paths"]["/v1/endpoints/income/predict"]["post"]
    assert "application/vnd.apache.parquet" in post["requestBody"]["content"]
    assert "application/x-ndjson" in post["responses"]["200"]["content"]
    assert {"/v2/models/{name}/infer", "/mlflow/{name}/invocations"} <= document["paths"].keys()
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


def test_every_documented_route_exists(income):
    for path, item in income.ask("GET", "/openapi.json")[1]["paths"].items():
        asked = path.replace("{name}", "income").replace("{version}", "1")
        if "{id}" in path or path.endswith("load"):
            continue
        for method in set(item) & {"get", "post"}:
            _, answer, _ = income.ask(method.upper(), asked, b"{}" if method == "post" else None)
            assert "There is nothing at" not in str(answer), (method, path)


def test_an_endpoint_has_a_document_of_its_own_and_many_are_bounded(income):
    own = income.ask("GET", "/v1/endpoints/income/openapi.json")[1]
    assert own["components"]["schemas"]["income.row"]["required"] == ["age", "hours", "job"]
    endpoint = income.endpoints.endpoints["income"]
    assert len(openapi._typed([endpoint] * 10_000)) == openapi.TYPED_ENDPOINTS


def test_a_document_is_built_once_for_the_revisions_that_it_describes(loans, up, monkeypatch):
    built = []
    build = openapi.document
    monkeypatch.setattr(openapi, "document", lambda *args: built.append(1) or build(*args))
    server = up(loans.project)
    first = server.ask("GET", "/openapi.json")[1]
    assert server.ask("GET", "/openapi.json")[1] == first
    assert server.ask("GET", "/v1/endpoints/income/openapi.json")[1] == first
    assert len(built) == 1
    loans.apply("income@2")
    wait_for(lambda: server.ask("GET", "/v1/endpoints/income")[1]["revision"] == "income#2")
    server.ask("GET", "/openapi.json")
    assert len(built) == 2


def test_an_operator_can_unload_an_endpoint_and_load_it_again(loans, up):
    server = up(loans.project)
    assert server.ask("POST", "/v1/endpoints/income/unload", b"")[0] == 200
    assert server.predict(ROW)[0] == 404
    status, shown, _ = server.ask("POST", "/v1/endpoints/income/load", b"")
    assert (status, shown["revision"]) == (200, "income#1")
    assert server.predict(ROW)[0] == 200
    assert server.ask("POST", "/v1/endpoints/incom/load", b"")[0] == 404


def test_predictions_are_listed_in_pages_newest_first(loans, up):
    server = up(loans.project)
    answer = server.predict({"rows": [ROW] * 5, "entities": list("abcde")})[1]
    ids = [each["id"] for each in answer["predictions"]][::-1]
    first = server.ask("GET", "/v1/predictions?limit=3&endpoint=income")[1]
    assert [each["id"] for each in first["predictions"]] == ids[:3]
    assert (first["predictions"][0]["entity"], first["predictions"][0]["row"]) == ("e", ROW)
    rest = server.ask("GET", f"/v1/predictions?limit=3&before={first['next']}")[1]
    assert [each["id"] for each in rest["predictions"]] == ids[3:]
    for query in ("limit=0", "limit=x", "limit=5000", "limits=3"):
        status, refused, _ = server.ask("GET", f"/v1/predictions?{query}")
        assert (status, refused["error"]["code"]) == (400, "bad_request")


def test_schemathesis_finds_no_answer_that_the_document_does_not_have(income, tmp_path, clients):
    (tmp_path / "schemathesis.toml").write_text(EXPECTED)
    report = tmp_path / "report.json"
    run = subprocess.run(
        [
            *(
                clients / "schemathesis",
                "run",
                f"{income.url}/openapi.json",
                "--seed",
                "7",
                "--no-color",
            ),
            *("--max-examples", "8", "--max-time", "15", "--checks", CHECKS, "--no-shrink"),
            *("--phases", "examples,coverage,fuzzing", "--exclude-path-regex", "load$"),
            *("--generation-database", "none", "--report-json-path", str(report)),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stdout[-6000:]
    assert "passed" in run.stdout
    assert json.loads(report.read_bytes())
    assert income.predict(ROW)[0] == 200
