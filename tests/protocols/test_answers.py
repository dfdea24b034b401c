"""Every kind of answer, through every protocol and every reader: the documented form, or a failure.

A model answers what a row tells it to. What that is worth is decided once (docs/formats.md): a
number of the signature's kind is answered bit for bit, one that is not finite is null or NaN,
and anything else is `model_failed`, in every protocol and for every reader.
"""

from __future__ import annotations

import asyncio
import csv
import http.client
import io
import math
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import msgspec
import numpy as np
import onnx
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from projects import make_project
from sklearn.linear_model import LinearRegression, LogisticRegression

from clewline.cli.main import status
from clewline.client import Client
from clewline.errors import InvalidInput, MalformedInput, ModelFailed, UsageError
from clewline.model.package import PackageMetadata
from clewline.model.register import convert_model
from clewline.model.registry import Registry
from clewline.protocols.http.health import ServerHealth
from clewline.protocols.http.host_check import HostCheck
from clewline.protocols.http.request import HttpLimits
from clewline.protocols.oip.grpc import OipGrpcServer
from clewline.protocols.oip.grpc_messages import CLASSES, SERVICE
from clewline.protocols.rest.routes import RestRoutes
from clewline.serve import revision
from clewline.serve.access import TokenChecker
from clewline.serve.endpoint_file import parse_endpoint
from clewline.store.store import Store

SOURCE = """
import datetime as dt
from decimal import Decimal
from fractions import Fraction

import numpy as np

NAMES = {"np": np, "dt": dt, "Decimal": Decimal, "Fraction": Fraction, "nan": float("nan"),
         "inf": float("inf")}

class Said:
    def predict(self, rows):
        said = [eval(row["said"], dict(NAMES)) for row in rows]
        return said[0](rows) if callable(said[0]) else said

class Moment:
    def predict(self, rows):
        epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
        return [(row["said"] - epoch) // dt.timedelta(microseconds=1) for row in rows]
"""
TEXTS = (
    *(
        "",
        " ",
        "a",
        'a"b',
        "a\nb",
        "a\r\nb",
        "nul\x00l",
        "100%d",
        "%",
        "é😀\ud7ff",
        "=1+1",
        "a,b;c",
    ),
    *(
        "null",
        "NaN",
        "true",
        "1",
        "\\",
        "\t",
        "'",
        "\u2028",
        "label",
        "probabilities",
        "value",
        "x" * 300,
    ),
)
WHOLE = (0, 1, -1, 7, 2**53 - 1, -(2**53) + 1)
LABELS: dict[str, tuple[Any, ...]] = {
    "text": TEXTS,  # quotes, line ends, NUL, formats of Python and of spreadsheets
    "whole": WHOLE,
    "truth": (False, True),
}
TOLD = ("amount", *LABELS)
NUMERIC = ("amount", "moment")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DTYPES = ("float16", "float32", "float64", "int8", "int64", "uint64", "bool")
ALL = (*TOLD, "moment", "line", "side", *DTYPES)


@pytest.fixture(scope="module")
def answers(
    tmp_path_factory: pytest.TempPathFactory, module_up: Callable[..., Any]
) -> Iterator[Answers]:
    root = tmp_path_factory.mktemp("answers")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root)
        patch.chdir(root)
        project = make_project(root, "answers")
        (root / "said_model.py").write_text(SOURCE)
        from said_model import Moment, Said  # type: ignore[import-not-found]

        with Store.open(project.store_root) as store:
            registry = Registry(project, store)

            def serve(name: str, made: Any) -> None:
                about = PackageMetadata(
                    name=name, number=0, runtime=made.compiled.runtime,
                    task=made.signature.output.task, target="y", created=0.0,
                )  # fmt: skip
                registry.add(made.files, about)
                text = f"endpoint: {name}\nmodel: {name}@1\n".encode()
                revision.apply(project, store, parse_endpoint(text, Path(f"{name}.yaml")))

            for name in TOLD:
                known: Any = LABELS.get(name, (0.5, 1.5, 2.5))
                said = [repr(known[at % len(known)]) + " " * at for at in range(400)]
                target = [known[at % len(known)] for at in range(400)]
                train = pl.DataFrame({"said": said, "y": target})
                serve(name, convert_model(Said(), train=train, test=train[:9], target="y"))
            moments = [EPOCH + timedelta(days=at, microseconds=at) for at in range(400)]
            train = pl.DataFrame(
                {"said": moments, "y": [(at - EPOCH) / timedelta(microseconds=1) for at in moments]}
            )
            serve("moment", convert_model(Moment(), train=train, test=train[:9], target="y"))
            for name, model, table, target in fitted():
                train = table.with_columns(y=target)
                serve(name, convert_model(model, train=train, test=train[:50], target="y"))
            for dtype in DTYPES:
                train = pl.DataFrame({"a": [1.0, 2.0] * 9, "b": [3.0, 0.0] * 9})
                serve(dtype, convert_model(array_file(root, dtype), train=train))
        found = Answers(module_up(project))
        yield found
        found.close()


def fitted() -> Iterator[tuple[str, Any, pl.DataFrame, Any]]:
    """Models of libraries that answer infinity and NaN where their numbers overflow."""
    random = np.random.default_rng(3)
    table = pl.DataFrame(random.uniform(0, 1e-3, (200, 2)), schema=["a", "b"])
    difference = (table["a"] - table["b"]).to_numpy()
    value = LinearRegression().fit(table, difference * 1e9)
    yield "line", value, table, difference * 1e9
    label = np.digitize(difference, [-3e-4, 3e-4]).astype(str)
    side = LogisticRegression().fit(table, label)
    side.coef_ = np.array([[1e5, 1e5], [1e5, 1e5], [-1.0, 0.0]])  # infinity less infinity
    yield "side", side, table, label


def array_file(folder: Path, dtype: str) -> Path:
    """A file of ONNX that answers two fields as an array of a type, with x·1e300 and x/x."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    pair: list[Any] = ["rows", 2]
    huge = helper.make_node("Constant", [], ["huge"], value_float=1e30)
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=kind)]
    if dtype.startswith("float"):
        nodes = [
            huge,
            helper.make_node("Mul", ["x", "huge"], ["product"]),
            helper.make_node("Div", ["x", "x"], ["ratio"]),
            helper.make_node("Concat", ["product", "ratio"], ["both"], axis=1),
            helper.make_node("Cast", ["both"], ["y"], to=kind),
        ]
    graph = helper.make_graph(
        nodes,
        "array",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, pair)],
        [helper.make_tensor_value_info("y", kind, ["rows", 4] if len(nodes) > 1 else pair)],
    )
    opsets = [helper.make_opsetid("", 17)]
    path = folder / f"{dtype}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


class Answers:
    """The server of models that answer what they are told, asked through every protocol."""

    def __init__(self, up: Any) -> None:
        self.up = up
        self.log = up.project.log
        self.client = Client(up.url, retries=0)
        self._said: dict[str, str] = {}
        health = ServerHealth()
        ready = RestRoutes(up.endpoints, health).ready
        checker = TokenChecker(up.project)
        self._served = OipGrpcServer(
            up.endpoints, checker, ready, health, HostCheck(), HttpLimits()
        )

        async def start() -> int:
            port = self._served.listen("127.0.0.1", 0)
            await self._served.start()
            return port

        port = asyncio.run_coroutine_threadsafe(start(), up._loop).result(60)
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.schemas = {
            name: up.ask("GET", f"/v1/endpoints/{name}/openapi.json")[1]["components"]["schemas"]
            for name in ALL
        }

    def close(self) -> None:
        self.client.close()
        self._channel.close()
        asyncio.run_coroutine_threadsafe(self._served.drain(), self.up._loop).result(60)

    # ---- each gives (ids, answers, probabilities or None); raises ModelFailed

    def _post(self, path: str, body: bytes, kind: str, accept: str = "*/*") -> tuple[bytes, str]:
        headers = {"content-type": kind, "accept": accept}
        found, answer, more = self.up.ask("POST", path, body, **headers)
        if found != 200:
            error = answer.get("error")
            code = error["code"] if isinstance(error, dict) else answer["code"]
            assert (found, code) in EXPECTED, answer
            raise EXPECTED[found, code](str(answer))
        return answer, more["content-type"]

    def raw(self, method: str, path: str, body: bytes, **headers: str) -> tuple[bytes, Any]:
        """Give the bytes of an answer and its headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.up.port, timeout=60)
        try:
            connection.request(method, path, body, {"content-type": "application/json"} | headers)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            (kind,) = (
                each
                for (s, c), each in EXPECTED.items()
                if s == answer.status and c.encode() in data
            )
            raise kind(str(data))
        return data, answer.headers

    def rest(self, endpoint: str, said: list[str], accept: str = "*/*") -> Any:
        body = msgspec.json.encode({"rows": [{"said": each} for each in said]})
        path = f"/v1/endpoints/{endpoint}/predict"
        return self._post(path, body, "application/json", accept)[0]

    def native(self, endpoint: str, said: list[str]) -> Told:
        answer = self.rest(endpoint, said)
        schema = {"$ref": f"#/components/schemas/{endpoint}.prediction"}
        for each in answer["predictions"]:
            assert not list(violations(each, schema, self.schemas[endpoint])), each
        return told_by(answer["predictions"])

    def columns(self, endpoint: str, said: list[str]) -> Told:
        body = msgspec.json.encode({"columns": {"said": said}})
        path = f"/v1/endpoints/{endpoint}/predict"
        return told_by(self._post(path, body, "application/json")[0]["predictions"])

    def lines(self, endpoint: str, said: list[str]) -> Told:
        text = self.rest(endpoint, said, "application/x-ndjson")
        return told_by([msgspec.json.decode(line) for line in text.split("\n")[:-1]])

    def csv(self, endpoint: str, said: list[str]) -> Told:
        """Sent and answered as CSV: an empty cell of numbers is null."""
        out = io.StringIO()
        csv.writer(out).writerows([["said"], *([each] for each in said)])
        path, body = f"/v1/endpoints/{endpoint}/predict", out.getvalue().encode()
        text = self._post(path, body, "text/csv", "text/csv")[0]
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        shares = [
            [number(v) for k, v in row.items() if k.startswith("probability_")] for row in rows
        ]
        if endpoint in NUMERIC:
            values: list[Any] = [number(row["value"]) for row in rows]
        elif endpoint == "text":
            values = [row["label"] for row in rows]
        else:
            values = [msgspec.json.decode(row["label"]) for row in rows]
        return Told([row["id"] for row in rows], values, shares if shares[0] else None)

    def arrow(self, endpoint: str, said: list[str]) -> Told:
        out = io.BytesIO()
        pl.DataFrame({"said": said}).write_ipc_stream(out)
        kind, path = "application/vnd.apache.arrow.stream", f"/v1/endpoints/{endpoint}/predict"
        headers = {"content-type": kind, "accept": kind}
        raw = self.raw("POST", path, out.getvalue(), **headers)[0]
        rows = pl.read_ipc_stream(raw).to_dicts()
        name = "value" if endpoint in NUMERIC else "label"
        shares = [[v for k, v in row.items() if k.startswith("probability_")] for row in rows]
        values = [row[name] for row in rows]
        return Told([row["id"] for row in rows], values, shares if shares[0] else None)

    def parquet(self, endpoint: str, said: list[str]) -> Told:
        out = io.BytesIO()
        pl.DataFrame({"said": said}).write_parquet(out)
        path = f"/v1/endpoints/{endpoint}/predict"
        kind = "application/vnd.apache.parquet"
        return told_by(self._post(path, out.getvalue(), kind)[0]["predictions"])

    def mlflow(self, endpoint: str, said: list[str]) -> Told:
        body = msgspec.json.encode({"inputs": [{"said": each} for each in said]})
        path = f"/mlflow/{endpoint}/invocations"
        answer = self._post(path, body, "application/json")[0]
        return Told(answer["prediction_ids"], answer["predictions"], None)

    def oip(self, endpoint: str, said: list[str]) -> Told:
        tensor = {"name": "said", "datatype": "BYTES", "shape": [len(said)], "data": said}
        body = msgspec.json.encode({"inputs": [tensor]})
        answer = self._post(f"/v2/models/{endpoint}/infer", body, "application/json")[0]
        outputs = {each["name"]: each["data"] for each in answer["outputs"]}
        return self._told(answer["parameters"]["prediction_ids"], outputs, len(said))

    def oip_binary(self, endpoint: str, said: list[str]) -> Told:
        tensor = {"name": "said", "datatype": "BYTES", "shape": [len(said)], "data": said}
        content = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
        path, body = f"/v2/models/{endpoint}/infer", msgspec.json.encode(content)
        raw, headers = self.raw("POST", path, body)
        end = int(headers["inference-header-content-length"])
        head, rest = msgspec.json.decode(raw[:end]), raw[end:]
        outputs = {}
        for each in head["outputs"]:
            size = each["parameters"]["binary_data_size"]
            outputs[each["name"]] = elements(each["datatype"], rest[:size])
            rest = rest[size:]
        assert not rest
        return self._told(head["parameters"]["prediction_ids"], outputs, len(said))

    def grpc(self, endpoint: str, said: list[str], *, raw: bool = False) -> Told:
        message = CLASSES["ModelInferRequest"](model_name=endpoint)
        tensor = message.inputs.add(name="said", datatype="BYTES", shape=[len(said)])
        texts = [each.encode() for each in said]
        if raw:
            packed = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
            message.raw_input_contents.append(packed)
        else:
            tensor.contents.bytes_contents.extend(texts)
        call = self._channel.unary_unary(f"/{SERVICE}/ModelInfer")
        try:
            data = call(message.SerializeToString(), timeout=60)
        except grpc.RpcError as error:
            codes = {code: kind for (_, code), kind in EXPECTED.items()}
            code = dict(error.trailing_metadata()).get("clewline-code")
            if code not in codes:
                raise
            raise codes[code](str(error.details())) from error
        answer = CLASSES["ModelInferResponse"].FromString(data)
        outputs = {}
        for place, each in enumerate(answer.outputs):
            if raw:
                outputs[each.name] = elements(each.datatype, answer.raw_output_contents[place])
            else:
                contents = each.contents
                kind = next(name for name in CONTENTS if getattr(contents, name))
                outputs[each.name] = list(getattr(contents, kind))
                if kind == "bytes_contents":
                    outputs[each.name] = [text.decode() for text in outputs[each.name]]
        ids = answer.parameters["prediction_ids"].string_param
        return self._told(ids, outputs, len(said))

    def grpc_raw(self, endpoint: str, said: list[str]) -> Told:
        return self.grpc(endpoint, said, raw=True)

    def python(self, endpoint: str, said: list[str]) -> Told:
        result = self.client.predict(endpoint, [{"said": each} for each in said])
        return told_by([msgspec.to_builtins(each) for each in result])

    def python_table(self, endpoint: str, said: list[str]) -> Told:
        result = self.client.predict(endpoint, pl.DataFrame({"said": said}))
        return told_by([msgspec.to_builtins(each) for each in result])

    def _told(self, ids: str, outputs: dict[str, list[Any]], rows: int) -> Told:
        shares = outputs.get("probabilities")
        cut = None
        if shares is not None:
            width = len(shares) // rows
            cut = [shares[at : at + width] for at in range(0, len(shares), width)]
        return Told(ids.split(","), outputs.get("value", outputs.get("label", [])), cut)


EXPECTED = {
    (500, "model_failed"): ModelFailed,
    (422, "invalid_input"): InvalidInput,
    (400, "malformed_input"): MalformedInput,
}
PROTOCOLS = (
    *(Answers.native, Answers.columns, Answers.lines, Answers.csv, Answers.arrow, Answers.parquet),
    *(Answers.mlflow, Answers.oip, Answers.oip_binary, Answers.grpc, Answers.grpc_raw),
    *(Answers.python, Answers.python_table),
)
CONTENTS = ("bytes_contents", "fp64_contents", "int64_contents", "bool_contents")


class Told:
    """What a protocol answered, as Python values; NaN stands for a number that is not finite."""

    def __init__(self, ids: list[str], values: list[Any], shares: list[list[Any]] | None) -> None:
        self.ids = ids
        self.values = [math.nan if value is None else value for value in values]
        self.shares = shares


def told_by(predictions: list[dict[str, Any]]) -> Told:
    """Take apart the predictions of native JSON."""
    ids = [each["id"] for each in predictions]
    if all(each.get("label") is None for each in predictions):
        return Told(ids, [each["value"] for each in predictions], None)
    shares = [list((each.get("probabilities") or {}).values()) for each in predictions]
    labels = [each["label"] for each in predictions]
    return Told(ids, labels, shares if shares[0] else None)


def number(text: str) -> float | None:
    return float(text) if text else None


def elements(datatype: str, raw: bytes) -> list[Any]:
    """Read a raw tensor."""
    if datatype != "BYTES":
        dtypes = {"FP64": "<f8", "INT64": "<i8", "BOOL": "?"}
        return np.frombuffer(raw, dtypes[datatype]).tolist()
    found, at = [], 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "little")
        found.append(raw[at + 4 : at + 4 + size].decode())
        at += 4 + size
    return found


KINDS: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def violations(value: Any, schema: dict[str, Any], schemas: dict[str, Any]) -> Iterator[str]:
    """Yield what a value breaks of a JSON Schema, of the keywords that our documents use."""
    if "$ref" in schema:
        yield from violations(value, schemas[schema["$ref"].rpartition("/")[2]], schemas)
    kinds = schema.get("type", list(KINDS))
    if not any(KINDS[kind](value) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        yield f"{value!r} is not {kinds}"
    if "enum" in schema and not any(same(value, each) for each in schema["enum"]):
        yield f"{value!r} is none of {schema['enum']}"
    if isinstance(value, dict):
        yield from (
            f"{name} is missing" for name in schema.get("required", ()) if name not in value
        )
        for name, part in schema.get("properties", {}).items():
            if name in value:
                yield from violations(value[name], part, schemas)
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            yield f"{len(value)} items"
        for item in value:
            yield from violations(item, schema.get("items", {}), schemas)


def same(one: Any, other: Any) -> bool:
    """Compare as JSON tells values apart, and numbers by their bits."""
    if isinstance(one, bool) or isinstance(other, bool) or isinstance(one, str):
        return type(one) is type(other) and one == other
    if isinstance(other, str):
        return False
    return (math.isnan(one) and math.isnan(other)) or np.float64(one).tobytes() == np.float64(
        other
    ).tobytes()


NAMES: dict[str, Any] = {}
exec(SOURCE.partition("class Said")[0], NAMES)  # what the model knows


def amount(said: str) -> float | None:
    """Return what a row's answer is worth as a number, by the documented rule; None if nothing."""
    value = eval(said, dict(NAMES["NAMES"]))
    if isinstance(value, dict):
        value = value.get("value", value)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64 | np.timedelta64):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int) and (abs(value) > 2**1023 or int(float(value)) != value):
        return None
    return float(value) if math.isfinite(value) else None


floats = st.floats(allow_nan=True, allow_infinity=True, width=64).map(repr)
moments = st.datetimes(datetime.min, datetime.max).map(lambda at: f"dt.{repr(at)[9:]}")
ODD = st.sampled_from(
    [
        *("None", "True", "np.bool_(True)", "[]", "[1.5]", "[1.5, 2.5]", "[[1.5]]", "{}", "()"),
        *("'1.5'", "'a\"b'", "'a\\nb'", "'nul\\x00l'", "'\\ud800'", "b'1.5'", "b'\\xff'", "''"),
        *("10**15", "2**53", "2**53 + 1", "2**63", "-2**63", "10**400", "10**5000", "-(10**22)"),
        *("Decimal('1.1')", "Decimal('NaN')", "Fraction(1, 3)", "1.5j", "inf", "-inf", "nan"),
        *("np.float32(0.1)", "np.float16(0.1)", "np.int64(2**53 + 1)", "np.uint64(2**64 - 1)"),
        *("np.longdouble(1) / 3", "np.float64('nan')", "np.array(1.5)", "np.array([1.5])"),
        *("np.array([])", "np.array([1.5, 2.5])", "np.ma.masked", "Ellipsis", "{'value': inf}"),
        *("{'value': None}", "{'value': 1.5, 'more': 2}", "dt.date(1, 1, 1)", "dt.timedelta(1)"),
        *(
            "np.datetime64('2020-01-01T00:00:00.000001')",
            "np.datetime64(5, 'ns')",
            "-0.0",
            "5e-324",
        ),
        *("np.timedelta64(5, 'ns')", "dt.datetime.max", "dt.datetime.max.replace(tzinfo=dt.UTC)"),
        *("lambda rows: [1.5] * (len(rows) + 1)", "lambda rows: []", "lambda rows: None"),
        *("lambda rows: np.zeros((len(rows), 0))", "lambda rows: 1/0", "lambda rows: rows"),
        *(
            "lambda rows: np.zeros(0)",
            "lambda rows: 'x' * len(rows)",
            "lambda rows: exit()",
            "lambda rows: iter(rows)",
        ),
        *("lambda rows: np.array([5] * len(rows), 'M8[ns]')", "[].append", "print", "float"),
    ]
)
said_amounts = st.one_of(floats, st.integers().map(str), moments, ODD)


@settings(max_examples=40)
@given(said_amounts, st.booleans())
@example("1e400", False)
@example("dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1)))", False)
def test_a_number_is_the_same_everywhere_or_the_call_failed(
    answers: Answers, said: str, alone: bool
) -> None:
    texts = [said] if alone else [said, "0.1"]
    wanted = [amount(each) for each in texts]
    for ask in PROTOCOLS:
        try:
            told = ask(answers, "amount", texts)
        except ModelFailed:
            assert None in wanted, (ask.__name__, said)
            continue
        assert None not in wanted, (ask.__name__, said, told.values)
        assert all(map(same, told.values, wanted)), (ask.__name__, told.values, wanted)
        assert len(told.values) == len(wanted)


@pytest.mark.parametrize("endpoint", LABELS)
def test_a_label_is_the_same_everywhere(answers: Answers, endpoint: str) -> None:
    labels = list(LABELS[endpoint])
    texts = [repr(label) for label in labels]
    for ask in PROTOCOLS:
        told = ask(answers, endpoint, texts)
        assert all(map(same, told.values, labels)), (ask.__name__, told.values)
        assert len(told.values) == len(labels)


@settings(max_examples=15)
@given(st.data())
def test_probabilities_are_the_same_everywhere_or_the_call_failed(
    answers: Answers, data: st.DataObject
) -> None:
    endpoint = data.draw(st.sampled_from(list(LABELS)))
    labels = sorted(LABELS[endpoint])
    weights = data.draw(
        st.lists(st.floats(0, 1), min_size=len(labels), max_size=len(labels)).filter(any)
    )
    shares = [weight / sum(weights) for weight in weights]
    odd = data.draw(st.sampled_from([None, math.nan, math.inf, -math.inf, 2.0, -1.0]))
    if odd is not None:
        shares[0] = odd
    text = f"dict(zip({labels!r}, {shares!r}))"
    for ask in PROTOCOLS:
        try:
            told = ask(answers, endpoint, [text])
        except ModelFailed:
            assert odd is not None, ask.__name__
            continue
        assert odd is None, (ask.__name__, told.shares)
        assert same(told.values[0], labels[int(np.argmax(shares))])
        if told.shares is not None:  # MLflow has none
            assert all(map(same, told.shares[0], shares)), (ask.__name__, told.shares, shares)
        else:
            assert ask is Answers.mlflow


NUMBERS = {"a": 1e308, "b": 1e308}


def test_what_a_library_cannot_compute_is_a_failed_model(answers: Answers) -> None:
    for endpoint in ("line", "side"):
        for row, wanted in (({"a": 0.5, "b": 0.25}, 200), (NUMBERS, 500)):
            rows = {"rows": [{"a": 0.5, "b": 0.25}, row]}
            found, answer, _ = answers.up.predict(rows, endpoint)
            assert found == wanted, answer
            tensors = [
                {"name": name, "datatype": "FP64", "shape": [1], "data": [value]}
                for name, value in row.items()
            ]
            body = msgspec.json.encode({"inputs": tensors})
            assert answers.up.ask("POST", f"/v2/models/{endpoint}/infer", body)[0] == wanted
            body = msgspec.json.encode({"inputs": [row]})
            headers = {"content-type": "application/json"}
            path = f"/mlflow/{endpoint}/invocations"
            assert answers.up.ask("POST", path, body, **headers)[0] == wanted


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_array_is_the_same_everywhere(answers: Answers, dtype: str) -> None:
    rows = [{"a": 1.5, "b": 0.0}, {"a": 3.0, "b": -2.0}]
    x = np.array([[row["a"], row["b"]] for row in rows], np.float32)
    with np.errstate(all="ignore"):
        y = np.hstack([x * np.float32(1e30), x / x]) if dtype.startswith("float") else x
        y = y.astype(dtype)
    wanted = [
        [None if each != each or abs(each) == math.inf else each for each in row]
        for row in y.tolist()
    ]
    body = msgspec.json.encode({"rows": rows})
    path = f"/v1/endpoints/{dtype}/predict"

    def post(path: str, body: bytes, accept: str = "*/*") -> Any:
        headers = {"content-type": "application/json", "accept": accept}
        found, answer, _ = answers.up.ask("POST", path, body, **headers)
        assert found == 200, answer
        return answer

    native = post(path, body)["predictions"]
    schema = {"$ref": f"#/components/schemas/{dtype}.prediction"}
    for each in native:
        assert not list(violations(each, schema, answers.schemas[dtype])), each
    assert [each["value"] for each in native] == wanted
    text = post(path, body, "text/csv")
    found = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [msgspec.json.decode(each["value"]) for each in found] == wanted
    lines = post(path, body, "application/x-ndjson").split("\n")[:-1]
    assert [msgspec.json.decode(each)["value"] for each in lines] == wanted
    arrow = answers.raw("POST", path, body, accept="application/vnd.apache.arrow.stream")[0]
    assert pl.read_ipc_stream(arrow)["value"].to_list() == wanted
    mlflow = msgspec.json.encode({"inputs": rows})
    assert post(f"/mlflow/{dtype}/invocations", mlflow)["predictions"] == wanted
    tensors = [
        {"name": name, "datatype": "FP64", "shape": [2], "data": [row[name] for row in rows]}
        for name in ("a", "b")
    ]
    infer = f"/v2/models/{dtype}/infer"
    (output,) = post(infer, msgspec.json.encode({"inputs": tensors}))["outputs"]
    assert (output["data"], output["shape"]) == ([e for row in wanted for e in row], [*y.shape])
    asked = {"inputs": tensors, "parameters": {"binary_data_output": True}}
    raw, headers = answers.raw("POST", infer, msgspec.json.encode(asked))
    whole = np.frombuffer(raw[int(headers["inference-header-content-length"]) :], dtype)
    assert [None if e != e else e for e in whole.tolist()] == [e for row in wanted for e in row]
    assert [each.value for each in answers.client.predict(dtype, rows)] == wanted


@settings(max_examples=12)
@given(st.sampled_from(TOLD), st.data())
def test_every_reader_shows_what_was_answered(
    answers: Answers, endpoint: str, data: st.DataObject
) -> None:
    labels = st.sampled_from([*map(repr, LABELS.get(endpoint, ())), "nan"])
    said = data.draw(said_amounts if endpoint == "amount" else labels)
    body = msgspec.json.encode({"rows": [{"said": said}]})
    found, answer, _ = answers.up.predict(body, endpoint)
    if found == 200:
        (given,) = answer["predictions"]
    else:
        assert found == 500, answer
        (identifier,) = answer["error"]["ids"]
        given = {"id": identifier}
    read_everywhere(answers, endpoint, given)


def test_every_reader_shows_arrays_of_any_numbers(answers: Answers) -> None:
    for dtype in DTYPES:
        found, answer, _ = answers.up.predict({"rows": [{"a": 1.5, "b": 0.0}]}, dtype)
        assert found == 200
        read_everywhere(answers, dtype, answer["predictions"][0])
    found, answer, _ = answers.up.predict({"rows": [NUMBERS]}, "side")
    read_everywhere(answers, "side", {"id": answer["error"]["ids"][0]})


def read_everywhere(answers: Answers, endpoint: str, given: dict[str, Any]) -> None:
    """Read a prediction by every way; a failed one has only its id, and all must agree on it."""
    identifier = given["id"]
    found, record, _ = answers.up.ask("GET", f"/v1/predictions/{identifier}")
    assert found == 200
    if len(given) > 1:
        assert record["answer"] == given
    else:
        given = record["answer"]
        assert given["error"]["code"] == "model_failed"
    assert answers.client.prediction(identifier).answer == given
    page = answers.up.ask("GET", f"/v1/predictions?endpoint={endpoint}&limit=1")[1]
    assert page["predictions"][0]["answer"] == given
    (listed,) = command("predictions", "list", "--limit", "1")["predictions"]
    assert listed["answer"] == given
    assert command("predictions", "show", identifier)["answer"] == given
    assert command("why", identifier)["record"]["answer"] == given
    assert command("replay", identifier)["equal"] is True
    for words in (
        ["predictions", "list"],
        ["predictions", "show", identifier],
        ["why", identifier],
        ["replay", identifier],
    ):
        with redirect_stdout(io.StringIO()) as out:
            assert status(words) == 0
        assert out.getvalue()


def command(*words: str) -> Any:
    """Run a command in the project of the module, and decode its JSON."""
    with redirect_stdout(io.StringIO()) as out:
        assert status([*words, "--json"]) == 0
    return msgspec.json.decode(out.getvalue())


def test_an_empty_table_is_refused_everywhere(answers: Answers) -> None:
    for endpoint in ("amount", "text", "moment"):
        for ask in PROTOCOLS:
            with pytest.raises((InvalidInput, UsageError)):
                ask(answers, endpoint, [])


zones = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@settings(max_examples=25)
@given(st.datetimes(timezones=zones))
@example(datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))))
@example(datetime(9999, 12, 31, 23, 59, 59, 999999, timezone(timedelta(hours=-1))))
@example(datetime(1, 1, 1, tzinfo=UTC))
@example(datetime(9999, 12, 31, 23, 59, 59, 999999, UTC))
@example(datetime(2026, 2, 28, 23, 59, 59, 1, timezone(timedelta(minutes=-1439))))
def test_a_moment_keeps_its_microseconds_everywhere_or_is_refused(
    answers: Answers, moment: datetime
) -> None:
    count = (moment - EPOCH) // timedelta(microseconds=1)
    first = (datetime(1, 1, 1, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
    last = (datetime(9999, 12, 31, 23, 59, 59, 999999, UTC) - EPOCH) // timedelta(microseconds=1)
    is_held = first <= count <= last and int(float(count)) == count
    text = moment.isoformat()
    asked = [partial(ask, answers, "moment", [text]) for ask in PROTOCOLS]
    asked.append(lambda: told_of(answers.client.predict("moment", {"said": moment})))
    if is_held:
        for unit, zone in (("us", "UTC"), ("us", "Pacific/Kiritimati"), ("ns", "Etc/GMT+12")):
            series = pl.Series("said", [count]).cast(pl.Datetime("us", "UTC"))
            series = series.dt.convert_time_zone(zone)
            if unit == "us" or abs(count) < 2**63 // 1000:
                frame = pl.DataFrame(series.cast(pl.Datetime(unit, zone)))
                asked.append(partial(lambda f: told_of(answers.client.predict("moment", f)), frame))
    for ask in asked:
        try:
            told = ask()
        except InvalidInput:
            assert not is_held, (ask, text)
            continue
        assert is_held, (ask, text, told.values)
        assert told.values == [count], ask
        if ask is asked[0] or ask is asked[-1]:
            record = answers.up.ask("GET", f"/v1/predictions/{told.ids[0]}")[1]
            assert datetime.fromisoformat(record["row"]["said"]) == moment


def told_of(result: Any) -> Told:
    return told_by([msgspec.to_builtins(each) for each in result])
