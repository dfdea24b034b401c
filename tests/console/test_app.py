"""The console answers pages in its frame, with the headers that keep foreign script out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from clewline.console.app import POLICY, Console
from clewline.scaffold import create


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    console = Console(create(tmp_path / "p"))
    yield console
    console.close()


def test_every_page_of_the_navigation_answers_under_the_policy(console: Console) -> None:
    with TestClient(console.app) as client:
        assert console.navigation
        for each in console.navigation:
            answer = client.get(each["address"])
            assert answer.status_code == 200
            assert answer.headers["content-security-policy"] == POLICY
            assert "aria-current" in answer.text


def test_an_address_without_a_page_says_so_in_the_frame(console: Console) -> None:
    with TestClient(console.app) as client:
        answer = client.get("/<b>x")
    assert answer.status_code == 404
    assert "has no page" in answer.text
    assert "<b>x" not in answer.text


def test_a_file_is_kept_under_the_digest_of_its_content(console: Console) -> None:
    with TestClient(console.app) as client:
        answer = client.get(console.assets.links["console.css"])
    assert answer.status_code == 200
    assert "immutable" in answer.headers["cache-control"]
