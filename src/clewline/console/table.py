"""Tables of the console: a page of rows from a source, sorted and paged by the address."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from clewline.console.page import PageRequest
from clewline.errors import InvalidInput
from clewline.formatting import format_duration, format_size
from clewline.html.markup import Content, Markup, element, isolated

PAGE_ROWS = 50
"""Rows of a page."""
LONGEST_WORD = 32
"""A word with more characters may be broken, so that a table does not grow wide."""
EXPORT_ROWS = 1_000
"""Rows that an export asks its source for at a time."""

ColumnKind = Literal["text", "number", "time", "duration", "size", "id", "flag"]


@dataclass(frozen=True, slots=True)
class Column:
    """
    A column of a table.

    Args:
        key: Its key in the rows.
        title: Its heading.
        kind: How its values are written. Times are seconds since the epoch, durations seconds,
            sizes bytes; an id is shortened, the whole one is copied.
        sort: Whether the source can sort by it.
        link: Row → address that the value leads to.
        show: Row → what is shown in place of the value; exports keep the value.
    """

    key: str
    title: str
    kind: ColumnKind = "text"
    sort: bool = False
    link: Callable[[Mapping[str, Any]], str | None] | None = None
    show: Callable[[Mapping[str, Any]], Content] | None = None


@dataclass(frozen=True, slots=True)
class TableRows:
    """
    A page of rows.

    Args:
        rows: Column key → value.
        next_cursor: Where the next page begins; None at the end.
        total: How many rows there are in all, where that is known without reading them.
    """

    rows: Sequence[Mapping[str, Any]]
    next_cursor: str | None = None
    total: int | None = None


RowSource = Callable[[str | None, int, str], TableRows]
"""
Called with a cursor (None for the first page), the most rows, and the sort: a column's key, with
`-` before it for descending, or empty for the source's own order.
"""


def offset_source(
    rows: Callable[[int, int, str], Sequence[Mapping[str, Any]]], total: int | None = None
) -> RowSource:
    """
    Make a source of a function of offset, limit and sort; the cursor is the offset.

    Raises:
        InvalidInput: The cursor in the address is not a number.
    """

    def source(cursor: str | None, limit: int, sort: str) -> TableRows:
        if cursor is not None and not (
            cursor.isascii() and cursor.isdecimal() and len(cursor) < 16
        ):
            raise InvalidInput(f"{cursor!r} is not the place of a row.", "Begin at the first page.")
        offset = int(cursor or 0)
        found = rows(offset, limit + 1, sort)
        more = str(offset + limit) if len(found) > limit else None
        return TableRows(found[:limit], more, total)

    return source


@dataclass(frozen=True, slots=True)
class Table:
    """
    A table of a view. Written `{{ table }}` in a template, it shows the page in the address.

    Args:
        name: Unique in its view; letters and dashes.
        columns: From left to right; the first one names the row.
        rows: Gives the rows.
        request: Of the view.
        empty: What an empty table says, with the next command to type.
        caption: What the table shows, for those who hear it.
        sort: The sort while the address names none.
    """

    name: str
    columns: Sequence[Column]
    rows: RowSource
    request: PageRequest
    empty: Content = "There is nothing yet."
    caption: str = ""
    sort: str = ""
    page_rows: int = PAGE_ROWS

    def __html__(self) -> str:
        return self.markup()

    @property
    def sorted_by(self) -> str:
        """The sort in the address, if the table can sort so."""
        asked = self.request.query.get(f"{self.name}-sort", self.sort)
        known = {column.key for column in self.columns if column.sort}
        if asked and asked.removeprefix("-") not in known and asked != self.sort:
            raise InvalidInput(
                f"The table cannot be sorted by {asked.removeprefix('-')!r}.",
                f"It can be sorted by {', '.join(sorted(known)) or 'nothing'}.",
            )
        return asked

    def markup(self) -> Markup:
        """Write the page of the table that the address asks for."""
        cursor = self.request.query.get(f"{self.name}-after")
        page = self.rows(cursor, self.page_rows, self.sorted_by)
        if not page.rows:
            return element("div", element("p", self.empty), class_="empty", id=self.name)
        head = element("tr", *(self._heading(column) for column in self.columns))
        body = [
            element(
                "tr", *(_cell(column, row, not place) for place, column in enumerate(self.columns))
            )
            for row in page.rows
        ]
        table = element(
            "table",
            element("caption", self.caption, class_="unseen") if self.caption else None,
            element("thead", head),
            element("tbody", *body),
        )
        return element(
            "div",
            element(
                "div",
                table,
                class_="scroll",
                tabindex="0",
                role="region",
                aria_label=self.caption or self.name,
            ),
            self._foot(page, cursor),
            class_="table",
            id=self.name,
        )

    def export(self, form: Literal["csv", "json"]) -> Iterator[bytes]:
        """Write all rows, as CSV with a heading or as a JSON array of objects."""
        cursor: str | None = None
        is_first = True
        if form == "csv":
            yield _csv_line([column.key for column in self.columns])
        while True:
            page = self.rows(cursor, EXPORT_ROWS, self.sorted_by)
            for row in page.rows:
                values = {column.key: row.get(column.key) for column in self.columns}
                if form == "csv":
                    yield _csv_line(list(values.values()))
                else:
                    yield (b"[\n" if is_first else b",\n") + msgspec.json.encode(
                        values, enc_hook=str
                    )
                is_first = False
            cursor = page.next_cursor
            if cursor is None:
                break
        if form == "json":
            yield b"[]\n" if is_first else b"\n]\n"

    def _heading(self, column: Column) -> Markup:
        numeric = "n" if _is_numeric(column) else None
        if not column.sort:
            return element("th", column.title, scope="col", class_=numeric)
        by = self.sorted_by
        state = {column.key: "ascending", f"-{column.key}": "descending"}.get(by)
        wanted = column.key if by == f"-{column.key}" else f"-{column.key}"
        changes: dict[str, str | int | None] = {
            f"{self.name}-sort": wanted,
            f"{self.name}-after": None,
        }
        mark = {"ascending": " ↑", "descending": " ↓"}.get(state or "")
        link = element("a", column.title, mark, href=self.request.address(**changes))
        return element("th", link, scope="col", class_=numeric, aria_sort=state)

    def _foot(self, page: TableRows, cursor: str | None) -> Markup:
        def at(place: str | None) -> str:
            return self.request.address(**{f"{self.name}-after": place})

        def export(form: str) -> str:
            return self.request.address(export=form, table=self.name)

        count = f"{len(page.rows):,} rows" if len(page.rows) != 1 else "1 row"
        if page.total is not None:
            begin = int(cursor) if cursor and cursor.isdecimal() else 0
            shown = f"{begin + 1:,}–{begin + len(page.rows):,}"
            count = f"{shown} of {page.total:,}"
        return element(
            "p",
            element("span", count),
            element("a", "First page", href=at(None)) if cursor else None,
            element("a", "Next page", href=at(page.next_cursor), rel="next")
            if page.next_cursor
            else None,
            element(
                "span",
                element("a", "CSV", href=export("csv")),
                " ",
                element("a", "JSON", href=export("json")),
                class_="exports",
            ),
            class_="table-foot",
        )


def _is_numeric(column: Column) -> bool:
    return column.kind in ("number", "duration", "size")


def _cell(column: Column, row: Mapping[str, Any], is_first: bool) -> Markup:
    value = row.get(column.key)
    content = column.show(row) if column.show else cell_value(column.kind, value)
    address = column.link(row) if column.link else None
    if address is not None:
        content = element("a", content, href=address)
    style = _cell_style(column, value)
    if is_first:
        return element("th", content, scope="row", class_=style)
    return element("td", content, class_=style)


def _cell_style(column: Column, value: Any) -> str | None:
    """Keep numbers, ids and times on one line, and words whole unless one is very long."""
    if _is_numeric(column):
        return "n"
    if column.kind in ("id", "time"):
        return "line"
    words = (len(word) for word in str(value)[: LONGEST_WORD * 8].split())
    return "whole" if max(words, default=0) <= LONGEST_WORD else None


def cell_value(kind: ColumnKind, value: Any) -> Content:
    """Write a value as its kind is written; nothing for None."""
    if value is None:
        return element("span", "–", class_="muted")
    if kind == "time":
        return relative_time(float(value))
    if kind == "duration":
        return format_duration(float(value))
    if kind == "size":
        return format_size(int(value))
    if kind == "id":
        return short_id(str(value))
    if kind == "number":
        return f"{value:,.6g}" if isinstance(value, float) else f"{value:,}"
    return isolated(value)


def relative_time(time_s: float) -> Markup:
    """Write a time as people say it; the exact one stands behind it."""
    now = datetime.now(UTC).timestamp()
    exact = datetime.fromtimestamp(time_s, UTC)
    ago = now - time_s
    size = abs(ago)
    for unit, seconds in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if size >= seconds:
            amount = f"{size / seconds:.0f} {unit}"
            break
    else:
        amount = f"{size:.0f} s"
    text = (
        f"{exact:%Y-%m-%d}"
        if size > 30 * 86_400
        else f"{amount} ago"
        if ago >= 0
        else f"in {amount}"
    )
    return element("time", text, datetime=exact.isoformat(), title=f"{exact:%Y-%m-%d %H:%M:%S} UTC")


def short_id(identifier: str) -> Markup:
    """Shorten an id; the whole one stands behind it and is what is copied."""
    shown = identifier if len(identifier) <= 14 else f"{identifier[:8]}…{identifier[-4:]}"
    return element("code", shown, title=identifier, data_copy=identifier, class_="id")


def _csv_line(values: Sequence[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(
        [
            _safe(value) if isinstance(value, str) else "" if value is None else value
            for value in values
        ]
    )
    return text.getvalue().encode("utf-8", "replace")


def _safe(text: str) -> str:
    """Keep a text from being run as a formula by a spreadsheet."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def table_of(values: Mapping[str, Any], name: str) -> Table:
    """
    Find a table among the values of a view.

    Raises:
        InvalidInput: There is none of this name.
    """
    tables = {each.name: each for each in values.values() if isinstance(each, Table)}
    if name not in tables:
        raise InvalidInput(
            f"This page has no table {name!r}.", f"Its tables are {', '.join(tables) or 'none'}."
        )
    return tables[name]
