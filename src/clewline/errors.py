"""
Every error of clewline, in one short tree.

    ClewlineError
    ├── UsageError              the call was wrong                       exit 2
    │   ├── BadRequest          a header or parameter of a request is invalid
    │   ├── BodyTooLarge        the body of a request is over the limit
    │   ├── InvalidInput        the signature refuses rows or fields
    │   │   ├── MalformedInput  a body is not JSON, or does not hold rows
    │   │   ├── TooManyRows     a request has too many rows
    │   │   └── UnknownFormat   a body has an unknown format or coding
    │   ├── InvalidConfig       a YAML or TOML file has unknown or wrong content
    │   ├── NotFound            there is no such run, model, alias, endpoint …
    │   ├── NotStorable         a value has no safe format
    │   ├── NotSupported        a feature is not built or not installed
    │   ├── Conflict            somebody else has it: a port, a lock, a number
    │   ├── Unauthorized        no token was sent, or an unknown one
    │   ├── Forbidden           the roles of the token do not allow it
    │   ├── CrossSite           a browser sent it for a page of another site
    │   └── Misdirected         it asks for a host that is not this server
    ├── CheckFailed             a check failed: a gate, a replay         exit 1
    │   ├── RunFailed           a step or a pipeline raised
    │   ├── GateRefused         a version does not pass gate.yaml
    │   └── IntegrityError      bytes differ from what was recorded
    │       ├── BlobMissing     a blob that a record needs is not in the store
    │       └── BlobCorrupt     the bytes of a blob do not match its digest
    └── Fault                   clewline cannot go on                    exit 3
        ├── StoreFull           the disk is full
        ├── StoreReadOnly       the store cannot be written
        ├── StoreNewer          a newer clewline wrote it
        ├── Overloaded          the queue is full; try again
        │   └── TooManyFailures too many wrong tokens were sent; try again later
        ├── DeadlineExceeded    the caller's time was over before the answer
        └── ModelFailed         a node raised; the rows are in the log

Each error says what happened, with the values, and what to do next. The table from error to HTTP
status stands in `clewline.protocols`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import msgspec


class FieldProblem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A field of a row that was refused: its value, and the value that was expected."""

    row: int
    field: str | None
    value: Any
    expected: str


class ClewlineError(Exception):
    """An error that states what happened and what to do next."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, fix: str | None = None, *details: object) -> None:
        super().__init__(message, fix, *details)  # all of them, so that it can be pickled
        self.message, self.fix = message, fix

    def __str__(self) -> str:
        return f"{self.message} {self.fix}" if self.fix else self.message


class UsageError(ClewlineError):
    """The call was wrong; the caller can correct it."""

    code = "usage"
    exit_code = 2


class BadRequest(UsageError):
    """A header or parameter of a request is invalid."""

    code = "bad_request"


class BodyTooLarge(UsageError):
    """The body of a request, after decompression, is over the limit."""

    code = "body_too_large"


class InvalidInput(UsageError):
    """The signature refuses rows or fields; `fields` lists every one."""

    code = "invalid_input"

    def __init__(
        self, message: str, fix: str | None = None, fields: tuple[FieldProblem, ...] = ()
    ) -> None:
        super().__init__(message, fix, fields)
        self.fields = fields


class MalformedInput(InvalidInput):
    """A body is not JSON, or its JSON does not hold rows."""

    code = "malformed_input"


class TooManyRows(InvalidInput):
    """A request has more rows than it may have."""

    code = "too_many_rows"


class UnknownFormat(MalformedInput):
    """A body has a format or coding that this server does not read."""

    code = "unsupported_media_type"


class InvalidConfig(UsageError):
    """A configuration file has content that is unknown or not supported."""

    code = "invalid_config"


class NotFound(UsageError):
    """Nothing has that name, id or digest."""

    code = "not_found"


class NotStorable(UsageError):
    """A value has no safe format to be stored in."""

    code = "not_storable"


class NotSupported(UsageError):
    """A feature is not built, or the extra that it needs is not installed."""

    code = "not_supported"


class Conflict(UsageError):
    """Somebody else has what the call needs."""

    code = "conflict"


class Unauthorized(UsageError):
    """The caller sent no token, or one that is unknown, expired or revoked."""

    code = "unauthorized"


class Forbidden(UsageError):
    """The roles of the caller's token do not allow this."""

    code = "forbidden"


class CrossSite(UsageError):
    """A browser sent the request for a page of another site."""

    code = "cross_site"


class Misdirected(UsageError):
    """The request asks for a host that is not this server."""

    code = "misdirected"


class CheckFailed(ClewlineError):
    """The call was right, and a check failed."""

    code = "check_failed"
    exit_code = 1


class RunFailed(CheckFailed):
    """A step or pipeline of the user raised; finished steps are kept."""

    code = "run_failed"

    def __init__(
        self, message: str, fix: str | None = None, run: str = "", step: str | None = None
    ) -> None:
        super().__init__(message, fix, run, step)
        self.run, self.step = run, step


class GateRefused(CheckFailed):
    """A version does not pass `gate.yaml`; `verdicts` has a verdict for each of its rules."""

    code = "gate_refused"

    def __init__(
        self, message: str, fix: str | None = None, verdicts: tuple[Any, ...] = ()
    ) -> None:
        super().__init__(message, fix, verdicts)
        self.verdicts = verdicts


class IntegrityError(CheckFailed):
    """Bytes differ from what was recorded."""

    code = "integrity"


class BlobMissing(IntegrityError):
    """A blob that a record needs is not in the store."""

    code = "blob_missing"


class BlobCorrupt(IntegrityError):
    """The bytes of a blob do not match its digest."""

    code = "blob_corrupt"


class Fault(ClewlineError):
    """Clewline cannot go on; the call was right."""

    code = "fault"
    exit_code = 3


class StoreFull(Fault):
    """The disk under the store is full; nothing was written partly."""

    code = "store_full"


class StoreReadOnly(Fault):
    """The store cannot be written."""

    code = "store_read_only"


class StoreNewer(Fault):
    """A newer clewline wrote this store."""

    code = "store_newer"


class Overloaded(Fault):
    """The queue is full; try again after `retry_after_s` seconds."""

    code = "overloaded"

    def __init__(self, message: str, fix: str | None = None, retry_after_s: float = 1.0) -> None:
        super().__init__(message, fix, retry_after_s)
        self.retry_after_s = retry_after_s


class TooManyFailures(Overloaded):
    """An address sent too many wrong tokens; try again after `retry_after_s` seconds."""

    code = "too_many_requests"


class DeadlineExceeded(Fault):
    """The time that the caller allowed is over; rows that wait are not computed."""

    code = "deadline_exceeded"


class ModelFailed(Fault):
    """A node of the endpoint raised; the log has the rows under `ids`, with the reason."""

    code = "model_failed"

    def __init__(self, message: str, fix: str | None = None, ids: tuple[str, ...] = ()) -> None:
        super().__init__(message, fix, ids)
        self.ids = ids


def did_you_mean(name: object, known: Iterable[str], otherwise: str | None = None) -> str:
    """
    Suggest the known name that is nearest to a wrong one; for the fix of an error.

    Args:
        name: The wrong name.
        known: The names that there are.
        otherwise: The text where none is near; a list of the known names by default.

    >>> did_you_mean("modle", ["model", "graph"])
    "Did you mean 'model'?"
    >>> did_you_mean("x", ["model", "graph"])
    'Known names: graph, model.'
    """
    import difflib  # 5 ms that a command without a mistake need not pay

    names = sorted(set(known))
    near = difflib.get_close_matches(str(name), names, n=1)
    if near:
        return f"Did you mean {near[0]!r}?"
    if otherwise is not None:
        return otherwise
    rest = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"Known names: {', '.join(names[:10])}{rest}." if names else "None exists yet."
