"""What only a hub tells: a file's digest before it is fetched, its licence, its neighbours."""

from __future__ import annotations

import difflib
import os
import re
from typing import Any
from urllib.parse import quote

import msgspec

from clewline.errors import ClewlineError, Forbidden, NotFound
from clewline.hub.address import Address
from clewline.hub.web import WIRE_ERRORS, DownloadLimits, HubFault, HubRefused, open_url

_SHA256 = re.compile(r'"?([0-9a-f]{64})"?')
_MOST_TOLD = 8 << 20
"""Bytes of a listing that are read."""

SERVED = (".onnx", ".txt", ".json", ".ubj", ".cbm")


class _Card(msgspec.Struct):
    license: Any = None


class _Sibling(msgspec.Struct):
    rfilename: str


class _Repository(msgspec.Struct):
    siblings: list[_Sibling] = []
    tags: list[str] = []
    cardData: _Card | None = None  # as the hub spells it


def token(address: Address) -> str | None:
    """Give HF_TOKEN, for a file of the hub alone."""
    found = os.environ.get("HF_TOKEN", "").strip()
    return found if address.hub is not None and found else None


def told_digest(headers: Any) -> str | None:
    """Give the SHA-256 that a hub states for a file that it keeps in LFS."""
    found = _SHA256.fullmatch(headers.get("X-Linked-Etag", "").strip())
    return found[1] if found else None


def licence(address: Address, bounds: DownloadLimits) -> str | None:
    """Give the licence of a file's repository; None where the hub does not tell it."""
    if address.hub is None:
        return None
    try:
        repository = _repository(address, bounds)
    except (ClewlineError, OSError, msgspec.MsgspecError):
        return None  # the file itself was fetched, and a licence is told or is not
    card = repository.cardData.license if repository.cardData else None
    if isinstance(card, str):
        return card
    tags = [tag.removeprefix("license:") for tag in repository.tags if tag.startswith("license:")]
    return tags[0] if tags else None


def explained(address: Address, error: HubRefused, bounds: DownloadLimits) -> ClewlineError:
    """Turn a hub's refusal into what a person can do about it."""
    if address.hub is None:
        return error
    page = f"{address.hub}/{address.repo}"
    code = error.headers.get("X-Error-Code", "")
    if error.status in (401, 403):
        shown = "was shown and is not enough" if token(address) else "is not set"
        return Forbidden(
            f"{address.url} answered {error.status}: the repository is gated or private, or there "
            f"is none of this name ({code or 'no reason was given'}); HF_TOKEN {shown}.",
            f"Accept its terms on {page}, make a token that may read it, and set HF_TOKEN.",
        )
    if error.status == 404:
        return NotFound(
            f"{address.url} answered 404: {_missing(address, code)}.", _likely(address, bounds)
        )
    return error


def _missing(address: Address, code: str) -> str:
    match code:
        case "RepoNotFound":
            return f"there is no repository {address.repo}"
        case "RevisionNotFound":
            return f"{address.repo} has no revision {address.revision or 'main'}"
        case _:
            return f"{address.repo} has no file {address.path} at {address.revision or 'main'}"


def _likely(address: Address, bounds: DownloadLimits) -> str:
    """Name files of the repository that may have been meant."""
    try:
        names = [each.rfilename for each in _repository(address, bounds).siblings]
    except (ClewlineError, OSError, msgspec.MsgspecError):
        return f"Look at {address.hub}/{address.repo} for what there is."
    likely = difflib.get_close_matches(address.path, names, n=3)
    likely += [name for name in names if name.endswith(SERVED) and name not in likely]
    if not likely:
        return f"None of its {len(names)} files is of a kind that can be served."
    return f"It has {', '.join(likely[:8])}."


def _repository(address: Address, bounds: DownloadLimits) -> _Repository:
    url = f"{address.hub}/api/models/{address.repo}"
    if address.revision is not None:
        url += f"/revision/{quote(address.revision, safe='')}"
    with open_url(url, bounds, token=token(address)) as answer:
        try:
            data = answer.response.read(_MOST_TOLD)
        except WIRE_ERRORS as error:
            raise HubFault(f"{url} broke off: {error}.") from error
        return msgspec.json.decode(data, type=_Repository)
