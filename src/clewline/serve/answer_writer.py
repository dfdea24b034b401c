"""Predictions as JSON: once for the log and the caller alike."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.model.runtime import Outputs
from clewline.serve.graph.node import NodeAnswers
from clewline.serve.log.frame import RoutePath
from clewline.signature.field import Output
from clewline.signature.flag import Flag

_encode = msgspec.json.encode
_GROUPS = struct.Struct("8s4s4s4s12s")
"""The five groups of hexadecimal characters in the text of an id."""


class AnswerWriter:
    """
    Writes the predictions of one output, each as a JSON object in bytes.

    A classifier's prediction is `{"id", "model", "label", "probabilities"}`, a
    regressor's `{"id", "model", "value"}`; `"arm"` comes after the model where the
    row was routed, and `"flags"` at the end where there are any.
    Numbers are written by the shortest text that reads back as the same bits.
    """

    def __init__(self, output: Output) -> None:
        self._labels = output.labels
        self._templates: dict[tuple[str, str], list[bytes]] = {}

    def render(
        self, ids: Sequence[bytes], answered: NodeAnswers, flags: Sequence[tuple[int, Flag]]
    ) -> list[bytes]:
        """Write the predictions of a batch, in its order."""
        texts = _id_texts(ids)
        if answered.path_of_row is not None:
            rendered = self._mixed(texts, answered, answered.path_of_row)
        elif self._labels is None:
            rendered = _values(self._of(answered.paths[0])[0], texts, answered.outputs)
        else:
            rendered = _choices(self._of(answered.paths[0]), texts, answered.outputs)
        return _with_flags(rendered, flags) if flags else rendered

    def _mixed(
        self, ids: list[bytes], answered: NodeAnswers, taken: NDArray[np.intp]
    ) -> list[bytes]:
        """Write rows that went different ways: each with its own model and arm."""
        of_way = [self._of(way) for way in answered.paths]
        templates = [of_way[index] for index in taken.tolist()]
        outputs = answered.outputs
        if outputs.tensor is not None:
            arrays = zip(templates, ids, outputs.tensor.tolist(), strict=True)
            return [template[0] % (id_, _encode(array)) for template, id_, array in arrays]
        if outputs.values is not None:
            numbers = _numbers(outputs.values)
            rows = zip(templates, ids, numbers, strict=True)
            return [template[0] % (id_, number) for template, id_, number in rows]
        assert outputs.choices is not None
        if outputs.probabilities is None:
            picked = zip(templates, ids, outputs.choices.tolist(), strict=True)
            return [_alone(template[choice]) % id_ for template, id_, choice in picked]
        numbers, width = _numbers(outputs.probabilities), outputs.probabilities.shape[1]
        chosen = zip(templates, ids, outputs.choices.tolist(), strict=True)
        return [
            template[choice] % (id_, *numbers[row * width : (row + 1) * width])
            for row, (template, id_, choice) in enumerate(chosen)
        ]

    def _of(self, way: RoutePath) -> list[bytes]:
        key = way.model, way.arm
        templates = self._templates.get(key)
        if templates is None:
            templates = self._templates[key] = self._templates_of(*key)
        return templates

    def _templates_of(self, model: str, arm: str) -> list[bytes]:
        """One template a label (one in all for a regressor), with a place for id and numbers."""
        head = b'{"id":"%b","model":' + _literal(model)
        if arm:
            head += b',"arm":' + _literal(arm)
        if self._labels is None:
            return [head + b',"value":%b}']
        names = [label if isinstance(label, str) else _text(label) for label in self._labels]
        shares = b",".join(_literal(name) + b":%b" for name in names)
        return [
            head + b',"label":' + _literal(label) + b',"probabilities":{' + shares + b"}}"
            for label in self._labels
        ]


def label_name(label: Any) -> str:
    """Give a label as the key that it has among the probabilities."""
    return label if isinstance(label, str) else _text(label)


def _choices(templates: list[bytes], ids: list[bytes], outputs: Outputs) -> list[bytes]:
    assert outputs.choices is not None
    chosen = outputs.choices.tolist()
    if outputs.probabilities is None:  # a model that tells labels alone
        return [_alone(templates[choice]) % id_ for choice, id_ in zip(chosen, ids, strict=True)]
    numbers = _numbers(outputs.probabilities)
    width = len(templates)
    if width == 2:
        pairs = zip(ids, chosen, numbers[::2], numbers[1::2], strict=True)
        return [templates[choice] % (id_, low, high) for id_, choice, low, high in pairs]
    return [
        templates[choice] % (id_, *numbers[row * width : (row + 1) * width])
        for row, (id_, choice) in enumerate(zip(ids, chosen, strict=True))
    ]


def _alone(template: bytes) -> bytes:
    """A label's template without its probabilities."""
    return template[: template.rindex(b',"probabilities":{')] + b"}"


def _values(template: bytes, ids: list[bytes], outputs: Outputs) -> list[bytes]:
    if outputs.tensor is not None:
        return [
            template % (i, _encode(v)) for i, v in zip(ids, outputs.tensor.tolist(), strict=True)
        ]
    assert outputs.values is not None
    return [template % pair for pair in zip(ids, _numbers(outputs.values), strict=True)]


def _numbers(values: NDArray[np.float64]) -> list[bytes]:
    """Write all numbers in one pass, row by row."""
    return _encode(values.ravel().tolist())[1:-1].split(b",")


def _id_texts(ids: Sequence[bytes]) -> list[bytes]:
    return [b"-".join(groups) for groups in _GROUPS.iter_unpack(b"".join(ids).hex().encode())]


def _with_flags(rendered: list[bytes], flags: Sequence[tuple[int, Flag]]) -> list[bytes]:
    of_row: dict[int, list[Flag]] = {}
    for row, flag in flags:
        of_row.setdefault(row, []).append(flag)
    for row, found in of_row.items():
        rendered[row] = rendered[row][:-1] + b',"flags":' + _encode(found) + b"}"
    return rendered


def _text(label: Any) -> str:
    return _encode(label).decode()


def _literal(value: Any) -> bytes:
    """A JSON literal inside a template, where a percent sign is written twice."""
    return _encode(value).replace(b"%", b"%%")
