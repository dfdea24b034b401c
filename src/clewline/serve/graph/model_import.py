"""`model: {from: …, digest: …, name: …}`: a file from elsewhere that becomes a version here."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from clewline.serve.graph.problems import Problems, nearest

KEYS = ("from", "digest", "name", "signature", "sample")
ADDRESS = re.compile(r"(hf:|https?://|torch\.hub:)\S+")

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class DeclaredImport(msgspec.Struct, frozen=True, kw_only=True):
    """What an endpoint's file says of a model from elsewhere; only `apply` and `check` fetch it."""

    at: str
    source: str  # hf:OWNER/REPO/FILE, or https://…
    digest: str | None = None  # sha256:…; without one it is refused
    name: str | None = None  # of the model that it becomes
    signature: str | None = None  # file of the project that states fields and output
    sample: str | None = None  # file of the project with rows


def read(value: dict[Any, Any], at: str, problems: Problems) -> DeclaredImport | None:
    """Read the mapping; what is wrong is entered."""
    before = len(problems)
    for key in value:
        if key not in KEYS:
            hint = nearest(key, KEYS, f"{at}.")
            problems.add(f"{at}.{key}", f"the key {at}.{key} is not known.", hint)
    source, name, digest = value.get("from"), value.get("name"), value.get("digest")
    if not isinstance(source, str) or not ADDRESS.fullmatch(source):
        fix = "Write hf:OWNER/REPO/PATH/FILE or https://HOST/FILE."
        problems.add(f"{at}.from", f"{at}.from is {source!r}.", fix)
    if not isinstance(name, str) or not name:
        fix = "Write the name that the model is to have here, such as name: detector."
        problems.add(f"{at}.name", f"{at}.name is {name!r}.", fix)
    if digest is not None and not (isinstance(digest, str) and _DIGEST.fullmatch(digest)):
        fix = "Write sha256: and the 64 hex characters of the file; in lower case."
        problems.add(f"{at}.digest", f"{at}.digest is {digest!r}.", fix)
    files = {key: value[key] for key in ("signature", "sample") if key in value}
    for key, path in files.items():
        if not isinstance(path, str) or not path:
            fix = "Write a path from the project's folder."
            problems.add(f"{at}.{key}", f"{at}.{key} is {path!r}.", fix)
    if len(problems) > before:
        return None
    return DeclaredImport(at=at, source=str(source), digest=digest, name=name, **files)


def of_text(text: str, at: str) -> str | DeclaredImport:
    """Give a text that is an address as a model from elsewhere, which lacks its digest."""
    return DeclaredImport(at=at, source=text) if ADDRESS.fullmatch(text) else text
