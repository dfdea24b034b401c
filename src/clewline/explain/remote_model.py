"""
A model behind the Open Inference Protocol (v2, REST) as explainers ask it.

The network is the box: metadata say which tensors go in, background rows give the fields their
kinds and levels, and what the model answers to them says how its outputs are to be read. Each
call has a limit of time and size, whatever the other side does.

Source:
    Open Inference Protocol, https://github.com/kserve/open-inference-protocol.
"""

from __future__ import annotations

import math
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import Fault, InvalidInput, NotSupported, UsageError, did_you_mean
from clewline.formatting import format_list
from clewline.model.runtime.outputs import Outputs, join_outputs, take_rows
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Output, Signature
from clewline.signature.timestamps import format_microseconds

ROWS_PER_CALL = 500
TIMEOUT_S = 10.0
MOST_BYTES = 64 << 20
"""Size of one answer."""
MOST_LABELS = 20
"""A tensor of more different whole numbers holds values, not labels."""
OTHER_LABEL = "another label"
"""Stands for the labels that a model without probabilities gave no background row."""


class RemoteFault(Fault):
    """A remote model did not answer, or its answer cannot be used."""

    code = "remote_model"


class RemoteTensor(msgspec.Struct, frozen=True):
    """A tensor of the metadata or of an answer."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] = []
    parameters: dict[str, Any] | None = None


class _Metadata(msgspec.Struct, frozen=True):
    inputs: list[RemoteTensor]
    outputs: list[RemoteTensor] = []


class _Answer(msgspec.Struct, frozen=True):
    outputs: list[RemoteTensor]


class RemoteConnection:
    """
    Calls one model.

    Args:
        url: Of the model: `http://host:port/v2/models/NAME`, perhaps with `/versions/V`.
        timeout_s: Of each call, until its last byte.
        token: Sent as a bearer token.

    Raises:
        UsageError: It is not such an address.
    """

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S, token: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or "/models/" not in parts.path:
            raise UsageError(
                f"{url!r} is not the address of a model.",
                "Write http://HOST:PORT/v2/models/NAME.",
            )
        self.url, self._timeout_s, self._token = url.rstrip("/"), timeout_s, token

    def metadata(self) -> _Metadata:
        """Read which tensors go in and come out."""
        found: _Metadata = self._decode(self._call(self.url, None), _Metadata)
        if not found.inputs:
            raise RemoteFault(f"The metadata of {self.url} name no inputs.")
        return found

    def infer(self, inputs: list[dict[str, Any]], rows: int) -> dict[str, RemoteTensor]:
        """
        Ask the model about rows; returns its tensors by name, with flat data.

        Raises:
            RemoteFault: It does not answer in time, with an error, or with other rows.
        """
        body = msgspec.json.encode({"inputs": inputs})
        found = self._decode(self._call(f"{self.url}/infer", body), _Answer)
        for tensor in found.outputs:
            if not tensor.shape or tensor.shape[0] != rows:
                raise RemoteFault(
                    f"{self.url} answered {rows} rows with the tensor {tensor.name!r} of shape "
                    f"{tensor.shape}."
                )
        return {each.name: _flat(each, self.url) for each in found.outputs}

    def _decode(self, data: bytes, kind: type[Any]) -> Any:
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            shown = data[:60].decode("utf-8", "replace")
            raise RemoteFault(
                f"{self.url} answered with what is not the Open Inference Protocol: {error} "
                f"({shown!r}…).",
                "Check the address; NaN is not JSON.",
            ) from error

    def _call(self, url: str, body: bytes | None) -> bytes:
        """
        Send a request in a thread of its own, and wait for it no longer than the limit.

        A limit of the socket alone would begin anew with each byte that trickles in.
        """
        found: list[bytes | BaseException] = []

        def work() -> None:
            try:
                found.append(self._send(url, body))
            except BaseException as error:  # carried to the thread that waits
                found.append(error)

        thread = threading.Thread(target=work, name="clewline-remote", daemon=True)
        thread.start()
        thread.join(self._timeout_s)
        if not found:
            raise RemoteFault(
                f"{url} did not answer within {self._timeout_s:g} s.",
                "Try again, or allow more with --timeout.",
            )
        if isinstance(found[0], BaseException):
            raise found[0]
        return found[0]

    def _send(self, url: str, body: bytes | None) -> bytes:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(url, body, headers)
        opener = urllib.request.build_opener(_NoRedirects)
        try:
            with opener.open(request, timeout=2 * self._timeout_s) as response:
                data: bytes = response.read(MOST_BYTES + 1)
        except urllib.error.HTTPError as error:
            said = error.read(500).decode("utf-8", "replace")
            raise RemoteFault(f"{url} answered with status {error.code}: {said}") from error
        except (OSError, ValueError, EOFError) as error:
            reason = getattr(error, "reason", None) or error
            raise RemoteFault(f"{url} cannot be asked: {reason}.") from error
        except Exception as error:  # http.client has errors of its own for broken answers
            raise RemoteFault(f"{url} did not answer with HTTP: {error!r}.") from error
        if len(data) > MOST_BYTES:
            raise RemoteFault(f"{url} answered with more than {MOST_BYTES >> 20} MiB.")
        return data


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Another address may be anybody's."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class RemoteModel:
    """
    A remote model with the signature that its metadata and background rows give it.

    It is a `Predictor`.

    Args:
        connection: Calls it.
        signature: The fields; the output is set by `learn_output`.
        inputs: Tensors of the metadata: one for all fields, or one for each.
        output: The name of the tensor that is explained; by default the probabilities, else a
            label, else a value.
    """

    def __init__(
        self,
        connection: RemoteConnection,
        signature: Signature,
        metadata: _Metadata,
        output: str | None = None,
    ) -> None:
        self._connection, self.signature = connection, signature
        self._inputs, self._outputs = metadata.inputs, metadata.outputs
        self._wanted = output
        self._layout = _Layout()

    def learn_output(self, background: Columns) -> Outputs:
        """
        Ask about the background rows, and learn from the answers what they are.

        Raises:
            NotSupported: They are neither labels, nor probabilities, nor one number a row.
            RemoteFault: As `RemoteConnection.infer`.
        """
        found = [self._tensors(part) for part in _parts(background)]
        tensors = {
            name: msgspec.structs.replace(
                first, data=[value for part in found for value in _of(part, name).data]
            )
            for name, first in found[0].items()
        }
        self._layout = _read_layout(tensors, self._outputs, self._wanted, self._connection.url)
        self.signature = msgspec.structs.replace(self.signature, output=self._layout.output)
        return self._read(tensors, len(background))

    def predict(self, columns: Columns) -> Outputs:
        """Ask about rows, some hundred a call."""
        answered = [self._read(self._tensors(part), len(part)) for part in _parts(columns)]
        return answered[0] if len(answered) == 1 else join_outputs(answered)

    def close(self) -> None:
        """Nothing is held between calls."""

    def _tensors(self, columns: Columns) -> dict[str, RemoteTensor]:
        rows = len(columns)
        return self._connection.infer(encode_inputs(self._inputs, self.signature, columns), rows)

    def _read(self, tensors: dict[str, RemoteTensor], rows: int) -> Outputs:
        """Read the tensors of an answer."""
        layout, url = self._layout, self._connection.url
        if layout.value is not None:
            return Outputs(values=_numbers(_of(tensors, layout.value), rows, url)[:, 0])
        shares = None
        if layout.shares is not None:
            shares = _numbers(_of(tensors, layout.shares), rows, url)
            width = len(layout.labels)
            if shares.shape[1] != width or not _are_shares(shares):
                raise RemoteFault(
                    f"{url} answered with {layout.shares!r} of {shares.shape[1]} columns that are "
                    f"not {width} probabilities a row."
                )
        if layout.label is None:
            assert shares is not None, "a classifier answers with labels or probabilities"
            return Outputs(choices=shares.argmax(axis=1).astype(np.int64), probabilities=shares)
        places = {label: place for place, label in enumerate(layout.labels)}
        found = [places.get(label, -1) for label in _of(tensors, layout.label).data]
        choices = np.array(found, dtype=np.int64)
        if (choices < 0).any():
            if shares is not None:
                unknown = _of(tensors, layout.label).data[int((choices < 0).argmax())]
                raise RemoteFault(
                    f"{url} answered with the label {unknown!r}, which is none of "
                    f"{format_list(map(str, layout.labels))}."
                )
            choices[choices < 0] = len(layout.labels) - 1  # OTHER_LABEL
        return Outputs(choices=choices, probabilities=shares)


def remote_fields(metadata: _Metadata, table: Any, url: str) -> tuple[Field, ...]:
    """
    Make the fields of a model of its metadata and a table of background rows.

    Args:
        metadata: Its inputs name the columns; one matrix takes all columns, in their order.
        table: A Polars table of background rows.
        url: For errors.

    Raises:
        InvalidInput: A column is missing, or does not fit its tensor.
        NotSupported: An input is neither a matrix nor one value a row.
    """
    from clewline.signature.infer import infer_fields

    inputs = metadata.inputs
    if is_matrix(inputs):
        names, datatypes = list(table.columns), [inputs[0].datatype] * table.width
        width = inputs[0].shape[-1]
        if width not in (-1, table.width):
            raise InvalidInput(
                f"{url} takes {width} columns; the background rows have {table.width}.",
                "Keep only the columns that the model takes, in its order.",
            )
    else:
        names, datatypes = [each.name for each in inputs], [each.datatype for each in inputs]
        if wide := [each.name for each in inputs if math.prod(map(abs, each.shape[1:])) != 1]:
            raise NotSupported(
                f"{url} takes arrays ({format_list(wide)}), which have no fields to explain.",
                "Explanations are of models that take one value of each field.",
            )
        if missing := [name for name in names if name not in table.columns]:
            raise InvalidInput(
                f"The background rows lack the column {missing[0]!r}, which {url} takes.",
                did_you_mean(missing[0], table.columns),
            )
    inferred = {field.name: field for field in infer_fields(table.select(names))}
    return tuple(
        _field(inferred[name], datatype) for name, datatype in zip(names, datatypes, strict=True)
    )


def is_matrix(inputs: Sequence[RemoteTensor]) -> bool:
    """Return whether one tensor takes all fields."""
    return len(inputs) == 1 and len(inputs[0].shape) == 2 and inputs[0].shape[1] != 1


def _field(field: Field, datatype: str) -> Field:
    """Return an inferred field with the kind that its tensor asks for."""
    is_text = field.kind in ("category", "text", "datetime")
    if field.kind == "tensor" or (datatype == "BYTES") != is_text:
        raise InvalidInput(
            f"The column {field.name!r} holds {field.kind} values, and the model takes {datatype}.",
            "Cast the column of the background rows.",
        )
    if datatype.startswith(("FP", "BF")):
        return msgspec.structs.replace(field, kind="number")
    if datatype == "BOOL":
        return msgspec.structs.replace(field, kind="boolean", bounds=None)
    return field


def encode_inputs(
    inputs: Sequence[RemoteTensor], signature: Signature, columns: Columns
) -> list[dict[str, Any]]:
    """Write rows as the tensors of a request; null is JSON's null."""
    values: dict[str, list[Any]] = {}
    for place, field in enumerate(signature.numeric):
        values[field.name] = [_value(field, each) for each in columns.numbers[:, place].tolist()]
    for place, field in enumerate(signature.textual):
        values[field.name] = columns.texts[:, place].tolist()
    names, rows = [field.name for field in signature.fields], len(columns)
    if is_matrix(inputs):
        rows_of_values = zip(*(values[name] for name in names), strict=True)
        data = [value for row in rows_of_values for value in row]
        shape = [rows, len(names)]
        return [
            {"name": each.name, "datatype": each.datatype, "shape": shape, "data": data}
            for each in inputs
        ]
    return [
        {
            "name": each.name,
            "datatype": each.datatype,
            "shape": [rows, *([1] * (len(each.shape) - 1))],
            "data": values[each.name],
        }
        for each in inputs
    ]


def _value(field: Field, number: float) -> Any:
    if math.isnan(number):
        return None
    if field.kind == "datetime":
        return format_microseconds(number)
    if field.kind == "boolean":
        return bool(number)
    return int(number) if field.kind == "integer" and number.is_integer() else number


class _Layout(NamedTuple):
    """Which tensors of an answer say what."""

    output: Output = Output(name="", task="regression")
    label: str | None = None
    shares: str | None = None
    value: str | None = None
    labels: tuple[Any, ...] = ()


def _read_layout(
    tensors: dict[str, RemoteTensor],
    described: Sequence[RemoteTensor],
    wanted: str | None,
    url: str,
) -> _Layout:
    """Say what the tensors are that a model answers with."""
    if wanted is not None:
        if wanted not in tensors:
            raise UsageError(f"{url} has no output {wanted!r}.", did_you_mean(wanted, tensors))
        tensors = {wanted: tensors[wanted]}
    widths = {name: math.prod(each.shape[1:]) for name, each in tensors.items()}
    real = {name for name, each in tensors.items() if each.datatype.startswith(("FP", "BF"))}
    shares = next(
        (name for name in tensors if widths[name] > 1 and _holds_shares(tensors[name], url)), None
    )
    single = [name for name in tensors if widths[name] == 1]
    if shares is not None:
        label = next((n for n in single if n == "label" or n not in real), None)
        known = next((each.parameters or {} for each in described if each.name == shares), {})
        beside = None if label is None else tensors[label]
        labels = _labels_of(tensors[shares], beside, known.get("labels"), url)
        task = "binary" if len(labels) == 2 else "multiclass"
        output = Output(name=shares, task=task, labels=labels)  # type: ignore[arg-type]
        return _Layout(output, label, shares, labels=labels)
    for name in single:
        different = sorted(set(map(_hashable, tensors[name].data)), key=str)
        if name not in real and len(different) <= MOST_LABELS:
            labels = (*different, OTHER_LABEL)
            output = Output(name=name, task="multiclass", labels=labels, has_probabilities=False)
            return _Layout(output, name, labels=labels)
    value = next((name for name in single if tensors[name].datatype != "BYTES"), None)
    if value is None:
        shapes = format_list(f"{name} {each.shape}" for name, each in tensors.items())
        raise NotSupported(
            f"{url} answers with {shapes or 'nothing'}: neither labels, nor probabilities, nor one "
            "number a row.",
            "Name the tensor to explain with --output.",
        )
    return _Layout(Output(name=value, task="regression"), value=value)


def _labels_of(
    shares: RemoteTensor, label: RemoteTensor | None, known: Any, url: str
) -> tuple[Any, ...]:
    """Return the label of each column: as it is stated, or as the answers show, or 0 to k."""
    width = math.prod(shares.shape[1:])
    rows = len(shares.data) // width
    try:
        stated = msgspec.json.decode(known) if isinstance(known, str) else known
    except msgspec.DecodeError:
        stated = None
    if isinstance(stated, list) and len(stated) == width:
        return tuple(map(_hashable, stated))
    if label is None:
        return tuple(range(width))
    largest = _numbers(shares, rows, url).argmax(axis=1).tolist()
    seen: dict[int, set[Any]] = {}
    for place, each in zip(largest, label.data, strict=True):
        seen.setdefault(place, set()).add(_hashable(each))
    if any(len(each) > 1 for each in seen.values()):
        raise NotSupported(
            f"The labels of {url} are not those with the largest probability.",
            "Name one of both tensors with --output.",
        )
    return tuple(next(iter(seen[place])) if place in seen else place for place in range(width))


def _holds_shares(tensor: RemoteTensor, url: str) -> bool:
    width = math.prod(tensor.shape[1:])
    if len(tensor.shape) != 2 or tensor.datatype == "BYTES":
        return False
    return _are_shares(_numbers(tensor, len(tensor.data) // width, url))


def _are_shares(numbers: NDArray[np.float64]) -> bool:
    sums = numbers.sum(axis=1)
    return bool((numbers >= -1e-6).all() and (np.abs(sums - 1) < 1e-3).all())


def _numbers(tensor: RemoteTensor, rows: int, url: str) -> NDArray[np.float64]:
    """Return the numbers of a tensor, a row each."""
    try:
        found = np.array(tensor.data, dtype=np.float64).reshape(rows, -1)
    except (TypeError, ValueError):
        found = np.full((rows, 1), np.nan)
    if not np.isfinite(found).all():
        raise RemoteFault(
            f"{url} answered with {tensor.name!r}, in which a value is not a finite number."
        )
    return found


def _flat(tensor: RemoteTensor, url: str) -> RemoteTensor:
    data = tensor.data
    while data and isinstance(data[0], list):
        if not all(isinstance(each, list) for each in data):
            break
        data = [value for each in data for value in each]
    if any(size < 0 for size in tensor.shape) or len(data) != math.prod(tensor.shape):
        raise RemoteFault(
            f"{url} answered with {len(data)} values in {tensor.name!r} of shape {tensor.shape}."
        )
    return msgspec.structs.replace(tensor, data=data)


def _of(tensors: dict[str, RemoteTensor], name: str) -> RemoteTensor:
    if name not in tensors:
        raise RemoteFault(f"An answer lacks the tensor {name!r}, which earlier answers had.")
    return tensors[name]


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) else str(value)


def _parts(columns: Columns) -> list[Columns]:
    starts = range(0, max(1, len(columns)), ROWS_PER_CALL)
    return [take_rows(columns, slice(at, at + ROWS_PER_CALL)) for at in starts]
