"""Makes the pictures of the console in docs/images, of a project that it creates and serves."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

CLEWLINE = str(Path(sys.executable).with_name("clewline"))
IMAGES = Path(__file__).parent.parent / "docs" / "images"
SIZE = {"width": 1120, "height": 700}
COMMANDS = (
    ["run", "tumours", "trees=40"],
    ["run", "tumours"],
    ["models", "promote", "tumours@1", "champion", "--reason", "the first"],
    ["endpoints", "apply"],
)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "tumours"
        subprocess.run([CLEWLINE, "init", str(root)], check=True, capture_output=True)
        for words in COMMANDS:
            subprocess.run([CLEWLINE, *words], cwd=root, check=True, capture_output=True)
        command = [CLEWLINE, "up", "--port", "0"]
        with subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) as server:
            assert server.stderr is not None
            said = ""
            while "Ready" not in said:
                said += server.stderr.readline()
            console, base = re.findall(r"(?:Console:|Ready on) (http://127\.0\.0\.1:\d+)", said)
            try:
                take(console, ask(base, root))
            finally:
                server.terminate()


def ask(base: str, root: Path) -> str:
    """Ask the endpoint about its background rows; return the id of the last prediction."""
    rows = json.loads((root / ".clewline/models/tumours/1/background.json").read_bytes())
    identifier = ""
    for row in rows[:100]:
        body = json.dumps({"rows": [row], "entities": ["patient 17"]}).encode()
        request = urllib.request.Request(
            f"{base}/v1/endpoints/tumours/predict", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            identifier = json.load(answer)["predictions"][0]["id"]
    return identifier


def take(console: str, prediction: str) -> None:
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        for name, address, scheme, place in (
            ("home", "/", "light", 0),
            ("prediction", f"/predictions/{prediction}", "light", 1),
            ("try", "/try/tumours?example=1", "dark", 0),
            ("runs", "/runs", "dark", 0),
        ):
            page = browser.new_page(viewport=SIZE, color_scheme=scheme)  # type: ignore[arg-type]
            page.goto(console + address)
            if place:
                page.locator("#line-heading").scroll_into_view_if_needed()
                page.evaluate("document.querySelector('#line-heading').scrollIntoView()")
                page.mouse.wheel(0, -70)
            if name == "try":
                page.get_by_role("button", name=re.compile("^Ask")).click()
            page.wait_for_timeout(2500)
            if not place:
                page.evaluate("scrollTo(0, 0)")
                page.wait_for_timeout(300)
            picture = Image.open(io.BytesIO(page.screenshot()))
            # 160 colours: a third of the bytes, and hardly to be seen.
            small = picture.convert("RGB").quantize(160, dither=Image.Dither.NONE)
            small.save(IMAGES / f"console-{name}.png", optimize=True)
            page.close()
        browser.close()


main()
