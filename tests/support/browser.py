"""A real Chromium from apt, driven by Playwright."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, sync_playwright

AXE: Final = Path(__file__).parent / "vendor" / "axe.js"
SIZES: Final = {"desktop": {"width": 1440, "height": 900}, "phone": {"width": 390, "height": 844}}
_FLAGS: Final = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--force-color-profile=srgb",
]  # fmt: skip
# A browser's message about a response other than 200 is no fault of a page.
_EXPECTED: Final = "Failed to load resource"


class Watched:
    """A page with its console errors and the hosts that it contacted."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._asked)

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning") and _EXPECTED not in message.text:
            self.complaints.append(message.text)

    def _asked(self, request: Any) -> None:
        address = urlsplit(request.url)
        if address.scheme not in ("data", "blob"):
            self.hosts.add(str(address.hostname))

    def violations(self) -> list[str]:
        """Return axe's findings in words."""
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{violation['id']}: {violation['help']}: {[node['html'][:200] for node in violation['nodes']][:3]}"
            for violation in found["violations"]
        ]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser with a fresh profile."""
    path = shutil.which("chromium")
    assert path is not None, "no chromium here: run `apt-get install -y chromium`"
    with tempfile.TemporaryDirectory(prefix="streampulse-test-browser-") as home, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=_FLAGS, headless=True, env={"HOME": home, "PATH": "/usr/bin:/bin"}
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, url: str, size: str = "desktop", scheme: Any = "dark", **more: Any) -> Iterator[Watched]:
    """Open a page in a fresh context.

    :param size: a name of SIZES.
    :param scheme: dark or light.
    :param more: further properties of the context.
    """
    context = browser.new_context(viewport=SIZES[size], color_scheme=scheme, **more)  # type: ignore[arg-type]
    try:
        watched = Watched(context.new_page())
        watched.page.goto(url)
        yield watched
    finally:
        context.close()
