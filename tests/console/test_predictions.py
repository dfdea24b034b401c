"""The pages of predictions, over a real log: what was asked is found, followed and done again."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from conftest import Shop
from starlette.testclient import TestClient
from support import process, wait_for

from clewline.console.app import Console
from clewline.errors import InvalidConfig, NotFound, UsageError
from clewline.serve import revision
from clewline.serve.endpoint_file import read_endpoint
from clewline.serve.prediction_search import (
    PredictionFilter,
    read_prediction_filter,
    require_endpoint,
    search_predictions,
)
from clewline.store.ids import id_time_s
from clewline.store.store import Store

CLEWLINE = Path(sys.executable).with_name("clewline")
FILES = {
    "endpoints/income.yaml": "endpoint: income\nmodel: income@1\n",
    "endpoints/price.yaml": "endpoint: price\nmodel: price@1\n",
}
HOSTILE = "</td><script>alert(1)</script>"


class Asked:
    """A console, and what its project's endpoints have answered, oldest first."""

    def __init__(self, console: Console, answers: list[dict[str, Any]]) -> None:
        self.console, self.answers = console, answers
        self.log = console.project.log
        self.client = TestClient(console.app)

    def found(self, **given: str) -> list[str]:
        wanted = read_prediction_filter(given)
        return [item.id for item in search_predictions(self.log, wanted, limit=1000).items]

    def ids(self, **same: Any) -> list[str]:
        kept = [each for each in self.answers if same.items() <= each.items()]
        return [each["id"] for each in reversed(kept)]


@pytest.fixture(scope="module")
def asked(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    project = shop(tmp_path_factory.mktemp("predictions"), FILES)
    with Store.open(project.store_root) as store:
        for name in ("income", "price"):
            revision.apply(project, store, read_endpoint(project, name))
    command = [str(CLEWLINE), "serve", "--port", "0"]
    answers: list[dict[str, Any]] = []
    with process(command, cwd=project.root, stderr=subprocess.PIPE, text=True) as server:
        said = ""
        while "Ready" not in said:
            said += (line := server.stderr.readline())
            assert line, said
        base = re.findall(r"http://127\.0\.0\.1:\d+", said)[0]
        for place in range(30):
            row = {"age": 20 + place, "hours": 30.5}
            entity = HOSTILE if place == 3 else f"c-{place % 3}"
            for endpoint in ("income", "price"):
                body = json.dumps({"rows": [row], "entities": [entity]}).encode()
                request = urllib.request.Request(
                    f"{base}/v1/endpoints/{endpoint}/predict",
                    body,
                    {"Content-Type": "application/json"},
                )
                with urllib.request.urlopen(request) as answer:
                    (one,) = json.load(answer)["predictions"]
                answers.append({**one, "endpoint": endpoint, "entity": entity, "age": row["age"]})
        console = Console(project)
        yield Asked(console, answers)
        console.jobs.close()
        console.close()
        server.terminate()
        server.wait()


def test_each_part_of_a_filter_finds_what_has_it(asked: Asked) -> None:
    assert asked.found() == asked.ids()
    assert asked.found(endpoint="price") == asked.ids(endpoint="price")
    assert asked.found(entity="c-1") == asked.ids(entity="c-1")
    assert asked.found(model="income@1") == asked.ids(endpoint="income")
    label = asked.answers[0]["label"]
    assert asked.found(label=label) == asked.ids(label=label)
    old = [each["id"] for each in reversed(asked.answers) if each["age"] > 44]
    assert asked.found(where="age > 44") == old
    flagged = [each["id"] for each in reversed(asked.answers) if each.get("flags")]
    assert asked.found(flagged="yes") == flagged
    assert asked.found(flagged="no", tried="no") == [i for i in asked.ids() if i not in flagged]
    assert asked.found(tried="yes") == []


def test_an_id_is_found_by_its_beginning_and_a_time_by_its_bounds(asked: Asked) -> None:
    ids = asked.ids()
    assert asked.found(id=ids[5]) == [ids[5]]
    assert asked.found(id=ids[5][:11]) == [i for i in ids if i.startswith(ids[5][:11])]
    assert asked.found(id="ffff") == []
    moment = id_time_s(ids[10])
    since = search_predictions(asked.log, PredictionFilter(since=moment), limit=1000)
    assert [item.id for item in since.items] == [i for i in ids if id_time_s(i) >= moment]
    until = search_predictions(asked.log, PredictionFilter(until=moment), limit=1000)
    assert [item.id for item in until.items] == [i for i in ids if id_time_s(i) < moment]


def test_a_search_that_stops_says_how_far_it_came_and_goes_on_there(asked: Asked) -> None:
    wanted, before, found = read_prediction_filter({"where": "age == 21"}), None, []
    for _ in range(100):
        page = search_predictions(asked.log, wanted, limit=5, before=before, look_at=7)
        assert page.looked_at <= 7
        found += [item.id for item in page.items]
        if (before := page.next) is None:
            break
        assert page.reached == id_time_s(before)
    assert found == asked.ids(age=21)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"since": "yesterday-ish"}, UsageError),
        ({"id": "xyz"}, UsageError),
        ({"id": "0" * 33}, UsageError),
        ({"flagged": "perhaps"}, UsageError),
        ({"where": "age >"}, InvalidConfig),
        ({"where": "__import__('os')"}, InvalidConfig),
    ],
)
def test_a_filter_that_means_nothing_is_refused(
    asked: Asked, given: dict[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        read_prediction_filter(given)
    assert asked.client.get(f"/predictions?{urlencode(given)}").status_code in (400, 422)


def test_an_endpoint_that_never_was_is_named_with_the_nearest(asked: Asked) -> None:
    require_endpoint(asked.console.project, "income")
    with pytest.raises(NotFound, match="no endpoint 'incme'") as raised:
        require_endpoint(asked.console.project, "incme")
    assert "income" in str(raised.value.fix)


def test_the_list_shows_foreign_text_as_text_and_leaves_as_csv(asked: Asked) -> None:
    page = asked.client.get("/predictions?endpoint=income").text
    assert "<script>alert" not in page
    assert asked.ids(endpoint="income")[0] in page
    exported = asked.client.get("/predictions?endpoint=income&export=json&table=predictions")
    assert [row["id"] for row in exported.json()] == asked.ids(endpoint="income")


def test_a_prediction_shows_its_row_its_answer_and_its_line(asked: Asked) -> None:
    one = asked.answers[0]
    page = asked.client.get(f"/predictions/{one['id']}").text
    assert "income#1" in page
    assert "/models/income/1" in page
    assert "graph-node" in page
    assert f">{one['age']}<" in page
    assert "Nobody has asked yet" in page
    missing = asked.client.get("/predictions/01a1fc0f-0000-7000-8000-000000000000")
    assert missing.status_code == 404


def test_an_explanation_and_a_replay_are_jobs_and_their_results_are_found(asked: Asked) -> None:
    address = f"/predictions/{asked.answers[0]['id']}"
    started = asked.client.post(f"{address}/replay", data={"csrf": ""})
    wait_for(lambda: all(job.is_over for job in asked.console.jobs.all()))
    assert "Equal, bit for bit" in asked.client.get(started.url.path).text
    asked.client.post(f"{address}/explain", data={"csrf": "", "kind": "attributions"})
    wait_for(lambda: all(job.is_over for job in asked.console.jobs.all()))
    assert "Share of each field" in asked.client.get(address).text
    answer = asked.client.post(f"{address}/explain", data={"csrf": "", "kind": "magic"})
    assert answer.status_code == 422
