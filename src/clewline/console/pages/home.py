"""The first page: what is served, and what needs a person now."""

from __future__ import annotations

from collections.abc import Sequence

from clewline.console.page import PageAnswer, PageRequest, PageRoute, View


class HomePage:
    """What is served, and what needs a person now."""

    name = "home"
    title = "Home"
    place = 10

    def routes(self) -> Sequence[PageRoute]:
        """Return its address."""
        return (PageRoute("/", show_home),)


def show_home(request: PageRequest) -> PageAnswer:
    """Show the project at a glance."""
    return View("home.html", title=request.project.name)
