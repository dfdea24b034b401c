"""
The tests that every page of the console must pass, ours and those of plug-ins.

Subclass `PageContract` in a test module and override the fixture `page`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from clewline.console.app import POLICY, Console
from clewline.console.page import ROLES, ConsolePage
from clewline.console.rendering import page_folder
from clewline.scaffold import create

HOSTILE = "<script>alert(1)</script>\u202e\U0001f9f6'\""
"""A value of a path or a query that no page may write as it is."""

INLINE = re.compile(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:", re.IGNORECASE)


class PageContract:
    """Tests that a page stands in the frame, under its policy, and says what it does not have."""

    @pytest.fixture
    def page(self) -> ConsolePage:
        """Return the page to be tested."""
        raise NotImplementedError("override the fixture `page`")

    @pytest.fixture
    def console(self, page: ConsolePage, tmp_path: Path) -> Iterator[Console]:
        """Return a console of a new project that has this page and no other."""
        console = Console(create(tmp_path / "project"), pages=[page])
        yield console
        console.close()

    @pytest.fixture
    def client(self, console: Console) -> Iterator[TestClient]:
        """Return a client that follows no redirect and raises no error of the console."""
        with TestClient(
            console.app, follow_redirects=False, raise_server_exceptions=False
        ) as client:
            yield client

    def test_its_name_begins_the_names_of_its_files(self, page: ConsolePage) -> None:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", page.name)
        assert page.title.strip()
        assert type(page).__module__.rpartition(".")[2] == page.name

    def test_its_routes_are_whole(self, page: ConsolePage) -> None:
        routes = page.routes()
        assert routes
        assert len({(route.method, route.path) for route in routes}) == len(routes)
        for route in routes:
            assert route.path.startswith("/"), route
            assert route.method in ("GET", "POST"), route
            assert route.role in ROLES, route

    def test_the_navigation_leads_to_an_address_that_only_looks(self, page: ConsolePage) -> None:
        first = page.routes()[0]
        if page.place is not None:
            assert first.method == "GET"
            assert first.role == "view"
            assert "{" not in first.path

    def test_its_templates_hold_no_inline_script_and_no_inline_style(
        self, page: ConsolePage
    ) -> None:
        for path in page_folder(page).glob(f"{page.name}*.html"):
            assert not INLINE.search(path.read_text()), path

    def test_a_new_project_gets_whole_pages(self, page: ConsolePage, client: TestClient) -> None:
        for route in page.routes():
            if route.method != "GET" or "{" in route.path:
                continue
            answer = client.get(route.path)
            assert answer.status_code < 400, (route.path, answer.text)
            if "text/html" in answer.headers.get("content-type", ""):
                assert answer.headers["content-security-policy"] == POLICY
                assert answer.text.startswith("<!doctype html>") == ("</html>" in answer.text)
                assert not INLINE.search(answer.text), route.path

    def test_what_is_not_there_is_said_and_written_as_text(
        self, page: ConsolePage, client: TestClient
    ) -> None:
        for route in page.routes():
            if route.method != "GET":
                continue
            path = re.sub(r"\{\w+(:\w+)?\}", lambda _: quote(HOSTILE, safe=""), route.path)
            asked = f"{path}?q={quote(HOSTILE)}&sort={quote(HOSTILE)}&after={quote(HOSTILE)}"
            answer = client.get(asked)
            assert answer.status_code < 500, (asked, answer.text)
            assert "<script>alert(1)" not in answer.text, asked

    def test_a_form_without_fields_is_refused_in_words(
        self, page: ConsolePage, client: TestClient
    ) -> None:
        for route in page.routes():
            if route.method != "POST":
                continue
            path = re.sub(r"\{\w+(:\w+)?\}", lambda _: quote(HOSTILE, safe=""), route.path)
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = client.post(path, content=b"", headers=form)
            assert answer.status_code < 500, (path, answer.text)
            assert "<script>alert(1)" not in answer.text, path
