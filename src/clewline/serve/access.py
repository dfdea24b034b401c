"""
Who may ask what: tokens with roles, and how often somebody may be wrong.

    cl_ID_SECRET     ID is public, SECRET is shown once; the catalog has its digest alone

No HTTP here: every protocol hands over what its caller presented. On loopback
nobody needs a token, unless the server was told so; one that is presented is
checked all the same.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import secrets
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import Literal, get_args

import msgspec
from blake3 import blake3

from clewline.errors import (
    ClewlineError,
    Forbidden,
    NotFound,
    TooManyFailures,
    Unauthorized,
    UsageError,
)
from clewline.project import Project
from clewline.store.records import Token
from clewline.store.store import Store

logger = logging.getLogger(__name__)

Role = Literal["predict", "review", "operate"]
Need = Literal["predict", "review", "operate", "any"]
"""What a route asks of a token: one role, or any that is valid."""
ROLES: tuple[Role, ...] = get_args(Role)

POLL_S = 0.5
"""How often the catalog is asked for tokens: a revoked one works no longer than this."""
FAILURES = 10
"""Wrong tokens that one address may present …"""
WINDOW_S = 60.0
"""… within so long; after that it is told to wait until the first of them is so old."""
ADDRESSES = 10_000
"""Addresses whose failures are remembered, the latest ones."""

PREFIX = "cl_"
ID_CHARACTERS = 12
SECRET_BYTES = 32
ADD_ONE = "`clewline tokens add --role predict` makes one."


class NewToken(msgspec.Struct, frozen=True):
    """A new token, and the one time that it is shown whole."""

    token: Token
    text: str  # cl_ID_SECRET


class BindDecision(msgspec.Struct, frozen=True):
    """What follows from the address that a server binds."""

    tokens_required: bool
    warnings: tuple[str, ...] = ()


class TokenChecker:
    """
    Knows the tokens of a project, and follows what becomes of them while it is open.

    `check` is called on any thread, and waits for nothing.

    Args:
        project: Whose tokens.
        required: Whether a caller without a token is refused.
    """

    def __init__(self, project: Project, *, required: bool = False) -> None:
        self.required = required
        self._project = project
        self._known: dict[str, _Known] = {}
        self._failures = FailureWindow()
        self.refused: Counter[str] = Counter()  # code of the error → callers who did not pass
        self._store: Store
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="clewline-tokens", daemon=True)

    def open(self) -> None:
        """
        Read the tokens, and go on to follow them.

        Raises:
            NotFound: There is no store.
        """
        self._store = Store.open(self._project.store_root, write=False)
        self.refresh()
        self._thread.start()

    def close(self) -> None:
        """Follow them no longer; what was known stays."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def check(self, authorization: str | None, peer: str, need: Need) -> str | None:
        """
        Let a caller pass, or not.

        Args:
            authorization: What the caller presented: `Bearer cl_ID_SECRET`.
            peer: The address that it came from.
            need: The role that is needed.

        Returns:
            The id of the token; None when none was presented and none is required.

        Raises:
            Unauthorized: No token, or none that is in force.
            Forbidden: The token has not the role.
            TooManyFailures: It is wrong, and so were many before it from there.
        """
        try:
            return self._passing(authorization, peer, need)
        except ClewlineError as error:
            self.refused[error.code] += 1
            raise

    def _passing(self, authorization: str | None, peer: str, need: Need) -> str | None:
        text = _presented(authorization)
        if text is None:
            if self.required:
                raise Unauthorized(
                    "A token is needed here.", f"Send Authorization: Bearer cl_…; {ADD_ONE}"
                )
            return None
        identifier, secret = _apart(text)
        known = self._known.get(identifier)
        if known is None or not known.is_secret(secret):
            raise self._fail(peer, "it is not known", "The token is not known.")
        if (reason := why_not(known.token)) is not None:
            raise self._fail(peer, f"{identifier} {reason}", f"The token {identifier} {reason}.")
        if need not in known.roles:
            raise Forbidden(
                f"The token {identifier} has the role {_listed(known.token.roles)}; "
                f"{need} is needed.",
                f"`clewline tokens add --role {need}` makes one that has it.",
            )
        return identifier

    def refresh(self) -> None:
        """Read the tokens anew."""
        found = self._store.catalog.find(Token, limit=None)
        self._known = {token.id: _Known(token) for token in found}

    def _fail(self, peer: str, which: str, message: str) -> Unauthorized:
        """Count a wrong token, and log it unless there were too many: never what was presented."""
        if (wait_s := self._failures.count(peer)) is not None:
            raise TooManyFailures(
                f"{FAILURES} wrong tokens came from {peer or 'there'} within {WINDOW_S:.0f} s.",
                f"Try again in {wait_s:.0f} s.",
                wait_s,
            )
        logger.warning("a token was refused that came from %s: %s", peer or "nowhere", which)
        return Unauthorized(message, ADD_ONE)

    def _watch(self) -> None:
        reader, seen = self._store.catalog.reader, None
        while not self._stop.wait(POLL_S):
            try:
                if (now := reader.data_version()) != seen:
                    self.refresh()
                    seen = now
            except Exception:
                logger.exception("the catalog could not be asked for tokens")
        self._store.close()


class FailureWindow:
    """Counts what was wrong, for each address, in a sliding window. Safe on any thread."""

    def __init__(self, allowed: int = FAILURES, window_s: float = WINDOW_S) -> None:
        self._allowed, self._window_s = allowed, window_s
        self._times: OrderedDict[str, list[float]] = OrderedDict()
        self._lock = threading.Lock()

    def count(self, peer: str, now: float | None = None) -> float | None:
        """
        Count one failure.

        Returns:
            Seconds to wait, when there were too many before; None when this one was allowed.
        """
        now = time.monotonic() if now is None else now
        network = _network(peer)
        with self._lock:
            recent = [t for t in self._times.pop(network, ()) if t > now - self._window_s]
            self._times[network] = recent
            if len(self._times) > ADDRESSES:
                self._times.popitem(last=False)
            if len(recent) >= self._allowed:
                return recent[0] + self._window_s - now
            recent.append(now)
        return None


class _Known:
    """A token of the catalog, ready to be compared."""

    __slots__ = ("digest", "roles", "token")

    def __init__(self, token: Token) -> None:
        self.token = token
        self.digest = bytes.fromhex(token.digest)
        self.roles = frozenset((*token.roles, "any"))

    def is_secret(self, secret: str) -> bool:
        """Tell whether this is the secret, in a time that says nothing of how near it is."""
        return hmac.compare_digest(blake3(secret.encode()).digest(), self.digest)


def add_token(
    store: Store, roles: Iterable[str], *, note: str = "", expires: float | None = None
) -> NewToken:
    """
    Make a token; its secret is in what is returned, and nowhere else.

    Args:
        store: Where its digest is recorded.
        roles: Some of `ROLES`; separate: none of them includes another.
        note: Whose it is.
        expires: When it ends, in seconds since the epoch; never if None.

    Raises:
        UsageError: No role, one that is not known, or an end that has passed.
    """
    wanted = sorted(set(roles))
    if not wanted or not set(wanted) <= set(ROLES):
        named = ", ".join(wanted) or "none"
        raise UsageError(f"The roles are {named}.", f"Choose among {_listed(ROLES)}.")
    now = time.time()
    if expires is not None and expires <= now:
        raise UsageError("The token would have expired already.", "Give an end that is to come.")
    secret = secrets.token_hex(SECRET_BYTES)
    token = Token(
        id=secrets.token_hex(ID_CHARACTERS // 2),
        digest=blake3(secret.encode()).hexdigest(),
        roles=wanted,
        note=note,
        created=now,
        expires=expires,
    )
    store.record(token)
    return NewToken(token, f"{PREFIX}{token.id}_{secret}")


def revoke_token(store: Store, identifier: str) -> Token:
    """
    End a token for good; every server follows within a second.

    Raises:
        NotFound: There is no such token.
    """
    with store.catalog.transaction() as transaction:
        token = transaction.get(Token, identifier)
        if token is None:
            raise NotFound(f"There is no token {identifier!r}.", "`clewline tokens list` has them.")
        if token.revoked is None:
            token = msgspec.structs.replace(token, revoked=time.time())
            transaction.replace(token)
    return token


def why_not(token: Token) -> str | None:
    """Tell why a token is not in force; None when it is."""
    if token.revoked is not None:
        return "was revoked"
    if token.expires is not None and token.expires <= time.time():
        return "has expired"
    return None


def tokens_in_force(store: Store) -> list[Token]:
    """List the tokens that open something now."""
    return [t for t in store.catalog.find(Token, limit=None) if why_not(t) is None]


def is_loopback(host: str) -> bool:
    """
    Tell whether only this machine can reach an address.

    Raises:
        UsageError: It is no IP address.
    """
    try:
        return ipaddress.ip_address("127.0.0.1" if host == "localhost" else host).is_loopback
    except ValueError as error:
        raise UsageError(
            f"{host!r} is no IP address.", "Use one of this machine's, such as 127.0.0.1 or ::1."
        ) from error


def check_bind(
    project: Project,
    host: str,
    *,
    tls: bool = False,
    behind_proxy: bool = False,
    require_tokens: bool = False,
) -> BindDecision:
    """
    Judge an address before a server binds it.

    Args:
        project: Whose tokens.
        host: The IP address.
        tls: Whether the server speaks TLS.
        behind_proxy: Whether only a proxy reaches the server, which speaks TLS to the callers.
        require_tokens: Whether tokens are asked for on loopback as well.

    Raises:
        UsageError: It is no IP address.
        Forbidden: It is beyond loopback, and no token is in force.
    """
    loopback = is_loopback(host)
    required = require_tokens or not loopback
    warnings: list[str] = []
    if required:
        with Store.open(project.store_root, write=False) as store:
            tokens = tokens_in_force(store)
        if not tokens and not loopback:
            raise Forbidden(
                f"{host} is beyond loopback, and there is no token to tell callers apart.", ADD_ONE
            )
        if not tokens:
            warnings.append(f"Tokens are required and none is in force: {ADD_ONE}")
    if not (loopback or tls or behind_proxy):
        warnings.append(
            f"{host} is beyond loopback without TLS: tokens and rows travel in clear text. "
            "Give --tls-cert and --tls-key, or --behind-proxy if a proxy does it."
        )
    return BindDecision(required, tuple(warnings))


def _presented(authorization: str | None) -> str | None:
    """Give what follows `Bearer`; None where another scheme, or nothing, is."""
    if authorization is None:
        return None
    scheme, _, text = authorization.partition(" ")
    return text.strip() if scheme.lower() == "bearer" else None


def _apart(text: str) -> tuple[str, str]:
    """Take a token apart: its id and its secret; two empty texts when it is none."""
    prefix, identifier, secret = [*text.split("_", 2), "", ""][:3]
    return (identifier, secret) if prefix + "_" == PREFIX else ("", "")


def _network(peer: str) -> str:
    """Give what one caller can hardly leave: an IPv4 address, or the /64 of an IPv6 one."""
    return peer if ":" not in peer else ":".join(_full(peer).split(":")[:4])


def _full(peer: str) -> str:
    try:
        return ipaddress.ip_address(peer.partition("%")[0]).exploded
    except ValueError:
        return peer


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
