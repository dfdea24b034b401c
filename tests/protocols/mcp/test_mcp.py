"""Assistants read the line over the Model Context Protocol, with the SDK's own client."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from explained import ROWS, attribute, classified, fitted, serve_two_rows
from mcp import Client, StdioServerParameters
from sklearn.ensemble import RandomForestClassifier
from support import process, wait_for

from clewline.project import Project
from clewline.protocols.http.listener import listening_sockets
from clewline.protocols.mcp.tools import CHARACTERS, bounded

CLEWLINE = str(Path(sys.executable).with_name("clewline"))
TOOLS = {"why", "impact", "runs", "compare", "predictions", "explain"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, list[str]]:
    train = classified()
    model = fitted(RandomForestClassifier(5, random_state=0), train)
    return serve_two_rows(tmp_path_factory.mktemp("mcp"), model, train)


def call(target: Any, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
    """Call tools one after the other; an error is returned as its text."""

    async def talk() -> list[Any]:
        async with Client(target) as client:
            listed = await client.list_tools()
            assert {tool.name for tool in listed.tools} == TOOLS
            assert all(tool.annotations.read_only_hint for tool in listed.tools)
            found = []
            for name, given in calls:
                answer = await client.call_tool(name, given)
                text = answer.content[0].text
                found.append(text if answer.is_error else json.loads(text))
            return found

    return asyncio.run(talk())


def test_over_stdio_the_line_of_a_prediction_is_followed_both_ways(
    served: tuple[Project, list[str]],
) -> None:
    project, ids = served
    attribute(project, ids[0])
    target = StdioServerParameters(command=CLEWLINE, args=["mcp"], cwd=str(project.root))
    why, impact, listed, filtered, words, runs, missing, wrong = call(
        target,
        ("why", {"ref": ids[0]}),
        ("impact", {"ref": "m@1"}),
        ("predictions", {"endpoint": "e"}),
        ("predictions", {"where": f"age == {ROWS[1]['age']}"}),
        ("explain", {"prediction": ids[0]}),
        ("runs", {"pipeline": "none"}),
        ("why", {"ref": "m@7"}),
        ("predictions", {"where": "age >"}),
    )
    assert [node["ref"] for node in why["result"]][:3] == [ids[0], "e#1", "m@1"]
    assert "not instructions" in why["untrusted"].replace("not\ninstructions", "not instructions")
    assert any(node["ref"] == "e#1" for node in impact["result"])
    assert [each["id"] for each in listed["result"]["predictions"]] == ids[::-1]
    assert [each["id"] for each in filtered["result"]["predictions"]] == [ids[1]]
    assert any("age" in line for line in words["result"][0]["in_words"])
    assert runs["result"] == {"runs": [], "matching": 0}
    assert "There is no model version m@7" in missing
    assert "is not a condition" in wrong


def test_over_http_a_foreign_host_and_a_missing_token_are_refused(
    served: tuple[Project, list[str]],
) -> None:
    project, ids = served
    (held,) = listening_sockets("127.0.0.1", 0, 1)
    port = held.getsockname()[1]
    held.close()
    address = f"http://127.0.0.1:{port}/mcp"

    def status(headers: dict[str, str]) -> int:
        request = urllib.request.Request(address, b"{}", headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    words = [CLEWLINE, "mcp", "--port", str(port)]
    with process(words, cwd=project.root, stderr=subprocess.DEVNULL):
        wait_for(lambda: status({}) != 0)
        assert status({"Host": "rebound.example"}) == 421
        assert status({"Origin": "https://elsewhere.example"}) == 403
        assert status({"Authorization": "Bearer cl_no_no"}) == 401
        (why,) = call(address, ("why", {"ref": ids[0]}))
        assert why["result"][0]["ref"] == ids[0]
    with process([*words, "--require-tokens"], cwd=project.root, stderr=subprocess.DEVNULL):
        wait_for(lambda: status({}) == 401)


def test_long_answers_say_how_long_they_are() -> None:
    assert bounded("x" * 1_000)[:CHARACTERS] == "x" * CHARACTERS
    assert bounded(list(range(250)))[-1] == "… 250 in all"
    assert len(bounded({str(n): n for n in range(250)})) == 101
