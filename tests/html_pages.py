"""Reads a page as a browser would, and checks what holds of every page of ours."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree

VOID = {"br", "hr", "meta"}
ALLOWED = {
    *("html", "head", "title", "style", "body", "div", "header", "main", "nav", "section"),
    *("footer", "h1", "h2", "h3", "p", "a", "ol", "ul", "li", "dl", "dt", "dd", "b", "strong"),
    *("small", "span", "bdi", "code", "figure", "figcaption", "details", "summary", "table"),
    *("caption", "thead", "tbody", "tr", "th", "td", "svg", "desc", "rect", "line", "circle"),
    *("path", "text", "meta", "br", "hr"),
}


class ReadPage(HTMLParser):
    """The elements of a page: (tag, attributes), their texts, and whether all are closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    def count(self, tag: str) -> int:
        """How many elements of a name there are."""
        return sum(name == tag for name, _, _ in self.elements)

    @property
    def text(self) -> str:
        """All text, with single spaces."""
        return " ".join(" ".join(self.texts).split())


def check_page(page: str) -> ReadPage:
    """Check that a page is whole, self-contained, without script, and accessible."""
    page.encode("utf-8")
    found = ReadPage(page)
    assert not found.open
    assert {tag for tag, _, _ in found.elements} <= ALLOWED
    for tag, attributes, _ in found.elements:
        assert not [name for name in attributes if name.startswith("on")], attributes
        for name in ("href", "src", "action", "data", "srcset", "poster", "xlink:href"):
            address = attributes.get(name)
            assert address is None or re.fullmatch(r"#[a-z-]+", address), (tag, address)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    assert not re.search(r"url\(|@import|expression", style[1])
    policies = [a["content"] for tag, a, _ in found.elements if tag == "meta" and "http-equiv" in a]
    assert [str(each).split("; ")[0] for each in policies] == ["default-src 'none'"]
    ids = [attributes["id"] for _, attributes, _ in found.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    links = [a["href"] for tag, a, _ in found.elements if tag == "a"]
    assert {str(link)[1:] for link in links} <= set(map(str, ids))
    levels = [int(tag[1]) for tag, _, _ in found.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    _check_charts(page, found)
    for tag, attributes, _ in found.elements:
        if tag == "th":
            assert attributes.get("scope") in ("row", "col")
    return found


def _check_charts(page: str, found: ReadPage) -> None:
    figures = re.findall(r"<figure[^>]*>.*?</figure>", page, re.DOTALL)
    assert len(figures) == found.count("figure")
    for figure in figures:
        assert re.search(r"<figcaption><h3>.+?</h3><p>.{10,}?</p>", figure, re.DOTALL), figure[:300]
        assert re.search(r"<details><summary>Data</summary><div[^>]*><table>.*<tr>", figure)
    drawings = re.findall(r"<svg [^>]*role=\"img\".*?</svg>(?=<)", page, re.DOTALL)
    assert len(drawings) == len(figures)
    for figure in figures:
        # The outer drawing, with the stretched ones inside it.
        start, end = figure.index("<svg"), figure.rindex("</svg>") + len("</svg>")
        root = ElementTree.fromstring(figure[start:end])
        assert [child.tag.rpartition("}")[2] for child in root[:2]] == ["title", "desc"]
        assert all((child.text or "").strip() for child in root[:2])
        for part in root.iter():
            for name, value in part.attrib.items():
                assert "nan" not in value.lower().split("-"), (part.tag, name, value)
                assert "inf" not in value.lower(), (part.tag, name, value)
