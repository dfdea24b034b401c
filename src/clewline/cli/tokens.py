"""`clewline tokens`: who may ask a server beyond loopback."""

from __future__ import annotations

import re
import time
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from clewline.cli.output import console, emit, message
from clewline.errors import UsageError
from clewline.formatting import format_time
from clewline.project import find
from clewline.serve import access
from clewline.store.records import Token
from clewline.store.store import Store

UNITS_S = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}

app = App(name="tokens", help="Add, list and revoke the tokens of callers.")


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A token in a list; its secret is nowhere."""

    id: str
    roles: list[str]
    note: str
    created: float
    expires: float | None
    revoked: float | None
    in_force: bool


@app.command
def add(
    *,
    role: Annotated[list[access.Role], Parameter(negative=())],
    note: str = "",
    expires: str | None = None,
) -> None:
    """
    Make a token. It is shown this once: only a digest of it is kept.

    Parameters
    ----------
    role
        What it allows: predict, review (read predictions) or operate (load and unload);
        give --role several times for several.
    note
        Whose it is.
    expires
        When it ends: after so long, such as 90d or 12h. Never if left out.
    """
    ends = None if expires is None else time.time() + duration_s(expires)
    with Store.open(find().store_root) as store:
        made = access.add_token(store, role, note=note, expires=ends)
    shown: dict[str, Any] = msgspec.to_builtins(listed(made.token)) | {"token": made.text}
    emit(shown, lambda _: print_made(made))


@app.command(name="list")
def list_() -> None:
    """List tokens, the newest first, without their secrets."""
    with Store.open(find().store_root, write=False) as store:
        found = store.catalog.find(Token, order="-created", limit=None)
    emit([listed(token) for token in found], print_list)


@app.command
def revoke(identifier: str, /) -> None:
    """
    End a token for good; servers that are up follow within a second.

    Parameters
    ----------
    identifier
        Its id: the first part after `cl_`, as `clewline tokens list` shows it.
    """
    with Store.open(find().store_root) as store:
        revoked = access.revoke_token(store, identifier)
    emit(listed(revoked), lambda _: console().print(f"{revoked.id} is revoked."))


def duration_s(text: str) -> float:
    """
    Read how long something takes, in seconds.

    >>> duration_s("90d")
    7776000.0
    """
    found = re.fullmatch(r"(\d{1,6})(s|min|h|d|w)", text)
    if found is None:
        raise UsageError(
            f"{text!r} is no duration.", f"Write a number and one of {', '.join(UNITS_S)}: 90d."
        )
    return float(int(found[1]) * UNITS_S[found[2]])


def listed(token: Token) -> Listed:
    """Show a token without the digest of its secret."""
    return Listed(
        id=token.id,
        roles=token.roles,
        note=token.note,
        created=token.created,
        expires=token.expires,
        revoked=token.revoked,
        in_force=access.why_not(token) is None,
    )


def print_made(made: access.NewToken) -> None:
    """Print a token alone on stdout, so that it can be piped into a secret store."""
    roles = ", ".join(made.token.roles)
    message(f"A token for {roles}, shown this once; send it as Authorization: Bearer TOKEN.")
    console().print(made.text, markup=False)


def print_list(tokens: list[Listed]) -> None:
    """Print a line for each."""
    if not tokens:
        message("There are no tokens. `clewline tokens add --role predict` makes one.")
        return
    for token in tokens:
        state = "in force" if token.in_force else "expired"
        if token.revoked is not None:
            state = f"revoked {format_time(token.revoked)}"
        elif token.expires is not None:
            state += f" {'until' if token.in_force else 'since'} {format_time(token.expires)}"
        roles = ", ".join(token.roles)
        console().print(f"{token.id}  {roles:<24}  {state:<34}  {token.note}", markup=False)
