"""`clewline tokens`: the tokens of callers."""

from __future__ import annotations

import re
import time
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from clewline.cli.output import console, emit, print_message
from clewline.errors import UsageError
from clewline.formatting import format_time
from clewline.project import find
from clewline.serve import access
from clewline.store.records import Token
from clewline.store.store import Store

UNITS_S = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}

app = App(name="tokens", help="Add, list and revoke the tokens of callers.")


@app.command
def add(
    *,
    role: Annotated[list[access.Role], Parameter(negative=())],
    note: str = "",
    expires: str | None = None,
) -> None:
    """
    Add a token, and show it once. Only a digest of it is stored.

    Parameters
    ----------
    role
        Allow one of these; repeat it to allow several.
    note
        Record the owner or the purpose.
    expires
        Let the token expire after this time, such as 90d or 12h.
    """
    ends = None if expires is None else time.time() + duration_s(expires)
    project = find()
    with Store.open(project.store_root) as store:
        new = access.add_token(project, store, role, note=note, expires=ends)

    def show(_: object) -> None:
        roles = ", ".join(new.token.roles)
        print_message(
            f"New token for {roles}, shown only once. Send it as Authorization: Bearer TOKEN."
        )
        console().print(new.text, markup=False)  # alone on stdout, to be piped into a secret store

    emit({**_shown(new.token), "token": new.text}, show)


@app.command(name="list")
def list_() -> None:
    """List all tokens without their secrets, newest first."""
    with Store.open(find().store_root, write=False) as store:
        found = store.catalog.find(Token, order="-created", limit=None)
    emit([_shown(token) for token in found], _print_list)


@app.command
def revoke(identifier: str, /) -> None:
    """
    Revoke a token for good; servers reject it within a second.

    Parameters
    ----------
    identifier
        The id: the part after `cl_`, as `clewline tokens list` shows it.
    """
    project = find()
    with Store.open(project.store_root) as store:
        revoked = access.revoke_token(project, store, identifier)
    if not project.private_key.exists():
        print_message("warning: without the private key the revocation is not sealed.")
    emit(_shown(revoked), lambda _: console().print(f"{revoked.id} is revoked."))


def duration_s(text: str) -> float:
    """
    Read a duration, in seconds.

    >>> duration_s("90d")
    7776000.0
    """
    found = re.fullmatch(r"(\d{1,6})(s|min|h|d|w)", text)
    if found is None:
        raise UsageError(
            f"{text!r} is not a duration.",
            f"Write a number and one of {', '.join(UNITS_S)}, such as 90d.",
        )
    return float(int(found[1]) * UNITS_S[found[2]])


def _shown(token: Token) -> dict[str, Any]:
    """Return a token without the digest of its secret."""
    shown = msgspec.to_builtins(token)
    del shown["digest"]
    return {**shown, "valid": access.token_state(token) == "valid"}


def _print_list(tokens: list[dict[str, Any]]) -> None:
    if not tokens:
        print_message(f"There are no tokens. {access.ADD_TOKEN}")
    for token in tokens:
        state = "valid" if token["valid"] else "expired"
        if token["revoked"] is not None:
            state = f"revoked {format_time(token['revoked'])}"
        elif token["expires"] is not None:
            state += f" {'until' if token['valid'] else 'since'} {format_time(token['expires'])}"
        roles = ", ".join(token["roles"])
        console().print(f"{token['id']}  {roles:<24}  {state:<34}  {token['note']}", markup=False)
