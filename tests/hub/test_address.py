"""Addresses are read strictly: HTTPS alone, no passwords, files and not code."""

from __future__ import annotations

import pytest

from clewline.errors import InvalidInput, NotSupported
from clewline.hub import address


@pytest.fixture(autouse=True)
def _own_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("hf:o/r/m.onnx", "https://huggingface.co/o/r/resolve/main/m.onnx"),
        (
            "hf:o/r/a b/m.onnx".replace(" ", "%"),
            "https://huggingface.co/o/r/resolve/main/a%25b/m.onnx",
        ),
        ("hf:o/r/a/m.onnx@refs/pr/1", "https://huggingface.co/o/r/resolve/refs%2Fpr%2F1/a/m.onnx"),
        (
            "https://huggingface.co/o/r/blob/v1/m.onnx",
            "https://huggingface.co/o/r/resolve/v1/m.onnx",
        ),
        ("https://example.com/m.onnx?x=1", "https://example.com/m.onnx?x=1"),
        ("http://127.0.0.1:80/m.onnx", "http://127.0.0.1:80/m.onnx"),
        (
            "https://github.com/o/r/releases/download/v1/m.onnx",
            "https://github.com/o/r/releases/download/v1/m.onnx",
        ),
    ],
)
def test_an_address_leads_to_one_file(text: str, url: str) -> None:
    assert address.parse_address(text).url == url


@pytest.mark.parametrize(
    "text",
    [
        "hf:",
        "hf:o/r",
        "hf:o/r/",
        "hf:o/r/../x",
        "hf:o/r//x",
        "hf:o/r/m.onnx@",
        "hf:o/../x/m.onnx?y",
        "hf:../r/m.onnx",
        "hf:o/./m.onnx",
        "hf:o/r/m\\n",
        "http://example.com/m.onnx",
        "http://127.0.0.1.example.com/m.onnx",
        "https://user:secret@example.com/m.onnx",
        "https:///m.onnx",
        "https://example.com:x/m.onnx",
        "https://github.com/o/r/blob/main/m.onnx",
    ],
)
def test_an_unsafe_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as told:
        address.parse_address(text)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("text", ["torch.hub:o/r", "torch.hub:o/r:main", "https://github.com/o/r"])
def test_code_is_refused_with_the_way_out(text: str) -> None:
    with pytest.raises(NotSupported, match=r"o/r.* is a repository of code") as told:
        address.parse_address(text)
    assert "ONNX file" in (told.value.fix or "")


def test_another_hub_is_used_and_must_be_https(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example.com/hf/")
    found = address.parse_address("hf:o/r/m.onnx@v1")
    assert found.url == "https://mirror.example.com/hf/o/r/resolve/v1/m.onnx"
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example.com")
    with pytest.raises(InvalidInput, match="plain HTTP"):
        address.parse_address("hf:o/r/m.onnx")
