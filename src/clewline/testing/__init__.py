"""Contracts that every store, runtime, node and executor must pass; they run under pytest."""

from clewline.entry_points import install_line

try:
    import pytest  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "The contracts of clewline.testing run under pytest, which is not installed: "
        + install_line(["pytest"]),
        name="pytest",
    ) from error
