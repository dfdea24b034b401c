"""The address of a model's file: `hf:OWNER/REPO/FILE[@REVISION]`, or `https://…`."""

from __future__ import annotations

import ipaddress
import os
import re
from urllib.parse import quote, unquote, urlsplit

import msgspec

from clewline.errors import InvalidInput, NotSupported

HUB = "https://huggingface.co"
"""The hub of `hf:`, unless HF_ENDPOINT names another."""

_PART = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.-]{1,96}", re.ASCII)
_PREFIXES = ("hf:", "http://", "https://", "torch.hub:")


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """One file, and what a hub needs to be asked about it."""

    text: str  # as it was written
    url: str
    hub: str | None = None  # the hub's URL, if it is a file of one
    repo: str = ""  # OWNER/REPO
    path: str = ""  # of the file in the repository
    revision: str | None = None  # branch, tag or commit; None: main

    @property
    def filename(self) -> str:
        """The last part of the path."""
        return unquote(urlsplit(self.url).path).rpartition("/")[2] or "model"


def is_address(text: str) -> bool:
    """
    Return whether a text is the address of a remote file.

    >>> is_address("hf:onnx/iris/model.onnx"), is_address("model.onnx")
    (True, False)
    """
    return text.startswith(_PREFIXES)


def parse_address(text: str) -> Address:
    """
    Parse an address.

    Raises:
        InvalidInput: It is malformed, or asks for plain HTTP beyond this machine.
        NotSupported: It leads to code rather than to a file.
    """
    if text.startswith("torch.hub:"):
        raise _code_repository(text.removeprefix("torch.hub:"))
    if text.startswith("hf:"):
        rest = text.removeprefix("hf:")
        where, at, revision = rest.partition("@")
        owner, _, below = where.partition("/")
        repo, _, path = below.partition("/")
        has_path = path and all(part not in ("", ".", "..") for part in path.split("/"))
        has_names = _PART.fullmatch(owner) and _PART.fullmatch(repo)
        if not (has_path and has_names) or (at and not revision) or re.search(r"[\s\\?#]", rest):
            raise InvalidInput(
                f"{text!r} does not name a file of a hub.",
                "Write hf:OWNER/REPO/PATH/FILE, followed by @REVISION if it is not main.",
            )
        return _hub_file(text, f"{owner}/{repo}", path, revision or None)
    require_safe(text)
    url = urlsplit(text)
    if url.hostname in ("github.com", "www.github.com"):
        parts = url.path.strip("/").split("/")
        is_file = parts[2:3] == ["raw"] or parts[2:4] == ["releases", "download"]
        if len(parts) >= 5 and parts[2] == "blob":
            file = text.replace("/blob/", "/raw/", 1)
            raise InvalidInput(f"{text} is the page that shows a file.", f"Write {file}.")
        if len(parts) < 5 or not is_file:
            raise _code_repository("/".join(parts[:2]))
    hub = hub_url()
    if url_origin(text) == url_origin(hub):  # the address that a browser shows
        parts = url.path.removeprefix(urlsplit(hub).path).strip("/").split("/")
        if len(parts) >= 5 and parts[2] in ("resolve", "blob", "raw"):
            repo, path = "/".join(parts[:2]), unquote("/".join(parts[4:]))
            return _hub_file(text, repo, path, unquote(parts[3]))
    return Address(text=text, url=text)


def _hub_file(text: str, repo: str, path: str, revision: str | None) -> Address:
    hub = hub_url()
    url = f"{hub}/{repo}/resolve/{quote(revision or 'main', safe='')}/{quote(path)}"
    return Address(text=text, url=url, hub=hub, repo=repo, path=path, revision=revision)


def _code_repository(repo: str) -> NotSupported:
    return NotSupported(
        f"{repo} is a repository of code: its loader (hubconf.py for torch.hub) is Python that "
        "would run here, and its weights are a pickle.",
        "If it publishes an ONNX file, import that file with its digest: https://…/FILE.onnx or "
        "hf:OWNER/REPO/FILE.onnx. Otherwise load the model where you trust it, and export it with "
        "torch.onnx.export(…).",
    )


def hub_url() -> str:
    """
    Return the hub's URL: HF_ENDPOINT, or Hugging Face.

    Raises:
        InvalidInput: HF_ENDPOINT is not a URL, or is plain HTTP beyond this machine.
    """
    found = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    require_safe(found)
    return found


def require_safe(url: str) -> None:
    """
    Check that a URL is HTTPS; plain HTTP is allowed only to this machine.

    Raises:
        InvalidInput: It is something else, or holds a name and password.
    """
    fix = "Write https://HOST/FILE."
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidInput(f"{url!r} is not an address: {error}.", fix) from error
    if not host or parts.scheme not in ("http", "https") or re.search(r"[\s\x00-\x1f]", url):
        raise InvalidInput(f"{url!r} is not an address.", fix)
    if parts.username is not None or parts.password is not None:
        raise InvalidInput(
            f"The address of {host} holds a name or password, which would be recorded.",
            "Leave it out; a hub's token is read from HF_TOKEN.",
        )
    try:
        is_this_machine = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_this_machine = host == "localhost"
    if parts.scheme == "http" and not is_this_machine:
        raise InvalidInput(
            f"{url} is plain HTTP, so anyone on the way can change the file.",
            "Use https://.",
        )


def url_origin(url: str) -> tuple[str, str, int | None]:
    """
    Return scheme, host and port; a token for one origin is not sent to another.

    Source:
        RFC 6454.
    """
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), port
