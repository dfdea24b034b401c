"""A model of another server is explained over HTTP, or fails with its reason in bounded time."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from clewline.cli.main import status
from clewline.errors import InvalidInput, NotSupported, UsageError
from clewline.explain.anchors import AnchorExplanation
from clewline.explain.attributions import AttributionExplanation
from clewline.explain.counterfactuals import CounterfactualExplanation
from clewline.explain.explain_remote import explain_remote, read_background
from clewline.explain.explained_row import Explanation
from clewline.explain.remote_model import RemoteFault
from clewline.protocols.oip.model_metadata import output_tensors
from clewline.signature.field import Output

ROW = {"age": 30, "work": "own"}
ROWS = pl.DataFrame(
    {
        "age": [18 + i * 7 % 60 for i in range(60)],
        "work": [("own", "state", None)[i % 3] for i in range(60)],
        "target": ["?"] * 60,
    }
)
FIELDS = [
    {"name": "age", "datatype": "INT64", "shape": [-1, 1]},
    {"name": "work", "datatype": "BYTES", "shape": [-1]},
]

Tensors = dict[str, list[Any]]
Answer = Callable[[Tensors, int], Any]


def tensor(name: str, datatype: str, data: list[Any], *width: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data), *width], "data": data}


def probability(inputs: Tensors, at: int) -> float:
    return min(1.0, max(0.0, (inputs["age"][at] - 18) / 60 + 0.1 * (inputs["work"][at] == "own")))


def shares(inputs: Tensors, rows: int) -> Any:
    yes = [probability(inputs, at) for at in range(rows)]
    labels = ["yes" if each > 0.5 else "no" for each in yes]
    pairs = [[1 - each, each] for each in yes]
    return [tensor("label", "BYTES", labels), tensor("p", "FP64", pairs, 2)]


def label(inputs: Tensors, rows: int) -> Any:
    found = [int(probability(inputs, at) > 0.5) for at in range(rows)]
    return [tensor("predict", "INT64", [[each] for each in found], 1)]


def value(inputs: Tensors, rows: int) -> Any:
    return [tensor("y", "FP32", [inputs["age"][at] * 2.0 for at in range(rows)])]


@contextmanager
def served(
    answer: Answer, inputs: list[dict[str, Any]] = FIELDS, outputs: Any = ()
) -> Iterator[str]:
    """Serve a model that answers requests by a function; bytes are sent as they are."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send({"name": "m", "inputs": inputs, "outputs": outputs})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = {each["name"]: each["data"] for each in body["inputs"]}
            rows = body["inputs"][0]["shape"][0]
            result = answer(found, rows)
            self.send(result if isinstance(result, bytes) else {"outputs": result})

        def send(self, content: Any) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(500 if data.startswith(b"error") else 200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v2/models/m"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(answer: Answer, kind: str | None = None, **options: Any) -> Explanation:
    with served(answer) as url:
        return explain_remote(url, ROW, ROWS, kind, options)


def test_labels_with_probabilities_are_attributed() -> None:
    found = ask(shares, "attributions", budget=400)
    assert isinstance(found, AttributionExplanation)
    assert (found.status, found.label, found.scale) == ("estimated", "no", "probability")
    assert found.total == pytest.approx(1 - (12 / 60 + 0.1))
    assert (found.prediction, found.package, found.revision, found.id) == (None, None, None, None)
    assert found.model.endswith("/v2/models/m")
    assert (found.background_rows, found.background) == (
        60,
        "the background rows that were given",
    )
    assert ask(shares, "attributions", budget=400).fields == found.fields


def test_labels_are_those_that_the_metadata_of_a_clewline_server_state() -> None:
    described = output_tensors(Output(name="rich", task="binary", labels=("no", "yes")))

    def answer(inputs: Tensors, rows: int) -> Any:
        return [{**shares(inputs, rows)[1], "name": "probabilities"}]

    with served(answer, outputs=msgspec.to_builtins(described)) as url:
        found = explain_remote(url, ROW, ROWS, "attributions", {"budget": 100})
    assert isinstance(found, AttributionExplanation)
    assert found.label == "no"


def test_counterfactuals_are_answered_by_the_remote_model() -> None:
    found = ask(shares, "counterfactuals", to="yes", keep=["work"])
    assert isinstance(found, CounterfactualExplanation)
    assert found.status == "found"
    (change,) = found.counterfactuals[0].changes
    assert change.field == "age"
    assert probability({"age": [change.changed], "work": ["own"]}, 0) > 0.5


def test_anchors_hold_for_a_remote_model() -> None:
    found = ask(shares, "anchors")
    assert isinstance(found, AnchorExplanation)
    assert [each.field for each in found.conditions] == ["age"]


def test_labels_alone_and_values_are_explained() -> None:
    alone = ask(label, "attributions", budget=200)
    assert isinstance(alone, AttributionExplanation)
    assert (alone.label, alone.total) == (0, 1.0)
    changes = ask(label, "counterfactuals", to="1")
    assert isinstance(changes, CounterfactualExplanation)
    assert changes.counterfactuals[0].label == 1
    number = ask(value, "attributions", budget=200)
    assert isinstance(number, AttributionExplanation)
    assert (number.scale, number.total, number.label) == ("value", 60.0, None)


def test_a_model_that_takes_one_matrix_gets_one() -> None:
    seen: list[int] = []

    def answer(inputs: Tensors, rows: int) -> Any:
        seen.append(len(inputs["x"]))
        return [tensor("y", "FP64", [sum(inputs["x"][2 * at : 2 * at + 2]) for at in range(rows)])]

    matrix = [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    table = pl.DataFrame({"a": [1, 2, 3], "b": [0.5, 1.5, 2.5]})
    with served(answer, matrix) as url:
        found = explain_remote(url, {"a": 3, "b": 1.0}, table, "attributions", {"budget": 60})
        with pytest.raises(InvalidInput, match="takes 2 columns; the background rows have 3"):
            explain_remote(url, {}, table.with_columns(c=1), "attributions")
    assert isinstance(found, AttributionExplanation)
    assert found.total == 4.0
    assert seen[0] == 6


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda inputs, rows: b"<html>hello</html>", "is not the Open Inference Protocol"),
        (lambda inputs, rows: b"error: broken", "answered with status 500: error: broken"),
        (lambda inputs, rows: value(inputs, rows - 1), "with the tensor 'y' of shape"),
        (
            lambda inputs, rows: [{**value(inputs, rows)[0], "data": [1.0]}],
            "answered with 1 values in 'y'",
        ),
        (
            lambda inputs, rows: [tensor("y", "FP32", [float("nan")] * rows)],
            "NaN is not JSON",
        ),
        (lambda inputs, rows: [tensor("y", "FP32", [None] * rows)], "not a finite number"),
        (lambda inputs, rows: [tensor("y", "FP32", [True, "x"] * (rows // 2))], "not a finite"),
        (lambda inputs, rows: [], "answers with nothing"),
        (lambda inputs, rows: [tensor("y", "FP32", [[1.0, 2.0]] * rows, 2)], "neither labels"),
        (lambda inputs, rows: b"{" * 100_000, "is not the Open Inference Protocol"),
    ],
)
def test_an_answer_that_cannot_be_used_is_refused_with_the_reason(
    answer: Answer, message: str
) -> None:
    with pytest.raises((RemoteFault, NotSupported), match=message):
        ask(answer, "attributions")


def test_a_change_of_mind_during_the_explanation_is_refused() -> None:
    calls: list[int] = []

    def answer(inputs: Tensors, rows: int) -> Any:
        calls.append(rows)
        return shares(inputs, rows) if len(calls) < 3 else value(inputs, rows)

    with pytest.raises(RemoteFault, match="lacks the tensor"):
        ask(answer, "attributions")


def test_a_model_that_answers_late_is_not_waited_for() -> None:
    release = threading.Event()

    def late(inputs: Tensors, rows: int) -> Any:
        release.wait(60)
        return value(inputs, rows)

    with served(late) as url:
        with pytest.raises(RemoteFault, match=r"did not answer within 0\.2 s"):
            explain_remote(url, ROW, ROWS, "attributions", timeout_s=0.2)
        release.set()


def test_a_model_whose_answer_trickles_in_is_not_waited_for() -> None:
    listener, stop = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def trickle() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            while not stop.wait(0.02):
                connection.sendall(b" ")

    thread = threading.Thread(target=trickle)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v2/models/m"
    with pytest.raises(RemoteFault, match=r"did not answer within 0\.3 s"):
        explain_remote(url, ROW, ROWS, "attributions", timeout_s=0.3)
    stop.set()
    thread.join()
    listener.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file:///etc/passwd", "not the address of a model"),
        ("http://127.0.0.1:1/v2", "not the address of a model"),
        ("http://127.0.0.1:1/v2/models/m", "cannot be asked"),
    ],
)
def test_an_address_without_a_model_is_refused(url: str, message: str) -> None:
    with pytest.raises((UsageError, RemoteFault), match=message):
        explain_remote(url, ROW, ROWS)


def test_rows_that_do_not_fit_are_refused_before_the_model_is_asked() -> None:
    def never(inputs: Tensors, rows: int) -> Any:
        raise AssertionError("the model was asked")

    bad: list[tuple[dict[str, Any], pl.DataFrame]] = [
        ({"age": 30}, ROWS),
        ({"age": "old", "work": "own"}, ROWS),
        (ROW, ROWS.drop("work")),
        (ROW, ROWS.with_columns(age=pl.col("age").cast(pl.String))),
    ]
    with served(never) as url:
        for row, rows in bad:
            with pytest.raises(InvalidInput):
                explain_remote(url, row, rows)


def test_the_command_explains_a_remote_row_and_stores_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # there is no project
    (tmp_path / "row.json").write_text(json.dumps(ROW))
    ROWS.write_parquet(tmp_path / "rows.parquet")
    ROWS.write_csv(tmp_path / "rows.csv")
    assert read_background(tmp_path / "rows.csv").equals(read_background(tmp_path / "rows.parquet"))
    with served(shares) as url:
        call = ["explain", "--remote", url, "--row", "row.json", "--background", "rows.parquet"]
        assert status([*call, "--kind", "attributions", "--budget", "300"]) == 0
        printed = capsys.readouterr().out
        assert f"answered    by {url}\n" in printed
        assert "probability of no" in printed
        assert status([*call, "--kind", "counterfactuals", "--json"]) == 0
        found = msgspec.json.decode(capsys.readouterr().out)
        assert (found["id"], found["status"]) == (None, "found")
        assert status([*call[:5]]) == 2
        assert status([*call, "--output", "q"]) == 2
        assert "has no output 'q'" in capsys.readouterr().err
    assert not (tmp_path / ".clewline").exists()
