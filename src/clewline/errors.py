"""
Every error of clewline, in one short tree.

    ClewlineError
    ├── UsageError              the call was wrong                       exit 2
    │   ├── BadRequest          a header or parameter of a request that is not right
    │   ├── BodyTooLarge        a request's body over the limit
    │   ├── InvalidInput        rows or fields that the signature refuses
    │   │   ├── MalformedInput  not JSON at all, or not of the shape that holds rows
    │   │   ├── TooManyRows     more rows than one request may have
    │   │   └── UnknownFormat   a body in a format or coding that is not read
    │   ├── InvalidConfig       a YAML or TOML file that says what we do not know
    │   ├── NotFound            no such run, model, alias, endpoint, prediction …
    │   ├── NotStorable         a value that has no safe format
    │   ├── NotSupported        known, and not built or not installed
    │   ├── Conflict            somebody else holds it: a port, a lock, a number
    │   ├── Unauthorized        no token, or none that is known
    │   └── Forbidden           a token whose roles do not allow it
    ├── CheckFailed             the answer is no: a gate, a replay       exit 1
    │   ├── RunFailed           a step or a pipeline raised
    │   ├── GateRefused         a version does not pass gate.yaml
    │   └── IntegrityError      bytes that are not what was recorded
    │       ├── BlobMissing     a blob that a record needs is not in the store
    │       └── BlobCorrupt     a blob's bytes do not give its digest
    └── Fault                   our side cannot go on                    exit 3
        ├── StoreFull           the disk is full
        ├── StoreReadOnly       the store cannot be written
        ├── StoreNewer          a newer clewline wrote it
        ├── Overloaded          the queue is full, try again
        │   └── TooManyFailures too many wrong tokens, try again later
        ├── DeadlineExceeded    the caller's time is over before the answer
        └── ModelFailed         a node raised; the rows' ids are in the log

Each says what happened, with the values, and what to do next. The table from
error to HTTP status stands in `clewline.protocols`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import msgspec


class FieldProblem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One field of one row that was refused: its value and what was expected."""

    row: int
    field: str | None
    value: Any
    expected: str


class ClewlineError(Exception):
    """An error that states what happened and what to do next."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, fix: str | None = None) -> None:
        super().__init__(message, fix)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message} {self.fix}" if self.fix else self.message


class UsageError(ClewlineError):
    """The call was wrong; the caller can mend it."""

    code = "usage"
    exit_code = 2


class BadRequest(UsageError):
    """A header or parameter of a request is not what it may be."""

    code = "bad_request"


class BodyTooLarge(UsageError):
    """A request's body, decompressed if it came so, is over the limit."""

    code = "body_too_large"


class InvalidInput(UsageError):
    """Rows or fields that the signature refuses; `fields` names every one."""

    code = "invalid_input"

    def __init__(
        self, message: str, fix: str | None = None, fields: tuple[FieldProblem, ...] = ()
    ) -> None:
        super().__init__(message, fix)
        self.args = (message, fix, fields)
        self.fields = fields


class MalformedInput(InvalidInput):
    """Not JSON, or JSON that does not hold rows."""

    code = "malformed_input"


class TooManyRows(InvalidInput):
    """More rows than one request may have."""

    code = "too_many_rows"


class UnknownFormat(MalformedInput):
    """A body in a format, or under a coding, that is not read here."""

    code = "unsupported_media_type"


class InvalidConfig(UsageError):
    """A configuration file holds something that is not known or not built."""

    code = "invalid_config"


class NotFound(UsageError):
    """Nothing has that name, id or digest."""

    code = "not_found"


class NotStorable(UsageError):
    """A value has no safe format to be stored in."""

    code = "not_storable"


class NotSupported(UsageError):
    """What was asked for is not built, or an extra is not installed."""

    code = "not_supported"


class Conflict(UsageError):
    """Somebody else holds what was asked for."""

    code = "conflict"


class Unauthorized(UsageError):
    """The caller gave no token, or none that is known and in force."""

    code = "unauthorized"


class Forbidden(UsageError):
    """The caller's token has no role that allows this."""

    code = "forbidden"


class CheckFailed(ClewlineError):
    """The question was fair and the answer is no."""

    code = "check_failed"
    exit_code = 1


class RunFailed(CheckFailed):
    """A step or a pipeline of the user's raised; what was finished before is kept."""

    code = "run_failed"

    def __init__(
        self, message: str, fix: str | None = None, run: str = "", step: str | None = None
    ) -> None:
        super().__init__(message, fix)
        self.args = (message, fix, run, step)
        self.run, self.step = run, step


class GateRefused(CheckFailed):
    """A version does not pass `gate.yaml`; `verdicts` holds every line of it, judged."""

    code = "gate_refused"

    def __init__(
        self, message: str, fix: str | None = None, verdicts: tuple[Any, ...] = ()
    ) -> None:
        super().__init__(message, fix)
        self.args = (message, fix, verdicts)
        self.verdicts = verdicts


class IntegrityError(CheckFailed):
    """Bytes are not what was recorded of them."""

    code = "integrity"


class BlobMissing(IntegrityError):
    """A blob that a record needs is not in the store."""

    code = "blob_missing"


class BlobCorrupt(IntegrityError):
    """The bytes of a blob do not give its digest."""

    code = "blob_corrupt"


class Fault(ClewlineError):
    """Our side cannot go on."""

    code = "fault"
    exit_code = 3


class StoreFull(Fault):
    """The disk under the store is full; nothing was written in part."""

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
        super().__init__(message, fix)
        self.args = (message, fix, retry_after_s)
        self.retry_after_s = retry_after_s


class TooManyFailures(Overloaded):
    """Too many wrong tokens came from there; try again after `retry_after_s` seconds."""

    code = "too_many_requests"


class DeadlineExceeded(Fault):
    """The time that the caller allowed is over; what was not begun is not computed."""

    code = "deadline_exceeded"


class ModelFailed(Fault):
    """A node of the endpoint raised; the rows are in the log under `ids`, with the reason."""

    code = "model_failed"

    def __init__(self, message: str, fix: str | None = None, ids: tuple[str, ...] = ()) -> None:
        super().__init__(message, fix)
        self.args = (message, fix, ids)
        self.ids = ids


def did_you_mean(name: object, known: Iterable[str], otherwise: str | None = None) -> str:
    """
    Suggest the known name that is nearest to a wrong one; for the fix of an error.

    Args:
        name: What was given.
        known: The names that there are.
        otherwise: What to say when none is near; the known names by default.

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
    return f"Known names: {', '.join(names[:10])}{rest}." if names else "There are none yet."
