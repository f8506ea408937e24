"""The live page's content, and the content that the API's answers require."""

import time
from decimal import Decimal
from typing import Any, Final

import httpx
from playwright.sync_api import Page

LIVE: Final = "body[data-state=live] #rows tr"


def figure(page: Page, name: str) -> str:
    return str(page.locator(f"#{name}").get_attribute("data-value"))


def rows(page: Page) -> list[tuple[str, int, int, str]]:
    found: list[Any] = page.evaluate(
        "[...document.querySelectorAll('#rows tr')].map((row) => [row.dataset.stream,"
        " ...['active_viewers', 'chat_messages', 'donations_usd']"
        ".map((name) => row.querySelector(`[data-column=${name}]`).dataset.value)])"
    )
    return [(name, int(viewers), int(chat), money) for name, viewers, chat, money in found]


class Api:
    """The page's expected content by the API's answers."""

    def __init__(self, url: str) -> None:
        def get(path: str) -> Any:
            return httpx.get(url + path, timeout=10).json()["rows"]

        states = get("/state?limit=1000")
        self.viewers = {row["stream_id"]: row["active_viewers"] for row in states}
        two = get("/metrics?minutes=2&limit=1000")
        newest = max(row["window_start"] for row in two)
        self.chat = sum(row["chat_messages"] for row in two if row["window_start"] != newest)
        self.tops = {by: get(f"/streams/top?minutes=10&n=1000&by={by}") for by in ("chat_messages", "donations_usd")}
        self.sums = {row["stream_id"]: row for row in self.tops["chat_messages"]}
        self.donations = sum(Decimal(row["donations_usd"]) for row in self.sums.values())

    def ranked(self, by: str) -> list[tuple[str, int, int, str]]:
        if by == "active_viewers":
            names = sorted(self.viewers, key=lambda name: (-self.viewers[name], name))
        else:
            names = [row["stream_id"] for row in self.tops[by]]
        nothing = {"chat_messages": 0, "donations_usd": "0.00"}
        return [
            (
                name,
                self.viewers.get(name, 0),
                self.sums.get(name, nothing)["chat_messages"],
                self.sums.get(name, nothing)["donations_usd"],
            )
            for name in names
        ]


def first(ranked: list[tuple[str, int, int, str]], by: str) -> list[tuple[str, int, int, str]]:
    """Return the expected rows: the first fifty that are not zero."""
    column = ("active_viewers", "chat_messages", "donations_usd").index(by) + 1
    return [row for row in ranked if Decimal(row[column])][:50]


def expect_equal(page: Page, url: str, by: str = "active_viewers", seconds: float = 15) -> None:
    """Compare the page with the API until both agree, while no number changes."""
    deadline = time.monotonic() + seconds
    while True:
        api = Api(url)
        expected = (str(sum(api.viewers.values())), str(api.chat), str(api.donations), first(api.ranked(by), by))
        seen = (figure(page, "viewers"), figure(page, "chat"), figure(page, "donations"), first(rows(page), by))
        if seen == expected:
            return
        assert time.monotonic() < deadline, f"\n{seen}\n{expected}"
        time.sleep(0.2)
