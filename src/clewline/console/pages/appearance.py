"""Light or dark, by choice; otherwise as the system is set."""

from __future__ import annotations

from collections.abc import Sequence

from clewline.console.page import THEMES, PageAnswer, PageRequest, PageRoute, Redirect
from clewline.console.pages.login import local_address
from clewline.errors import InvalidInput


class AppearancePage:
    """Light or dark, by choice."""

    name = "appearance"
    title = "Appearance"
    place = None

    def routes(self) -> Sequence[PageRoute]:
        """Return the address of the form in the frame."""
        return (PageRoute("/appearance", choose_theme, method="POST", is_public=True),)


def choose_theme(request: PageRequest) -> PageAnswer:
    """Keep the choice in a cookie (`system` is none), and go back to where it was made."""
    theme, back = request.form.get("theme", ""), request.form.get("back", "/")
    choices = (*THEMES, "system")
    if theme not in choices:
        raise InvalidInput(f"There is no appearance {theme!r}.", f"Choose {', '.join(choices)}.")
    cookie = theme if theme in THEMES else ""
    return Redirect(local_address(back), cookies={"clewline-theme": cookie})
