"""Where a model's file is to be had: `hf:OWNER/REPO/FILE[@REVISION]`, or `https://…`."""

from __future__ import annotations

import ipaddress
import os
import re
from urllib.parse import quote, unquote, urlsplit

import msgspec

from clewline.errors import InvalidInput, NotSupported

HUB = "https://huggingface.co"
"""Where `hf:` leads, unless HF_ENDPOINT says otherwise."""

_PART = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.-]{1,96}", re.ASCII)
_PREFIXES = ("hf:", "http://", "https://", "torch.hub:")


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """One file, and what a hub needs to be asked about it."""

    text: str  # as it was written
    url: str
    hub: str | None = None  # the hub's own address, where it is a file of one
    repo: str = ""  # OWNER/REPO
    path: str = ""  # of the file in it
    revision: str | None = None  # branch, tag or commit; None: main

    @property
    def filename(self) -> str:
        """The last part of the path."""
        return unquote(urlsplit(self.url).path).rpartition("/")[2] or "model"


def is_address(text: str) -> bool:
    """
    Whether a text says where a file is to be had elsewhere.

    >>> is_address("hf:onnx/iris/model.onnx"), is_address("model.onnx")
    (True, False)
    """
    return text.startswith(_PREFIXES)


def parse_address(text: str) -> Address:
    """
    Read an address.

    Raises:
        InvalidInput: It is not so written, or asks for plain HTTP beyond this machine.
        NotSupported: It leads to code rather than to a file.
    """
    if text.startswith("torch.hub:"):
        raise _code(text.removeprefix("torch.hub:"))
    if text.startswith("hf:"):
        return _of_hub(text, text.removeprefix("hf:"))
    require_safe(text)
    parts = urlsplit(text)
    if parts.hostname in ("github.com", "www.github.com"):
        _require_file_of_github(text, parts.path)
    return _known_hub(text) or Address(text=text, url=text)


def hub_url() -> str:
    """
    Give the hub's address: HF_ENDPOINT, or Hugging Face.

    Raises:
        InvalidInput: HF_ENDPOINT is no address that may be asked.
    """
    found = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    require_safe(found)
    return found


def require_safe(url: str) -> None:
    """
    Refuse what is not HTTPS; plain HTTP may be spoken with this machine alone.

    Raises:
        InvalidInput: It is something else, or holds a name and password.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidInput(
            f"{url!r} is no address: {error}.", "Write https://HOST/FILE."
        ) from error
    if not host or parts.scheme not in ("http", "https") or re.search(r"[\s\x00-\x1f]", url):
        raise InvalidInput(f"{url!r} is no address.", "Write https://HOST/FILE.")
    if parts.username is not None or parts.password is not None:
        raise InvalidInput(
            f"The address of {host} holds a name or password, which would be recorded.",
            "Leave it out; a hub's token is read from HF_TOKEN.",
        )
    if parts.scheme == "http" and not is_loopback(host):
        raise InvalidInput(
            f"{url} is plain HTTP, where anybody on the way can change the file.",
            "Use https://.",
        )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url_origin(url: str) -> tuple[str, str, int | None]:
    """Give scheme, host and port, which say to whom a token may be sent."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), port


def _of_hub(text: str, rest: str) -> Address:
    where, _, revision = rest.partition("@")
    owner, _, below = where.partition("/")
    repo, _, path = below.partition("/")
    sane = path and all(part not in ("", ".", "..") for part in path.split("/"))
    named = _PART.fullmatch(owner) and _PART.fullmatch(repo)
    if not (sane and named) or ("@" in rest and not revision) or re.search(r"[\s\\?#]", rest):
        raise InvalidInput(
            f"{text!r} names no file of a hub.",
            "Write hf:OWNER/REPO/PATH/FILE, and @REVISION behind it where it is not main.",
        )
    return _hub_file(text, f"{owner}/{repo}", path, revision or None)


def _hub_file(text: str, repo: str, path: str, revision: str | None) -> Address:
    base = hub_url()
    at = quote(revision or "main", safe="")
    url = f"{base}/{repo}/resolve/{at}/{quote(path)}"
    return Address(text=text, url=url, hub=base, repo=repo, path=path, revision=revision)


def _known_hub(text: str) -> Address | None:
    """A file of the hub, by the address that a browser shows."""
    base = hub_url()
    if url_origin(text) != url_origin(base):
        return None
    path = urlsplit(text).path.removeprefix(urlsplit(base).path).strip("/")
    parts = path.split("/")
    if len(parts) < 5 or parts[2] not in ("resolve", "blob", "raw"):
        return None
    return _hub_file(text, "/".join(parts[:2]), unquote("/".join(parts[4:])), unquote(parts[3]))


def _require_file_of_github(text: str, path: str) -> None:
    parts = path.strip("/").split("/")
    if len(parts) >= 5 and (parts[2] == "raw" or parts[2:4] == ["releases", "download"]):
        return
    if len(parts) >= 5 and parts[2] == "blob":
        raise InvalidInput(
            f"{text} is the page that shows a file.", f"Write {text.replace('/blob/', '/raw/', 1)}."
        )
    raise _code("/".join(parts[:2]))


def _code(repo: str) -> NotSupported:
    return NotSupported(
        f"{repo} is a repository of code: its loader (hubconf.py for torch.hub) is Python that "
        "would run here, and its weights are a pickle.",
        "If it publishes an ONNX file, import that one: https://…/FILE.onnx or "
        "hf:OWNER/REPO/FILE.onnx, with its digest. Otherwise load it where it is trusted and "
        "export it with torch.onnx.export(…).",
    )
