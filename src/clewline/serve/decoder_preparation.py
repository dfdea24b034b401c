"""Builds all decoders before there are threads."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec

import msgspec

from clewline import entry_points

GROUPS = ("clewline.families", "clewline.formats", "clewline.nodes", "clewline.routers")


@cache
def prepare_decoders() -> None:
    """
    Build a decoder for every msgspec type that a server decodes.

    msgspec completes a type when it is decoded for the first time. If two threads that load
    revisions do that at once, one of them sees an incomplete type and the process crashes.
    """
    for group in GROUPS:
        for name in entry_points.names(group):
            with suppress(Exception):  # a broken plug-in is reported when it is needed
                plug_in = entry_points.load_entry_point(group, name)
                loading = f"{plug_in.__module__.rpartition('.')[0]}.loading"
                if find_spec(loading) is not None:
                    import_module(loading)
    types = [msgspec.Struct]
    for each in types:
        types += each.__subclasses__()
        with suppress(TypeError, NameError):  # a type that is only encoded, or never leaves
            msgspec.json.Decoder(each)
            msgspec.msgpack.Decoder(each)
