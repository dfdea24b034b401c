"""Settings show tokens, keys, findings, sizes and versions, and who changed what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from clewline.console.app import Console
from clewline.scaffold import create
from clewline.serve.access import TokenChecker
from clewline.store.records import Token
from clewline.version import __version__
from tests.support import wait_for


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    console = Console(create(tmp_path / "p"))
    yield console
    console.close()


@pytest.fixture
def client(console: Console) -> Iterator[TestClient]:
    with TestClient(console.app, follow_redirects=False) as client:
        yield client


FORM = {"csrf": "loopback", "note": "<b>Shop</b>", "expires": "90d", "reason": "The shop asks"}


def test_a_new_token_is_shown_once_and_is_accepted(console: Console, client: TestClient) -> None:
    answer = client.post("/settings/tokens", data={**FORM, "role": "predict"})
    (text,) = set(re.findall(r"cl_[0-9a-f]+_[0-9a-f]{64}", answer.text))
    checker = TokenChecker(console.project, required=True)
    checker.open()
    try:
        assert checker.check(f"Bearer {text}", "", "predict") == text.split("_")[1]
    finally:
        checker.close()
    page = client.get("/settings").text
    assert text not in page
    assert text.split("_")[1] in page
    assert "&lt;b&gt;Shop&lt;/b&gt;" in page
    assert "The shop asks" in page


def test_a_token_is_revoked_for_a_reason(console: Console, client: TestClient) -> None:
    client.post("/settings/tokens", data={**FORM, "role": "predict"})
    (token,) = console.store.catalog.find(Token)
    answer = client.post(
        f"/settings/tokens/{token.id}/revoke", data={"csrf": "loopback", "reason": "It leaked"}
    )
    assert answer.status_code == 303
    (revoked,) = console.store.catalog.find(Token)
    assert revoked.revoked is not None
    page = client.get("/settings").text
    assert "It leaked" in page
    assert f"/settings/tokens/{token.id}/revoke" not in page


@pytest.mark.parametrize(
    ("form", "said"),
    [({"role": "root"}, "no role"), ({"role": "predict", "expires": "soon"}, "not a span")],
)
def test_a_wrong_form_adds_no_token(
    console: Console, client: TestClient, form: dict[str, str], said: str
) -> None:
    answer = client.post("/settings/tokens", data={**FORM, **form})
    assert answer.status_code == 422
    assert said in answer.text
    assert not console.store.catalog.find(Token)


def test_the_doctor_checks_as_a_job_and_its_findings_are_shown(
    console: Console, client: TestClient
) -> None:
    assert "Not checked since" in client.get("/settings").text
    console.project.private_key.chmod(0o644)
    answer = client.post("/settings/doctor", data={"csrf": "loopback", "deep": "yes"})
    job = console.jobs.get(answer.headers["location"].rpartition("/")[2])
    wait_for(lambda: job.is_over)
    page = client.get("/settings").text
    assert "1 finding." in page
    assert "Other users can read the private key" in page


def test_keys_sizes_and_versions_are_shown(console: Console, client: TestClient) -> None:
    page = client.get("/settings").text
    assert f"<dd>{__version__}</dd>" in page
    assert console.project.public_key is not None
    assert console.project.public_key in page
    assert "this machine can seal" in page
    assert re.search(r'<th scope="row">catalog</th><td class="n">\d', page)
    console.project.private_key.unlink()
    assert "seal nothing" in client.get("/settings").text
