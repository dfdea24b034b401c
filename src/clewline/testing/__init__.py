"""Contracts that every store, runtime, node and executor must pass; they run under pytest."""

try:
    import pytest  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "The contracts of clewline.testing run under pytest, which is not installed: "
        "pip install pytest",
        name="pytest",
    ) from error
