"""Tokens allow their roles as long as they are valid, and nothing else does."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from projects import make_project
from support import wait_for

from clewline.errors import Forbidden, NotFound, TooManyFailures, Unauthorized, UsageError
from clewline.model.sealed_changes import sealed_changes
from clewline.project import Project
from clewline.serve import access
from clewline.serve.access import FAILURES, ROLES, WINDOW_S, FailureWindow, TokenChecker
from clewline.store.records import Token
from clewline.store.store import Store


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path)


@pytest.fixture
def store(project: Project) -> Iterator[Store]:
    with Store.open(project.store_root) as store:
        yield store


@pytest.fixture
def gate(project: Project) -> Iterator[TokenChecker]:
    gate = TokenChecker(project, required=True)
    gate.open()
    yield gate
    gate.close()


def bearer(made: access.NewToken) -> str:
    return f"Bearer {made.text}"


def test_a_token_allows_its_roles_and_no_role_includes_another(project, store, gate):
    tokens = {role: access.add_token(project, store, [role]) for role in ROLES}
    gate.refresh()
    for role, made in tokens.items():
        assert gate.check(bearer(made), "1.2.3.4", role) == made.token.id
        assert gate.check(bearer(made), "1.2.3.4", "any") == made.token.id
        for other in set(ROLES) - {role}:
            with pytest.raises(Forbidden, match=rf"{role}; {other} is needed.*--role {other}"):
                gate.check(bearer(made), "1.2.3.4", other)


def test_a_token_may_have_several_roles(project, store, gate):
    made = access.add_token(project, store, ["operate", "predict", "predict"])
    gate.refresh()
    assert made.token.roles == ["operate", "predict"]
    for role in ("operate", "predict"):
        assert gate.check(bearer(made), "", role) == made.token.id


def test_the_secret_is_256_bits_and_only_its_digest_is_kept(store, project):
    made = access.add_token(project, store, ["predict"])
    prefix, identifier, secret = made.text.split("_")
    assert (prefix, identifier, len(bytes.fromhex(secret))) == ("cl", made.token.id, 32)
    for path in project.store_root.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    "presented",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer cl_",
        "Bearer cl__",
        "Bearer cl_{id}",
        "Bearer cl_{id}_",
        "Bearer cl_{id}_{zeros}",
        "Bearer cl_{id}_{short}",
        "Bearer cl_{id}_{secret}0",
        "Bearer cl_{id}_{upper}",
        "Bearer xx_{id}_{secret}",
        "Bearer cl_000000000000_{secret}",
        "Bearer {secret}",
        "Basic cl_{id}_{secret}",
        "cl_{id}_{secret}",
        "Bearer cl_{id}_\ud7ff\x00é",
    ],
)
def test_anything_but_the_whole_token_is_unauthorized(project, store, gate, presented):
    made = access.add_token(project, store, ["predict"])
    gate.refresh()
    secret = made.text.rpartition("_")[2]
    if presented is not None:
        presented = presented.format(
            id=made.token.id, secret=secret, zeros="0" * 64, short=secret[:-1], upper="A" + secret
        )
    with pytest.raises(Unauthorized):
        gate.check(presented, "1.2.3.4", "predict")
    assert gate.check(bearer(made), "1.2.3.4", "predict") == made.token.id


@given(st.text(st.characters(codec="utf-8"), max_size=80))
def test_no_string_is_accepted_without_a_token(text):
    gate = TokenChecker(Project(Path("/nowhere"), "p", "0" * 16), required=True)
    with pytest.raises((Unauthorized, TooManyFailures)):
        gate.check(text, "", "predict")


def test_a_token_that_is_not_required_is_checked_if_it_is_sent(store, project):
    gate = TokenChecker(project)
    gate.open()
    made = access.add_token(project, store, ["predict"])
    gate.refresh()
    assert gate.check(None, "127.0.0.1", "operate") is None
    assert gate.check("Basic dXNlcjpwYXNz", "127.0.0.1", "operate") is None
    assert gate.check(bearer(made), "127.0.0.1", "predict") == made.token.id
    with pytest.raises(Forbidden):
        gate.check(bearer(made), "127.0.0.1", "operate")
    with pytest.raises(Unauthorized):
        gate.check("Bearer cl_nope", "127.0.0.1", "predict")
    gate.close()


def test_a_running_server_follows_new_and_revoked_tokens(project, store, gate):
    made = access.add_token(project, store, ["predict"])
    wait_for(lambda: passes(gate, made))
    access.revoke_token(project, store, made.token.id)
    wait_for(lambda: not passes(gate, made))
    with pytest.raises(Unauthorized, match=f"{made.token.id} is revoked"):
        gate.check(bearer(made), "9.9.9.9", "predict")


def passes(gate: TokenChecker, made: access.NewToken) -> bool:
    try:
        gate.check(bearer(made), str(time.monotonic()), "predict")
    except Unauthorized:
        return False
    return True


def test_an_expired_token_is_refused(project, store, gate, monkeypatch):
    made = access.add_token(project, store, ["predict"], expires=time.time() + 60)
    gate.refresh()
    assert gate.check(bearer(made), "", "predict")
    later = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(Unauthorized, match="is expired"):
        gate.check(bearer(made), "", "predict")


def test_wrong_tokens_are_limited_for_each_address_and_right_ones_still_pass(
    project, store, gate, caplog
):
    made = access.add_token(project, store, ["predict"])
    gate.refresh()
    with caplog.at_level(logging.WARNING):
        for _ in range(FAILURES):
            with pytest.raises(Unauthorized):
                gate.check("Bearer cl_123456789abc_guess", "10.0.0.1", "predict")
        for _ in range(5):
            with pytest.raises(TooManyFailures) as told:
                gate.check("Bearer cl_123456789abc_guess", "10.0.0.1", "predict")
    assert 0 < told.value.retry_after_s <= WINDOW_S
    assert len(caplog.records) == FAILURES, "a flood of guesses is no flood of the log"
    assert "10.0.0.1" in caplog.text
    assert "guess" not in caplog.text
    assert gate.check(bearer(made), "10.0.0.1", "predict") == made.token.id
    with pytest.raises(Unauthorized):
        gate.check("Bearer cl_123456789abc_guess", "10.0.0.2", "predict")


def test_the_window_slides_and_a_network_of_ipv6_counts_as_one_address():
    failures = FailureWindow(allowed=2, window_s=10)
    assert failures.count("2001:db8::1", now=0) is None
    assert failures.count("2001:db8:0:0:ffff::2", now=4) is None
    assert failures.count("2001:db8::3%eth0", now=5) == 5
    assert failures.count("2001:db8:0:1::1", now=5) is None
    assert failures.count("2001:db8::1", now=11) is None
    assert failures.count("2001:db8::1", now=11) == 3


def test_the_number_of_remembered_addresses_is_bounded(monkeypatch):
    monkeypatch.setattr(access, "ADDRESSES", 100)
    failures = FailureWindow(allowed=1)
    for number in range(1000):
        failures.count(f"10.0.{number // 256}.{number % 256}", now=0)
    assert len(failures._times) == 100
    assert failures.count("10.0.3.231", now=1) is not None


@pytest.mark.parametrize("roles", [[], ["admin"], ["predict", "root"]])
def test_unknown_roles_and_a_past_expiry_are_refused(project, store, roles):
    with pytest.raises(UsageError, match="predict, view, review, operate"):
        access.add_token(project, store, roles)
    with pytest.raises(UsageError, match="expired already"):
        access.add_token(project, store, ["predict"], expires=time.time() - 1)
    assert not store.catalog.find(Token)


def test_revoking_is_final_and_an_unknown_token_is_reported(project, store):
    made = access.add_token(project, store, ["predict"])
    first = access.revoke_token(project, store, made.token.id)
    assert access.revoke_token(project, store, made.token.id) == first
    with pytest.raises(NotFound, match="tokens list"):
        access.revoke_token(project, store, "000000000000")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_is_bound_without_tokens(project, host):
    assert access.check_bind(project, host) == []
    assert not access.tokens_required(host, require_tokens=False)
    assert access.tokens_required(host, require_tokens=True)
    (warning,) = access.check_bind(project, host, require_tokens=True)
    assert "there is no valid one" in warning


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "2001:db8::1"])
def test_beyond_loopback_nothing_is_bound_without_a_valid_token(project, store, host):
    access.revoke_token(project, store, access.add_token(project, store, ["predict"]).token.id)
    with pytest.raises(Forbidden, match="clewline tokens add"):
        access.check_bind(project, host)
    access.add_token(project, store, ["predict"])
    assert access.tokens_required(host, require_tokens=False)
    (warning,) = access.check_bind(project, host)
    assert "unencrypted" in warning
    assert access.check_bind(project, host, tls=True) == []
    assert access.check_bind(project, host, behind_proxy=True) == []


def test_a_host_name_is_refused(project):
    with pytest.raises(UsageError, match="not an IP address"):
        access.check_bind(project, "example.org")


def test_the_signed_chain_keeps_who_added_and_revoked_a_token(
    project: Project, store: Store
) -> None:
    made = access.add_token(project, store, ["predict"], person="anna", reason="For the shop")
    access.revoke_token(project, store, made.token.id, person="ben", reason="It leaked")
    revoked, added = sealed_changes(store.catalog)
    assert (added.kind, added.refs, added.person, added.reason) == (
        "token_added",
        [made.token.id],
        "anna",
        "For the shop",
    )
    assert (revoked.kind, revoked.person, revoked.reason) == ("token_revoked", "ben", "It leaked")
