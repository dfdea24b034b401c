"""
What a page of the console is: routes, and functions that answer them.

A page is a class offered under the entry point group `clewline.pages`. Its templates, its style
and its script stand beside its module: `runs.py`, `runs.html`, `runs_compare.html`, `runs.css`,
`runs.js`. `clewline.testing.page` holds the contract.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import urlencode

from clewline.html.markup import Markup

if TYPE_CHECKING:
    from clewline.console.jobs import Jobs
    from clewline.console.server_connection import ServerConnection
    from clewline.project import Project
    from clewline.store.store import Store

GROUP = "clewline.pages"

ConsoleRole = Literal["view", "review", "operate"]
"""What a person may do: look; also judge; also change what runs."""
ROLES: tuple[ConsoleRole, ...] = ("view", "review", "operate")
THEMES = ("light", "dark")


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks for a page."""

    name: str
    role: ConsoleRole

    def may(self, role: ConsoleRole) -> bool:
        """Return whether this person's role includes another."""
        return ROLES.index(self.role) >= ROLES.index(role)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A request for a page, read and allowed."""

    project: Project
    store: Store  # opened for reading, and shared by all requests
    person: Person
    server: ServerConnection
    path: Mapping[str, str]  # the parameters in the route's pattern
    query: Mapping[str, str]  # the filters, sort and place in the address
    form: Mapping[str, str]  # what was posted
    jobs: Jobs  # long work
    location: str = "/"  # the path of the address
    lists: Mapping[str, Sequence[str]] = field(default_factory=dict)  # query values that repeat
    csrf_token: str = ""
    access: Any = None  # `ConsoleAccess`, for the pages that log a person in
    http: Any = None  # what was received, for them
    theme: str = ""  # one of THEMES; empty as the reader's system is set
    pages: Sequence[ConsolePage] = ()  # all that are installed
    is_fragment: bool = False  # htmx asked, and takes a part of the answer

    def address(self, **changes: str | int | None) -> str:
        """Return the address of this view with other values in its query; None leaves one out."""
        values = {name: list(each) for name, each in self.lists.items()}
        for name, value in changes.items():
            values[name] = [] if value is None else [str(value)]
        query = urlencode([(name, each) for name, given in values.items() for each in given])
        return f"{self.location}?{query}" if query else self.location


@dataclass(frozen=True, slots=True)
class View:
    """A page in the frame, from a template beside the page's module."""

    template: str
    title: str
    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200


@dataclass(frozen=True, slots=True)
class Fragment:
    """A part of a page, for a script that asked for it."""

    markup: Markup


@dataclass(frozen=True, slots=True)
class Redirect:
    """Another address of the console, to be asked for with GET."""

    address: str
    cookies: Mapping[str, str] = field(default_factory=dict)  # to be set, for a year


@dataclass(frozen=True, slots=True)
class Download:
    """A file."""

    name: str
    media_type: str
    content: bytes | Iterator[bytes]


@dataclass(frozen=True, slots=True)
class Event:
    """A server-sent event: lines of text under a name."""

    name: str
    data: str


@dataclass(frozen=True, slots=True)
class EventStream:
    """Events that are sent as they happen, until the reader leaves."""

    events: AsyncIterator[Event]


PageAnswer = View | Fragment | Redirect | Download | EventStream


@dataclass(frozen=True, slots=True)
class PageRoute:
    """
    An address of a page.

    Args:
        path: Pattern of the address, such as `/runs/{run}`; `{ref:path}` takes slashes.
        answer: Called on a thread, so it may wait for files and for SQLite.
        method: GET looks, POST changes; a form that is posted needs `{{ csrf() }}`.
        role: The least role of a person who may ask.
        is_public: Whether it answers before anybody has logged in.
    """

    path: str
    answer: Callable[[PageRequest], PageAnswer]
    method: Literal["GET", "POST"] = "GET"
    role: ConsoleRole = "view"
    is_public: bool = False


class ConsolePage(Protocol):
    """A page of the console, made once without arguments when the console starts."""

    name: str  # begins the names of its files; letters, digits and underscores
    title: str  # in the navigation
    place: int | None  # its order in the navigation; None leaves it out

    def routes(self) -> Sequence[PageRoute]:
        """Return its addresses; the first is where the navigation leads."""
