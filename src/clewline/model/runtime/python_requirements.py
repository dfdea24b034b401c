"""What a Python model needs to be installed, held against what is."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from clewline.errors import NotSupported


def other_versions(required: Mapping[str, str], who: str) -> list[str]:
    """
    Hold requirements against what is installed.

    Args:
        required: Distribution → version at registration.
        who: Needs them.

    Returns:
        A sentence for each that is there in another version.

    Raises:
        NotSupported: One is not installed; names the command that installs what is missing.
    """
    found = {name: _installed(name) for name in required}
    missing = [f"{name}=={required[name]}" for name, here in found.items() if here is None]
    if missing:
        raise NotSupported(
            f"{who} needs {', '.join(missing)}, which is not installed.",
            f"pip install {' '.join(missing)}",
        )
    return [
        f"{who} was registered with {name} {required[name]}, and {here} is installed."
        for name, here in found.items()
        if here != required[name]
    ]


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
