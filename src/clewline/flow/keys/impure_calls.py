"""
The functions of Python and NumPy whose result depends on neither arguments nor files.

A fact of the machine, such as its number of processors, becomes part of the key. No key
can hold the time or a random number, so a step that asks for one is not cached. Functions
are recognised by what they are, whatever the name by which code reaches them.
"""

from __future__ import annotations

import datetime
import decimal
import functools
import getpass
import os
import random
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any


def _user() -> str:
    """Return the user's name, or the number if it has none, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _decimal_context() -> tuple[Any, ...]:
    context = decimal.getcontext()
    return (context.prec, context.rounding, context.Emin, context.Emax, context.clamp)


FACTS: dict[str, Callable[[], Any]] = {
    "os.cpu_count()": os.cpu_count,
    "os.getcwd()": os.getcwd,
    "getpass.getuser()": _user,
    "time.tzname": lambda: (os.environ.get("TZ"), time.tzname),
    "decimal.getcontext()": _decimal_context,
    "os.getuid()": getattr(os, "getuid", int),
    "socket.gethostname()": socket.gethostname,
    "sys.argv": lambda: sys.argv,
    "tempfile.gettempdir()": tempfile.gettempdir,
}
"""Facts of the machine and the process that a key can hold, and how to ask for them."""

_FACT_OF = {
    **dict.fromkeys(
        ("os.cpu_count", "os.process_cpu_count", "os.sched_getaffinity", "BaseContext.cpu_count",
         "joblib.parallel.cpu_count", "joblib.externals.loky.backend.context.cpu_count"),
        "os.cpu_count()",
    ),
    **dict.fromkeys(("os.getcwd", "os.getcwdb", "pathlib.Path.cwd"), "os.getcwd()"),
    "os.getuid": "os.getuid()",
    **dict.fromkeys(("os.getlogin", "getpass.getuser"), "getpass.getuser()"),
    "decimal.Decimal": "decimal.getcontext()",
    **dict.fromkeys(
        ("socket.gethostname", "socket.getfqdn", "platform.node", "platform.uname", "os.uname"),
        "socket.gethostname()",
    ),
    **dict.fromkeys(
        ("pathlib.Path.home", "pathlib.Path.expanduser", "posixpath.expanduser"), "HOME"
    ),
    "tempfile.gettempdir": "tempfile.gettempdir()",
}  # fmt: skip

_NEVER = {
    **dict.fromkeys(
        ("time.time", "time.time_ns"), "the clock (time.perf_counter() measures durations)"
    ),
    **dict.fromkeys(
        ("os.urandom", "os.getrandom", "uuid.uuid1", "uuid.uuid4", "random.SystemRandom"),
        "random bits that no seed repeats",
    ),
    **dict.fromkeys(("os.getpid", "os.getppid"), "the number of its process"),
    **dict.fromkeys(("os.getloadavg", "os.times", "shutil.disk_usage", "os.statvfs"), "the load"),
    "builtins.input": "the keyboard",
}

_NEVER_WITHOUT_ARGUMENTS = {
    **dict.fromkeys(("time.localtime", "time.gmtime", "time.ctime", "time.asctime"), "the clock"),
    **dict.fromkeys(
        ("random.Random", "numpy.random.default_rng", "numpy.random.RandomState",
         "numpy.random.SeedSequence", "numpy.random.PCG64", "numpy.random.MT19937",
         "numpy.random.Philox", "numpy.random.SFC64", "numpy.random.seed", "random.Random.seed"),
        "random bits that no seed repeats (give it a seed)",
    ),
}  # fmt: skip

FACT_OF_ATTRIBUTE = {
    "expanduser": "HOME",
    **dict.fromkeys(
        ("astimezone", "timestamp", "fromtimestamp", "localtime", "mktime", "tzname"),
        "time.tzname",
    ),
}
"""Methods, of whatever object, that depend on a fact."""

_READ_NOW = ("to_datetime", "Timestamp", "DatetimeIndex", "datetime64")
"""Functions of pandas and NumPy that take the text "now" or "today" for the time."""

_CLOCK_METHODS = frozenset({"now", "utcnow", "today"})
_HOMES = {"posix": "os", "nt": "os", "_socket": "socket", "_datetime": "datetime"}


def fact_of(value: Any) -> str | None:
    """Return the fact of FACTS, or the environment variable, that a callable asks for, or None."""
    return _FACT_OF.get(_name_of(value))


def unrepeatable(value: Any, arguments: int | None, text: str | None = None) -> str | None:
    """
    Return what a callable reads that no key can hold, or None.

    Args:
        value: The callable.
        arguments: With how many it is called; None if that is not known.
        text: The first of them, if it is a text.
    """
    name, owner = _name_of(value), getattr(value, "__self__", None)
    if isinstance(owner, random.SystemRandom) or name.startswith("secrets."):
        return "random bits that no seed repeats"
    if isinstance(owner, type) and issubclass(owner, datetime.date):  # pandas.Timestamp too
        return "the clock" if value.__name__ in _CLOCK_METHODS else None
    if text in ("now", "today") and name.endswith(_READ_NOW):
        return "the clock"
    if name == "time.strftime":
        return "the clock" if arguments == 1 else None
    if arguments == 0 and name in _NEVER_WITHOUT_ARGUMENTS:
        return _NEVER_WITHOUT_ARGUMENTS[name]
    return _NEVER.get(name)


def _name_of(value: Any) -> str:
    """Return the import path of a callable; of a method bound to a hidden object its own path."""
    if isinstance(value, functools.partial):
        value = value.func
    name, module = getattr(value, "__qualname__", None), getattr(value, "__module__", None)
    if not isinstance(name, str):
        return ""
    if not isinstance(module, str):  # a builtin method of an object
        return name
    if name == "BaseContext.cpu_count":
        return name
    if module == "pathlib._abc":  # of Python 3.13
        name = name.replace("PathBase.", "Path.")
    if module.startswith(("numpy.random.", "pathlib.")):
        module = ".".join(module.split(".")[: 2 if module.startswith("numpy") else 1])
    return f"{_HOMES.get(module, module)}.{name}"
