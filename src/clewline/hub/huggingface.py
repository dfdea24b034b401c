"""Facts that only a hub states: a file's digest before it is fetched, its licence, other files."""

from __future__ import annotations

import difflib
import os
import re
from typing import Any
from urllib.parse import quote

import msgspec

from clewline.errors import ClewlineError, Forbidden, NotFound
from clewline.hub.address import Address
from clewline.hub.download import CONNECTION_ERRORS, DownloadLimits, HubRefused, open_url
from clewline.model_families import families

_SHA256 = re.compile(r'"?([0-9a-f]{64})"?')
_LISTING_BYTES = 8 << 20  # of a listing that are read


class _Repository(msgspec.Struct):
    siblings: list[dict[str, Any]] = []  # {"rfilename": …}
    tags: list[str] = []
    cardData: dict[str, Any] | None = None  # as the hub spells it; {"license": …}


def token(address: Address) -> str | None:
    """Return HF_TOKEN for a file of the hub; None for any other."""
    found = os.environ.get("HF_TOKEN", "").strip()
    return found if address.hub is not None and found else None


def linked_digest(headers: Any) -> str | None:
    """Return the SHA-256 that a hub states for a file that it keeps in LFS."""
    found = _SHA256.fullmatch(headers.get("X-Linked-Etag", "").strip())
    return found[1] if found else None


def licence(address: Address, limits: DownloadLimits) -> str | None:
    """Return the licence of a file's repository; None if the hub does not state it."""
    repository = _read_repository(address, limits) if address.hub is not None else None
    if repository is None:
        return None
    stated = (repository.cardData or {}).get("license")
    if isinstance(stated, str):
        return stated
    tags = [tag.removeprefix("license:") for tag in repository.tags if tag.startswith("license:")]
    return tags[0] if tags else None


def explain_refusal(address: Address, error: HubRefused, limits: DownloadLimits) -> ClewlineError:
    """Return an error that says what a person can do about a hub's refusal."""
    if address.hub is None:
        return error
    page, code = f"{address.hub}/{address.repo}", error.headers.get("X-Error-Code", "")
    if error.status in (401, 403):
        sent = "was sent and is not enough" if token(address) else "is not set"
        return Forbidden(
            f"{address.url} answered {error.status}: the repository is gated or private, or does "
            f"not exist ({code or 'no reason was given'}); HF_TOKEN {sent}.",
            f"Accept its terms on {page}, create a token that may read it, and set HF_TOKEN.",
        )
    if error.status != 404:
        return error
    revision = address.revision or "main"
    reason = {
        "RepoNotFound": f"there is no repository {address.repo}",
        "RevisionNotFound": f"{address.repo} has no revision {revision}",
    }.get(code, f"{address.repo} has no file {address.path} at {revision}")
    repository = _read_repository(address, limits)
    if repository is None:
        fix = f"Look at {page} for its files."
    else:
        names = [str(each.get("rfilename")) for each in repository.siblings]
        likely = difflib.get_close_matches(address.path, names, n=3)
        endings = tuple(ending for family in families() for ending in family.file_endings)
        likely += [name for name in names if name.endswith(endings) and name not in likely]
        fix = f"It has {', '.join(likely[:8])}."
        if not likely:
            fix = f"None of its {len(names)} files is of a kind that can be served."
    return NotFound(f"{address.url} answered 404: {reason}.", fix)


def _read_repository(address: Address, limits: DownloadLimits) -> _Repository | None:
    """Read what the hub states about a repository; None if it does not answer."""
    url = f"{address.hub}/api/models/{address.repo}"
    if address.revision is not None:
        url += f"/revision/{quote(address.revision, safe='')}"
    try:
        with open_url(url, limits, token=token(address)) as response:
            data = response.response.read(_LISTING_BYTES)
            return msgspec.json.decode(data, type=_Repository)
    except (ClewlineError, msgspec.MsgspecError, *CONNECTION_ERRORS):
        return None
