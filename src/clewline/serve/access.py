"""
Access to a server: tokens with roles, and a limit on wrong ones.

    cl_ID_SECRET     ID is public, SECRET is shown once; the catalog stores only its digest

Every protocol passes on what its caller presented. On loopback no token is needed
unless the server requires it; a token that is presented is checked all the same.
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
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, get_args

import msgspec
from blake3 import blake3

from clewline.errors import (
    ClewlineError,
    Forbidden,
    IntegrityError,
    NotFound,
    TooManyFailures,
    Unauthorized,
    UsageError,
)
from clewline.project import Project
from clewline.store.records import Token

if TYPE_CHECKING:  # slow to import, and the supervisor needs none
    from clewline.model.sealed_records import SealedRecords
    from clewline.store.store import Store

logger = logging.getLogger(__name__)

Role = Literal["predict", "view", "review", "operate"]
Need = Literal["predict", "review", "operate", "any"]
"""The role that a route needs, or any valid token."""
TokenState = Literal["valid", "revoked", "expired"]
ROLES: tuple[Role, ...] = get_args(Role)

POLL_S = 0.5
"""Time between two looks at the tokens of the catalog, so that a revoked one stops working."""
FAILURES = 10
"""Wrong tokens that one address may present …"""
WINDOW_S = 60.0
"""… within this time; then it has to wait until the first of them is this old."""
ADDRESSES = 10_000
"""Number of addresses of which the failures are remembered, the latest ones."""

PREFIX = "cl_"
CONSOLE = "console"
"""Id of the token with which a server's own console calls."""
ID_CHARACTERS = 12
SECRET_BYTES = 32
ADD_TOKEN = "Add one with `clewline tokens add --role predict`."


class NewToken(msgspec.Struct, frozen=True):
    """A new token with its secret, which is stored nowhere."""

    token: Token
    text: str  # cl_ID_SECRET


class TokenChecker:
    """
    Checks tokens, and follows the catalog while it is open.

    `check` may be called on any thread, and does not block.

    Args:
        project: The project of the tokens.
        required: Whether a caller without a token is refused.
        console_secret: The secret of the token `console`, which is in no catalog: with it the
            console of the same server calls, in the name of whoever asked the console.
    """

    def __init__(
        self, project: Project, *, required: bool = False, console_secret: str | None = None
    ) -> None:
        self.required = required
        self._console_digest = (
            None if console_secret is None else blake3(console_secret.encode()).digest()
        )
        self._project = project
        self._known: dict[str, Token] = {}
        self._refused: set[str] = set()  # why tokens of the catalog are not accepted
        self._failures = FailureWindow()
        self.refused: Counter[str] = Counter()  # code of the error → refused callers
        self._store: Store
        self._sealed: SealedRecords
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="clewline-tokens", daemon=True)

    def open(self) -> None:
        """
        Read the tokens, and follow their changes.

        Raises:
            NotFound: There is no store.
        """
        from clewline.model.sealed_records import SealedRecords
        from clewline.store.store import Store

        self._store = Store.open(self._project.store_root, write=False)
        self._sealed = SealedRecords(self._project, self._store.catalog)
        self.refresh()
        self._thread.start()

    def close(self) -> None:
        """Stop following changes. The tokens stay known."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
            self._store.close()

    def check(self, authorization: str | None, peer: str, need: Need) -> str | None:
        """
        Check a caller.

        Args:
            authorization: The header that the caller sent: `Bearer cl_ID_SECRET`.
            peer: The address of the caller.
            need: The role that is needed.

        Returns:
            The id of the token; None if none was presented and none is required.

        Raises:
            Unauthorized: There is no token, or it is not valid.
            Forbidden: The token does not have the role.
            TooManyFailures: The token is wrong, and so were many before it from this address.
        """
        try:
            return self._check(authorization, peer, need)
        except ClewlineError as error:
            self.refused[error.code] += 1
            raise

    def _check(self, authorization: str | None, peer: str, need: Need) -> str | None:
        scheme, _, text = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            if self.required:
                fix = f"Send Authorization: Bearer cl_…. {ADD_TOKEN}"
                raise Unauthorized("A token is needed.", fix)
            return None
        prefix, identifier, secret = [*text.strip().split("_", 2), "", ""][:3]
        if prefix + "_" == PREFIX and identifier == CONSOLE and self._console_digest is not None:
            if hmac.compare_digest(blake3(secret.encode()).digest(), self._console_digest):
                return CONSOLE
            raise self._fail(peer, "it is not the console's", "The token is not known.")
        token = self._known.get(identifier) if prefix + "_" == PREFIX else None
        # In constant time, so that the time does not tell how much of the secret was right.
        if token is None or not hmac.compare_digest(
            blake3(secret.encode()).digest(), bytes.fromhex(token.digest)
        ):
            raise self._fail(peer, "it is not known", "The token is not known.")
        if (state := token_state(token)) != "valid":
            reason = f"{identifier} is {state}"
            raise self._fail(peer, reason, f"The token {reason}.")
        if need != "any" and need not in token.roles:
            raise Forbidden(
                f"The token {identifier} has the role {', '.join(token.roles)}; {need} is needed.",
                f"Add a token that has it with `clewline tokens add --role {need}`.",
            )
        return identifier

    def valid_token(self, identifier: str) -> Token | None:
        """Return a token that is known and valid now; None if there is none."""
        token = self._known.get(identifier)
        return token if token is not None and token_state(token) == "valid" else None

    def refresh(self) -> None:
        """Read the tokens again. Only those that the signed chain holds are accepted."""
        refused: list[IntegrityError] = []
        try:
            found = self._sealed.find(Token, limit=None, refused=refused)
        except IntegrityError as error:  # the chain itself: what it held before stays
            refused.append(error)
            found = self._store.catalog.find(Token, limit=None, unreadable=[])
            found = [token for token in found if self._known.get(token.id) == token]
        self._known = {token.id: token for token in found}
        messages = {str(error) for error in refused}
        for message in sorted(messages - self._refused):
            logger.error("a token is refused: %s", message)
        self._refused = messages

    def _fail(self, peer: str, reason: str, message: str) -> Unauthorized:
        """Count a wrong token, and log it, without what was presented, unless there are many."""
        if (wait_s := self._failures.count(peer)) is not None:
            raise TooManyFailures(
                f"{FAILURES} wrong tokens came from {peer or 'there'} within {WINDOW_S:.0f} s.",
                f"Try again in {wait_s:.0f} s.",
                wait_s,
            )
        logger.warning("a token from %s was refused: %s", peer or "an unknown address", reason)
        return Unauthorized(message, ADD_TOKEN)

    def _watch(self) -> None:
        reader, seen = self._store.catalog.reader, None
        while not self._stop.wait(POLL_S):
            try:
                if (now := reader.data_version()) != seen:
                    self.refresh()
                    seen = now
            except Exception:
                logger.exception("the tokens of the catalog could not be read")
        self._store.close()


class FailureWindow:
    """Counts the failures of each address in a sliding window. Any thread may use it."""

    def __init__(self, allowed: int = FAILURES, window_s: float = WINDOW_S) -> None:
        self._allowed, self._window_s = allowed, window_s
        self._times: OrderedDict[str, list[float]] = OrderedDict()
        self._lock = threading.Lock()

    def count(self, peer: str, now: float | None = None) -> float | None:
        """
        Count one failure.

        Returns:
            The seconds to wait if there were too many before; None if this one was allowed.
        """
        now = time.monotonic() if now is None else now
        # What a caller can hardly change: an IPv4 address, or the /64 of an IPv6 one.
        network = peer
        if ":" in peer:
            with suppress(ValueError):
                network = ipaddress.ip_address(peer.partition("%")[0]).exploded
            network = ":".join(network.split(":")[:4])
        with self._lock:
            recent = [t for t in self._times.pop(network, ()) if t > now - self._window_s]
            self._times[network] = recent
            if len(self._times) > ADDRESSES:
                self._times.popitem(last=False)
            if len(recent) >= self._allowed:
                return recent[0] + self._window_s - now
            recent.append(now)
        return None


def add_token(
    project: Project,
    store: Store,
    roles: Iterable[str],
    *,
    note: str = "",
    expires: float | None = None,
    person: str | None = None,
    reason: str | None = None,
) -> NewToken:
    """
    Add a token. Its secret is in the result, and nowhere else.

    Args:
        project: The project whose private key seals it.
        store: The store that records its digest.
        roles: Some of `ROLES`; none of them includes another.
        note: Its owner or purpose.
        expires: Its expiry, in seconds since the epoch; None for never.
        person: Who adds it, where that is not the user of the process; the signed chain keeps it.
        reason: Why; kept there too.

    Raises:
        UsageError: There is no role, an unknown one, or the expiry has passed.
        NotFound: The private key is missing.
    """
    from clewline.model.registry_chain import TOKEN_ADDED, append_link, stated
    from clewline.model.seal import Sealer

    wanted = sorted(set(roles))
    if not wanted or not set(wanted) <= set(ROLES):
        named = ", ".join(wanted) or "none"
        raise UsageError(f"The roles are {named}.", f"Choose among {', '.join(ROLES)}.")
    now = time.time()
    if expires is not None and expires <= now:
        raise UsageError("The token has expired already.", "The expiry must lie in the future.")
    secret = secrets.token_hex(SECRET_BYTES)
    token = Token(
        id=secrets.token_hex(ID_CHARACTERS // 2),
        digest=blake3(secret.encode()).hexdigest(),
        roles=wanted,
        note=note,
        created=now,
        expires=expires,
    )
    sealer = Sealer.of(project)
    with store.catalog.transaction() as transaction:
        transaction.add(token)
        about = {"token": token.id, **stated(person, reason)}
        append_link(transaction, TOKEN_ADDED, about, sealer, token)
    return NewToken(token, f"{PREFIX}{token.id}_{secret}")


def revoke_token(
    project: Project,
    store: Store,
    identifier: str,
    *,
    person: str | None = None,
    reason: str | None = None,
) -> Token:
    """
    Revoke a token for good. Every server follows within a second.

    The signed chain keeps the person who wants it and the reason, where they are given.

    Without the private key the token is revoked all the same, but that is not sealed.

    Raises:
        NotFound: There is no such token.
        IntegrityError: The signed chain is damaged at its end; the token is revoked, not sealed.
    """
    from clewline.model.registry_chain import TOKEN_REVOKED, append_link, stated
    from clewline.model.seal import Sealer
    from clewline.model.sealed_records import SealedRecords

    not_sealed: ClewlineError | None = None
    # One transaction: a kill between two would leave a revocation that nothing vouches for.
    with store.catalog.transaction() as transaction:
        token = transaction.get(Token, identifier)
        if token is None:
            fix = "List the tokens with `clewline tokens list`."
            raise NotFound(f"There is no token {identifier!r}.", fix)
        if token.revoked is None:
            token = msgspec.structs.replace(token, revoked=time.time())
            transaction.replace(token)
        try:
            if project.private_key.exists() and SealedRecords(project, transaction).problem(token):
                about = {"token": token.id, **stated(person, reason)}
                append_link(transaction, TOKEN_REVOKED, about, Sealer.of(project), token)
        except ClewlineError as error:
            not_sealed = error
    if not_sealed is not None:
        raise not_sealed
    return token


def token_state(token: Token) -> TokenState:
    """Return whether a token is valid, or why not."""
    if token.revoked is not None:
        return "revoked"
    is_over = token.expires is not None and token.expires <= time.time()
    return "expired" if is_over else "valid"


def parse_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """
    Read an IP address, or `localhost`.

    Raises:
        UsageError: It is neither.
    """
    try:
        return ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError as error:
        raise UsageError(
            f"{host!r} is not an IP address.",
            "Use one of this machine's, such as 127.0.0.1 or ::1.",
        ) from error


def tokens_required(host: str, require_tokens: bool) -> bool:
    """Return whether callers of an address need a token: always beyond loopback."""
    return require_tokens or not parse_address(host).is_loopback


def check_bind(
    project: Project,
    host: str,
    *,
    tls: bool = False,
    behind_proxy: bool = False,
    require_tokens: bool = False,
) -> list[str]:
    """
    Check an address before a server binds it.

    Args:
        project: The project of the tokens.
        host: The IP address.
        tls: Whether the server speaks TLS.
        behind_proxy: Whether only a proxy, which speaks TLS, reaches the server.
        require_tokens: Whether tokens are needed on loopback too.

    Returns:
        Warnings for the operator.

    Raises:
        UsageError: It is not an IP address.
        Forbidden: It is not a loopback address, and there is no valid token.
    """
    from clewline.model.sealed_records import SealedRecords
    from clewline.store.store import Store

    is_loopback = parse_address(host).is_loopback
    warnings = []
    if tokens_required(host, require_tokens):
        with Store.open(project.store_root, write=False) as store:
            found = SealedRecords(project, store.catalog).find(Token, limit=None, refused=[])
        if all(token_state(token) != "valid" for token in found):
            if not is_loopback:
                message = f"Other machines can reach {host}, and there is no valid token."
                raise Forbidden(message, ADD_TOKEN)
            warnings.append(f"Tokens are required, but there is no valid one. {ADD_TOKEN}")
    if not (is_loopback or tls or behind_proxy):
        warnings.append(
            f"{host} is not a loopback address and TLS is off: tokens and rows travel unencrypted. "
            "Set --tls-cert and --tls-key, or --behind-proxy if a proxy terminates TLS."
        )
    return warnings
