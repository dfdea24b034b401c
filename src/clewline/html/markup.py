"""
HTML and SVG built from functions, escaped in one place.

Pages are made of data, so they are written as code and not as templates: one function per
element, no other syntax, and the type checker reads it. Text is escaped unless it is `Markup`,
and only `element` makes `Markup`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

Content = Any
"""Text, a number, `Markup`, None (nothing), or an iterable of such."""

LONGEST = 600
"""Largest width of one text on a page, in columns."""

_VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")


class Markup(str):
    """HTML that is already escaped."""

    __slots__ = ()

    def __html__(self) -> Markup:
        """Tell a template engine that this is escaped already."""
        return self


def element(tag: str, *children: Content, **attributes: Any) -> Markup:
    """
    Write an element.

    Args:
        tag: Its name.
        children: What it holds; everything but `Markup` is escaped, and long texts shortened.
        attributes: Name → value. `class_` is `class`, `stroke_width` is `stroke-width`. None
            and False leave an attribute out, True writes it without a value.

    >>> element("p", "1 < 2", class_="note")
    '<p class="note">1 &lt; 2</p>'
    """
    if not _NAME.fullmatch(tag):
        raise ValueError(f"{tag!r} is not the name of an element")
    parts = [f"<{tag}"]
    for key, value in attributes.items():
        name = key.rstrip("_").replace("_", "-")
        if value is None or value is False:
            continue
        parts.append(f" {name}" if value is True else f' {name}="{escape(value)}"')
    parts.append(">")
    if tag not in _VOID:
        parts += [join(*children), f"</{tag}>"]
    return Markup("".join(parts))


def join(*children: Content) -> Markup:
    """Write contents one after the other."""
    return Markup("".join(_flatten(children)))


def _flatten(children: Iterable[Content]) -> Iterable[str]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            yield child
        elif isinstance(child, str):
            yield escape(child if len(child) <= LONGEST else shorten(child, LONGEST))
        elif not isinstance(child, Iterable):
            yield escape(child)
        else:
            yield from _flatten(child)


def escape(value: Any) -> str:
    """
    Write any value as text that HTML and XML accept, between tags and inside quotes.

    Characters that XML does not allow become U+FFFD.
    """
    text = _UNFIT.sub("\ufffd", str(value))
    for character, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(character, name)
    return text.replace("'", "&#39;")


def isolated(value: Any, longest: int = 200) -> Markup:
    """Write a foreign text so that its direction of writing does not reach its neighbours."""
    return element("bdi", shorten(str(value), longest))


def shorten(text: str, longest: int) -> str:
    """
    Shorten a text in its middle, write line breaks as spaces, and say if it is empty.

    Args:
        text: Any text.
        longest: Its largest width in columns; wide characters count as two.

    >>> shorten("a very long name", 9)
    'a ver…ame'
    """
    flat = " ".join(text[: 4 * longest + 200].split())
    if len(text) <= 4 * longest + 200 and _width(flat) <= longest:
        return flat or "(empty)"
    end = text[-longest:] if len(text) > 4 * longest + 200 else flat
    tail = _cut(" ".join(end.split())[::-1], max(1, (longest - 1) * 2 // 5))[::-1]
    return f"{_cut(flat, longest - 1 - _width(tail))}…{tail}"


def _width(text: str) -> int:
    return sum(1 + (unicodedata.east_asian_width(each) in "WF") for each in text)


def _cut(text: str, longest: int) -> str:
    width = 0
    for place, character in enumerate(text):
        width += 1 + (unicodedata.east_asian_width(character) in "WF")
        if width > longest:
            return text[:place]
    return text
