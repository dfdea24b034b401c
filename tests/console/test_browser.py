"""Every page in a real browser: no fault in its console, nothing from elsewhere, open to all."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import Shop
from playwright.sync_api import Browser, Page, expect, sync_playwright
from support import process, wait_for

from clewline.serve import revision
from clewline.serve.endpoint_file import read_endpoint
from clewline.store.store import Store

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason="needs Chromium: apt-get install chromium"
)
CLEWLINE = Path(sys.executable).with_name("clewline")
HOSTILE = "\u202e<img src=x onerror=alert(1)>'\"&🜁" + "x" * 5_000
FILES = {
    "endpoints/income.yaml": "endpoint: income\nmodel: income@1\n",
    "endpoints/arms.yaml": (
        "endpoint: arms\ngraph:\n  route: {kind: weights, weights: {one: 0.5, other: 0.5}}\n"
        "  arms: {one: income@1, other: income@2}\n"
    ),
    "pipelines.py": (
        "import clewline as cl\n\n\n@cl.step\ndef load(fail: bool, name: str) -> int:\n"
        "    print(name)\n    cl.log_metric('rows', 3)\n"
        "    if fail:\n        raise ValueError(name)\n    return 3\n\n\n"
        "@cl.pipeline\ndef counts(fail: bool = False, name: str = 'plain'):\n    load(fail, name)\n"
    ),
}
AXE = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
}
STARTED = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip


class Shown:
    """A running console, its prediction server, and what its project holds."""

    def __init__(self, console: str, server: str, root: Path) -> None:
        self.console, self.server, self.root = console, server, root
        self.predictions = [self.ask("income", {"age": 20 + n, "hours": 30.5}) for n in range(40)]
        self.predictions += [self.ask("arms", {"age": 20 + n, "hours": 30.5}) for n in range(10)]
        self.runs = [run["id"] for run in self.command("--json", "runs", "list")]

    def ask(self, endpoint: str, row: dict[str, Any]) -> str:
        body = json.dumps({"rows": [row], "entities": [HOSTILE]}).encode()
        address = f"{self.server}/v1/endpoints/{endpoint}/predict"
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return str(json.load(answer)["predictions"][0]["id"])

    def command(self, *words: str) -> Any:
        done = subprocess.run(
            [CLEWLINE, *words], cwd=self.root, capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)

    @property
    def addresses(self) -> list[str]:
        """An address of every kind of page."""
        first, second = self.runs[:2]
        return [
            "/", "/endpoints", "/endpoints/income", "/endpoints/arms", "/predictions",
            f"/predictions/{self.predictions[0]}", f"/predictions/{self.predictions[-1]}",
            "/predictions?where=age%20%3E%2050", "/try", "/try/income?example=1", "/models",
            "/models/income", "/models/income/1",
            "/models/compare?first=income%401&second=income%402", "/runs", f"/runs/{first}",
            f"/runs/{second}", f"/runs/compare?run={first}&run={second}", "/line",
            "/line/income%401", f"/line/{self.predictions[0]}", "/line/income%401?direction=impact",
            "/settings", "/jobs", "/search?q=inc", "/no-such-page",
        ]  # fmt: skip


@pytest.fixture(scope="module")
def shown(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    project = shop(tmp_path_factory.mktemp("browser"), FILES)
    with Store.open(project.store_root) as store:
        for name in ("income", "arms"):
            revision.apply(project, store, read_endpoint(project, name))
    for words in ([], ["fail=true", f"name={HOSTILE[:200]}"]):
        subprocess.run([CLEWLINE, "run", "counts", *words], cwd=project.root, capture_output=True)
    command = [str(CLEWLINE), "up", "--port", "0"]
    with process(command, cwd=project.root, stderr=subprocess.PIPE, text=True) as server:
        said = ""
        while "Ready" not in said:
            said += (line := server.stderr.readline())
            assert line, said
        found = re.findall(r"(?:Console:|Ready on) (http://127\.0\.0\.1:\d+)", said)
        os.set_blocking(server.stderr.fileno(), False)
        yield Shown(*found[:2], project.root)
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(STARTED))
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser, shown: Shown) -> Iterator[Page]:
    context = browser.new_context(base_url=shown.console)
    yield context.new_page()
    context.close()


def test_no_page_has_a_fault_or_asks_for_anything_elsewhere(page: Page, shown: Shown) -> None:
    faults: list[str] = []
    page.on("console", lambda each: faults.append(each.text) if each.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: faults.append("a script of a stranger ran"))
    page.on("request", lambda each: asked.add(re.sub(r"(//[^/]+)/.*", r"\1", each.url)))
    asked: set[str] = set()
    for address in shown.addresses:
        page.goto(address)
        page.wait_for_timeout(150)
    assert [fault for fault in faults if "404" not in fault] == []
    assert {each for each in asked if not each.startswith("data:")} == {shown.console}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_scrolls_sideways(
    browser: Browser, shown: Shown, scheme: Any
) -> None:
    context = browser.new_context(
        base_url=shown.console,
        color_scheme=scheme,
        viewport={"width": 1280 if scheme == "light" else 320, "height": 900},
    )
    page, found = context.new_page(), []
    for address in shown.addresses:
        page.goto(address)
        result = Axe().run(page, options=AXE)
        found += [
            f"{address} {each['id']}: {each['nodes'][0]['html'][:150]}"
            for each in result.response["violations"]
        ]
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            found.append(f"{address} scrolls sideways")
    context.close()
    assert not found, "\n".join(found)


def test_without_script_every_page_reads_and_forms_post(browser: Browser, shown: Shown) -> None:
    context = browser.new_context(base_url=shown.console, java_script_enabled=False)
    page = context.new_page()
    for address in shown.addresses:
        page.goto(address)
        assert page.locator("main h1").inner_text().strip()
    page.goto("/")
    page.get_by_role("searchbox").fill("income@1")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/models/income/1"))
    page.get_by_role("button", name="Dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    context.close()


def test_the_keyboard_finds_filters_explains_and_replays(page: Page, shown: Shown) -> None:
    page.goto("/runs")
    page.keyboard.press("/")
    page.keyboard.type(shown.predictions[0])
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"/predictions/{shown.predictions[0]}"))
    page.get_by_role("button", name="Explain", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Done.")).to_be_visible(timeout=60_000)
    page.get_by_role("link", name="Show the result").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Share of each field").first).to_be_visible()
    page.get_by_role("button", name="Replay it").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Equal, bit for bit")).to_be_visible(timeout=60_000)


def test_a_row_is_tried_from_the_form(page: Page, shown: Shown) -> None:
    page.goto("/try/income?example=1")
    page.get_by_role("button", name=re.compile("^Ask")).click()
    expect(page.locator("main")).to_contain_text(re.compile("K"), timeout=30_000)
    expect(page).to_have_url(re.compile("f-age"))


def test_two_runs_are_marked_and_compared(page: Page, shown: Shown) -> None:
    page.goto("/runs")
    boxes = page.get_by_role("checkbox")
    boxes.nth(0).check()
    boxes.nth(1).check()
    page.get_by_role("button", name="Compare the marked").click()
    expect(page.locator("h1")).to_have_text("2 runs compared")


def test_an_alias_moves_with_a_reason_and_the_line_says_so(page: Page, shown: Shown) -> None:
    page.goto("/models/income/1")
    page.get_by_role("link", name="Gate and aliases").click()
    page.get_by_role("combobox", name="Alias").fill("shown")
    page.get_by_label(re.compile("Why|Reason")).first.fill("tried in the browser")
    page.get_by_role("button", name=re.compile("Promote|Move|Give")).first.click()
    wait_for(lambda: "tried in the browser" in page.goto("/settings").text())
