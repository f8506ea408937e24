"""The pages in a real browser, served by gunicorn from a real PostgreSQL whose rows a small writer changes."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from browser import Watched, chromium, opened
from conftest import Database, own_database, own_server
from gunicorn_server import Gunicorn, running
from live_page import LIVE, expect_equal, figure, rows
from playwright.sync_api import Browser, Page, Route
from postgres import PostgresServer
from relay import Relay

pytestmark = pytest.mark.postgres

HOSTILE = "<img src=x onerror=\"document.title='broken'\">\u202e & \U0001f3a5"
STREAMS = 12
KEY = "a-key-of-the-tests-" + "x" * 16


@pytest.fixture(scope="module")
def filled() -> Iterator[Database]:
    with own_server() as own, own_database(*own) as database:
        database.execute(
            "INSERT INTO stream_metrics_minute"
            " SELECT date_trunc('minute', now()) - m * interval '1 min', 'stream-' || s,"
            " 40 * s + m, s, (s * 1.25 + m * 0.01)::numeric(30, 2), 1, 1, 200 * s, 150 * s + 10 * m"
            " FROM generate_series(0, 69) AS m, generate_series(1, %s) AS s",
            (STREAMS,),
        )
        database.execute(
            "INSERT INTO stream_metrics_minute VALUES (date_trunc('minute', now()), %s, 7, 1, 0.10, 1, 1, 3, 2),"
            " (date_trunc('minute', now()), '__probe', 1000000, 1, 9, 1, 1, 3, 2)",
            (HOSTILE,),
        )
        database.execute(
            "INSERT INTO stream_presence"
            " SELECT DISTINCT stream_id, 90 + length(stream_id), NULL::timestamptz, now() FROM stream_metrics_minute"
        )
        database.execute("UPDATE event_clock SET clock = now()")
        yield database


@pytest.fixture(scope="module")
def server(filled: Database) -> Iterator[Gunicorn]:
    with running(filled, workers=2, stale_seconds=3) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@contextmanager
def moving(database: Database) -> Iterator[None]:
    """Change the numbers of some streams, as the job does."""
    ended = threading.Event()

    def move() -> None:
        number = 0
        with closing(database.server.connect("streampulse_writer", database.name)) as writer, writer.cursor() as cursor:
            while not ended.wait(0.2):
                number += 1
                cursor.execute(
                    "UPDATE stream_metrics_minute SET chat_messages = chat_messages + 3,"
                    " donations_usd = donations_usd + 0.07, active_viewers = active_viewers + 1 WHERE stream_id = %s"
                    " AND window_start = (SELECT max(window_start) FROM stream_metrics_minute)",
                    (f"stream-{number % STREAMS + 1}",),
                )
                cursor.execute(
                    "UPDATE stream_presence SET active_viewers = active_viewers + %s WHERE stream_id = %s",
                    (number % 7, f"stream-{number % STREAMS + 1}"),
                )

    thread = threading.Thread(target=move)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def write(database: Database, statement: str, *row: object) -> None:
    """Run a statement on a new connection: the server may have been stopped in between."""
    with closing(database.server.connect("streampulse_writer", database.name)) as writer, writer.cursor() as cursor:
        cursor.execute(statement, row)


def test_numbers_equal_those_of_the_api_while_and_after_they_move(
    browser: Browser, server: Gunicorn, filled: Database
) -> None:
    with live(browser, server.url) as watched:
        page = watched.page
        expect_equal(page, server.url)
        before = figure(page, "viewers")
        with moving(filled):
            page.wait_for_function(
                "(before) => document.getElementById('viewers').dataset.value !== before", arg=before
            )
            time.sleep(3)
        for by in ("active_viewers", "chat_messages", "donations_usd"):
            page.locator(f".ranking [data-by={by}]").click()
            expect_equal(page, server.url, by)
            assert page.locator("th[aria-sort=descending]").get_attribute("data-column") == by
        # After the animation the visible text equals the figure.
        viewers = f"{int(figure(page, 'viewers')):,}"
        page.wait_for_function("(text) => document.getElementById('viewers').textContent === text", arg=viewers)
        assert page.locator("#donations").inner_text() == f"${Decimal(figure(page, 'donations')):,}"
        assert watched.complaints == []
        assert watched.hosts == {"127.0.0.1"}


def test_names_are_text_and_internal_streams_are_hidden(browser: Browser, server: Gunicorn) -> None:
    with opened(browser, server.url) as watched:
        watched.page.wait_for_selector(LIVE)
        names = [name for name, *_ in rows(watched.page)]
        assert HOSTILE in names
        assert "__probe" not in names
        assert watched.page.locator("#rows img").count() == 0
        watched.page.locator(".open", has_text="<img").click()
        watched.page.wait_for_selector("dialog[open]")
        assert watched.page.locator("#dialog-name").inner_text() == HOSTILE
        watched.page.wait_for_function("() => document.getElementById('dialog-viewers').dataset.value !== undefined")
        assert "broken" not in watched.page.title()
        assert watched.complaints == []


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_nothing_is_cut_off_however_large_it_is(
    browser: Browser, postgres_server: PostgresServer, migrated_template: str, size: str, tmp_path: Path
) -> None:
    with own_database(postgres_server, migrated_template) as database:
        # Blanks are a valid name.
        for stream in ("large", " ", "\r\n", "\u00a0"):
            database.execute(
                "INSERT INTO stream_metrics_minute SELECT date_trunc('minute', now()) - m * interval '1 min', %s,"
                " 123456789, 3, 2987654321.99, 1, 1, 87654321, 87654321 FROM generate_series(0, 5) AS m",
                (stream,),
            )
            database.execute("INSERT INTO stream_presence VALUES (%s, 87654321, NULL, now())", (stream,))
        with running(database, workers=1) as server, opened(browser, server.url, size) as watched:
            page = watched.page
            page.wait_for_selector(LIVE)
            page.locator(".ranking [data-by=donations_usd]").click()
            assert len(figure(page, "donations")) > 12
            expect_equal(page, server.url, "donations_usd")
            page.wait_for_function("() => document.getElementById('viewers').textContent.length > 9")
            page.screenshot(path=tmp_path / f"large-{size}.png")
            assert cut_off(page, ".figure, td.number") == []
            names = page.locator(".open")
            blanks = [names.nth(at) for at in range(4) if not (names.nth(at).get_attribute("title") or "").strip()]
            assert len(blanks) == 3
            for name in blanks:
                name.click()
                page.wait_for_selector("dialog[open]")
                page.wait_for_function("() => document.getElementById('dialog-donations').dataset.value !== undefined")
                assert page.locator("#dialog-name").inner_text().strip()
                assert cut_off(page, ".facts dd") == []
                page.screenshot(path=tmp_path / f"dialog-{size}.png")
                page.locator("#dialog-close").click()
            assert watched.complaints == []


@contextmanager
def live(browser: Browser, url: str, *how: Any, **more: Any) -> Iterator[Watched]:
    """Open the live page and wait for its numbers."""
    with opened(browser, url, *how, **more) as watched:
        watched.page.wait_for_selector(LIVE)
        yield watched


def open_dialog(page: Page, opener: str) -> None:
    """Click on the first name that fits, and wait for the stream's hour."""
    page.locator(opener).first.click()
    page.wait_for_function("() => document.getElementById('dialog-rows').children.length > 0")


def cut_off(page: Page, selector: str) -> list[str]:
    """Return the texts that are wider than their container."""
    found: list[str] = page.evaluate(
        """(selector) => [...document.querySelectorAll(selector)].filter((element) => {
          const text = document.createRange();
          text.selectNodeContents(element);
          const around = element.parentElement.closest("article, div, table").getBoundingClientRect();
          const { left, right } = text.getBoundingClientRect();
          return element.offsetParent && (right > around.right - 1 || left < around.left);
        }).map((element) => element.textContent)""",
        selector,
    )
    return found


def test_one_streams_hour_equals_the_apis(browser: Browser, server: Gunicorn) -> None:
    with live(browser, server.url) as watched:
        page = watched.page
        open_dialog(page, "tr[data-stream=stream-3] .open")
        history = httpx.get(server.url + "/metrics/history?minutes=60&stream_id=stream-3").json()["rows"]
        shown = {
            name: page.locator(f"#dialog-{name}").get_attribute("data-value") for name in ("most", "chat", "donations")
        }
        assert shown == {
            "most": str(max(row["active_viewers"] for row in history)),
            "chat": str(sum(row["chat_messages"] for row in history)),
            "donations": str(sum(Decimal(row["donations_usd"]) for row in history)),
        }
        assert page.locator("#dialog-rows tr").count() == len(history)
        assert page.locator("#dialog .uplot canvas").count() == 3


def charts(page: Page, names: str) -> dict[str, tuple[str | None, int]]:
    """Return each chart's label and its number of canvases."""
    return {
        name: (page.locator(f"#{name}").get_attribute("aria-label"), page.locator(f"#{name} canvas").count())
        for name in names.split()
    }


def test_a_stream_whose_hour_cannot_be_read_does_not_show_anothers(browser: Browser, server: Gunicorn) -> None:
    names = "dialog-viewers-chart dialog-chat-chart dialog-donations-chart"
    with live(browser, server.url) as watched:
        page = watched.page
        empty = charts(page, names)
        assert all(drawn == 0 and str(label).endswith("no numbers") for label, drawn in empty.values())
        open_dialog(page, "tr[data-stream=stream-3] .open")
        assert all(drawn == 1 and "at most" in str(label) for label, drawn in charts(page, names).values())
        page.locator("#dialog-close").click()
        page.route("**/metrics/history?*", lambda route: route.fulfill(status=503, json={"error": "no answer"}))
        page.locator("tr[data-stream=stream-9] .open").click()
        page.wait_for_function("() => document.getElementById('dialog-state').textContent.includes('no answer')")
        assert page.locator("#dialog-name").inner_text() == "stream-9"
        assert charts(page, names) == empty
        assert page.locator("#dialog-most").get_attribute("data-value") is None
        assert watched.violations() == []


def test_the_database_goes_away_and_comes_back_while_the_page_is_open(
    browser: Browser, server: Gunicorn, filled: Database
) -> None:
    with live(browser, server.url) as watched:
        page = watched.page
        viewers = figure(page, "viewers")
        filled.server.stop()
        try:
            page.wait_for_selector("body[data-state=stale]")
            assert "PostgreSQL" in page.locator("#notice").inner_text()
            assert figure(page, "viewers") == viewers
            assert watched.violations() == []
            # A page opened now, with numbers that are too old, shows the notice.
            while httpx.get(server.url + "/metrics", timeout=10).status_code == 200:
                time.sleep(0.2)
            with opened(browser, server.url) as late:
                late.page.wait_for_selector("body[data-state=reconnecting]")
                assert "trying again" in late.page.locator("#notice").inner_text()
                filled.server.start()
                page.wait_for_selector("body[data-state=live]")
                late.page.wait_for_selector(LIVE)
        finally:
            if httpx.get(server.url + "/health", timeout=10).status_code != 200:
                filled.server.start()
        write(filled, "UPDATE stream_presence SET active_viewers = active_viewers + 1000 WHERE stream_id = 'stream-1'")
        page.wait_for_function("(before) => document.getElementById('viewers').dataset.value !== before", arg=viewers)
        expect_equal(page, server.url)


def test_a_connection_that_breaks_while_the_numbers_are_stale_goes_on_as_live(
    browser: Browser, filled: Database
) -> None:
    """The page last heard that the numbers are stale, and missed the notice that they are current."""
    with running(filled, workers=1) as server, Relay(server.port) as relay, opened(browser, relay.url) as watched:
        page = watched.page
        page.wait_for_selector(LIVE)
        # A worker that has had readers for too short a time sends the whole state.
        with moving(filled):
            time.sleep(3)
        filled.server.stop()
        try:
            page.wait_for_selector("body[data-state=stale]")
            relay.silent.set()
        finally:
            filled.server.start()
        # Continuous updates, so that no heartbeat carries the notice.
        with moving(filled):
            while httpx.get(server.url + "/health", timeout=10).status_code != 200:
                time.sleep(0.1)
            time.sleep(2)
            relay.silent.clear()
            relay.cut()
            page.wait_for_selector("body[data-state=reconnecting]")
            page.wait_for_selector("body[data-state=live]", timeout=10_000)
            assert page.locator("#notice").is_hidden()


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "light"), ("phone", "dark")])
def test_every_size_and_theme(browser: Browser, server: Gunicorn, size: str, scheme: str, tmp_path: Path) -> None:
    with live(browser, server.url, size, scheme) as watched:
        page = watched.page
        page.wait_for_selector("#viewers-chart canvas")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        cut = page.evaluate(
            "[...document.querySelectorAll('.figure')].filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.id)"
        )
        assert cut == []
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, ground[4:-1].split(","))) < 384) is (scheme == "dark")
        page.screenshot(path=tmp_path / f"{size}-{scheme}.png")
        assert watched.violations() == []
        open_dialog(page, ".open")
        page.locator("summary").click()
        assert page.evaluate("document.getElementById('dialog').scrollWidth <= innerWidth")
        assert watched.violations() == []
        assert watched.complaints == []


def test_the_theme_can_be_chosen_and_is_kept(browser: Browser, server: Gunicorn) -> None:
    with live(browser, server.url) as watched:
        page = watched.page
        for expected in ("dark", "light"):
            page.locator("#theme").click()
            assert page.evaluate("document.documentElement.dataset.theme") == expected
        page.reload()
        assert page.evaluate("document.documentElement.dataset.theme") == "light"
        page.wait_for_selector(LIVE)
        assert watched.violations() == []


def test_by_keyboard_alone(browser: Browser, server: Gunicorn) -> None:
    with live(browser, server.url) as watched:
        page = watched.page

        def focused() -> str:
            return str(
                page.evaluate("document.activeElement.closest('tr')?.dataset.stream ?? document.activeElement.id")
            )

        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        for _ in range(2):
            page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.dataset.by") == "chat_messages"
        page.keyboard.press("Space")
        assert page.locator("#table").get_attribute("data-by") == "chat_messages"
        for _ in range(2):
            page.keyboard.press("Tab")
        stream = focused()
        assert stream == rows(page)[0][0]
        page.keyboard.press("Enter")
        page.wait_for_selector("dialog[open]")
        assert page.evaluate("document.getElementById('dialog').contains(document.activeElement)")
        page.keyboard.press("Escape")
        page.wait_for_selector("dialog[open]", state="detached")
        assert focused() == stream


def test_focus_stays_with_a_row_that_moves(browser: Browser, server: Gunicorn, filled: Database) -> None:
    with live(browser, server.url) as watched:
        page = watched.page
        last = rows(page)[-1][0]
        page.locator("#rows .open").last.focus()
        write(filled, "UPDATE stream_presence SET active_viewers = active_viewers + 100000 WHERE stream_id = %s", last)
        page.wait_for_function("(name) => document.querySelector('#rows tr').dataset.stream === name", arg=last)
        assert page.evaluate("document.activeElement.closest('tr').dataset.stream") == last
        write(filled, "UPDATE stream_presence SET active_viewers = active_viewers - 100000 WHERE stream_id = %s", last)


def test_reduced_motion_stops_animations(browser: Browser, server: Gunicorn, filled: Database) -> None:
    with opened(browser, server.url, reduced_motion="reduce") as watched, moving(filled):
        page = watched.page
        page.wait_for_selector(LIVE)
        before = figure(page, "viewers")
        page.wait_for_function("(before) => document.getElementById('viewers').dataset.value !== before", arg=before)
        shown = page.evaluate(
            "(() => { const viewers = document.getElementById('viewers'); return new Promise((done) =>"
            " new MutationObserver(() => done([viewers.textContent.replaceAll(',', ''), viewers.dataset.value]))"
            ".observe(viewers, {childList: true})); })()"
        )
        # The new number appears at once, without the ones in between.
        assert shown[0] == shown[1]
        assert page.evaluate("document.getAnimations().length") == 0
    with opened(browser, server.url) as watched:
        watched.page.wait_for_selector(LIVE)
        assert watched.page.evaluate("document.getAnimations().length") > 0


def test_without_any_event_the_page_says_so(
    browser: Browser, postgres_server: PostgresServer, migrated_template: str
) -> None:
    with (
        own_database(postgres_server, migrated_template) as empty,
        running(empty, workers=1) as server,
        opened(browser, server.url) as watched,
    ):
        page = watched.page
        page.wait_for_selector("#empty:not([hidden])")
        assert page.locator("#clock").inner_text() == "no event yet"
        assert figure(page, "viewers") == "0"
        assert watched.violations() == []
        assert watched.complaints == []
        empty.execute("INSERT INTO stream_presence VALUES ('first', 3, NULL, now())")
        empty.execute("INSERT INTO stream_metrics_minute VALUES ('2026-01-01', 'first', 1, 0, 0, 3, 0, 3, 3)")
        page.wait_for_selector("#rows tr")
        expect_first = page.locator("#rows tr").get_attribute("data-stream")
        assert expect_first == "first"


def test_after_a_reset_nothing_shows_the_hour_before_it(
    browser: Browser, postgres_server: PostgresServer, migrated_template: str
) -> None:
    cards = "viewers-chart chat-chart donations-chart"
    dialog = "dialog-viewers-chart dialog-chat-chart dialog-donations-chart"
    with own_database(postgres_server, migrated_template) as emptied:
        emptied.execute(
            "INSERT INTO stream_metrics_minute SELECT date_trunc('minute', now()) - m * interval '1 min', 'first',"
            " 9 + m, 1, 2.50, 1, 1, 200, 1319 + m FROM generate_series(0, 30) AS m"
        )
        emptied.execute("INSERT INTO stream_presence VALUES ('first', 1319, NULL, now())")
        with running(emptied, workers=1) as server, opened(browser, server.url) as watched:
            page = watched.page
            page.wait_for_selector(LIVE)
            page.wait_for_selector("#viewers-chart canvas")
            assert all(drawn == 1 and "between" in str(label) for label, drawn in charts(page, cards).values())
            open_dialog(page, ".open")
            assert all(drawn == 1 and "at most" in str(label) for label, drawn in charts(page, dialog).values())
            # An answer from the database is cached for a quarter of a second.
            time.sleep(1)
            emptied.execute("DELETE FROM stream_metrics_minute")
            emptied.execute("DELETE FROM stream_presence")
            page.wait_for_selector("#empty:not([hidden])", state="attached")
            page.wait_for_function("() => document.getElementById('dialog-state').textContent.startsWith('Nothing')")
            for names in (cards, dialog):
                assert all(drawn == 0 and "no numbers" in str(label) for label, drawn in charts(page, names).values())
            assert page.locator("#dialog-rows tr").count() == 0
            page.locator("#dialog-close").click()
            assert watched.violations() == []
            # The first window after it brings the charts back.
            emptied.execute("INSERT INTO stream_metrics_minute VALUES (now(), 'second', 1, 0, 0, 3, 0, 3, 3)")
            page.wait_for_selector("#viewers-chart canvas")
            assert watched.complaints == []


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "dark"), ("phone", "light")])
def test_events_that_do_not_come_any_more_are_seen(
    browser: Browser, server: Gunicorn, filled: Database, size: str, scheme: str
) -> None:
    """The database answers, so the numbers are live; but the newest event is long ago."""
    with live(browser, server.url, size, scheme) as watched:
        page = watched.page
        write(filled, "UPDATE event_clock SET clock = now()")
        page.wait_for_selector("#behind", state="hidden")
        write(filled, "UPDATE event_clock SET clock = now() - interval '9 min 50 s'")
        page.wait_for_selector("#behind:not([hidden])")
        assert page.locator("#behind").inner_text() == "10 min behind"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert watched.violations() == []
        write(filled, "UPDATE event_clock SET clock = now() + interval '20 min'")
        page.wait_for_selector("#behind:text('20 min ahead')")
        # It grows by itself, without updates from the server.
        write(filled, "UPDATE event_clock SET clock = now() - interval '28 s'")
        page.wait_for_selector("#behind", state="hidden")
        page.wait_for_selector("#behind:not([hidden])")
        write(filled, "UPDATE event_clock SET clock = now()")
        page.wait_for_selector("#behind", state="hidden")


def test_with_very_many_streams_the_page_states_its_shorter_range(
    browser: Browser, postgres_server: PostgresServer, migrated_template: str
) -> None:
    streams = 20_001
    with own_database(postgres_server, migrated_template) as crowded:
        crowded.execute(
            "INSERT INTO stream_metrics_minute SELECT date_trunc('minute', now()) - m * interval '1 min', 's-' || s,"
            " 2, 1, 1.25, 1, 1, 9, 7 FROM generate_series(0, 1) AS m, generate_series(1, %s) AS s",
            (streams,),
        )
        crowded.execute("INSERT INTO stream_presence SELECT 's-' || s, 8, NULL, now() FROM generate_series(1, 60) AS s")
        with running(crowded, workers=1, statement_timeout_ms=10_000) as server, opened(browser, server.url) as watched:
            page = watched.page
            page.wait_for_selector(LIVE)
            assert page.locator("th.trend").inner_text() == "Viewers, 1 min"
            assert page.locator("th[data-column=chat_messages]").inner_text() == "Chat, 0 min"
            row = page.locator("#rows tr").first
            assert row.locator(".trend .unseen").text_content() == "no earlier minute to compare with"
            assert row.locator("[data-column=chat_messages]").inner_text() == "–"  # noqa: RUF001 - as on the page
            assert row.locator(".spark .line").get_attribute("d") is None
            assert "for all streams together only" in page.locator("#foot").inner_text()
            # The cards show ten minutes, whatever range the table has.
            assert page.locator("#donations-label").inner_text() == "Donations, last 10 minutes"
            assert figure(page, "donations") == f"{streams * 2 * 1.25:.2f}"
            page.locator(".ranking [data-by=chat_messages]").click()
            assert page.locator("#rows tr").count() == 50
            assert watched.violations() == []
            assert watched.complaints == []


def test_docs_are_drawn_without_any_other_host(browser: Browser, server: Gunicorn) -> None:
    with opened(browser, server.url + "/docs") as watched:
        watched.page.wait_for_selector("#operations-numbers-metrics_metrics_get")
        assert watched.page.locator(".opblock").count() >= 8
        assert watched.hosts == {"127.0.0.1"}
        assert watched.complaints == []


def test_the_page_behind_a_log_in(browser: Browser, filled: Database) -> None:
    settings = {"public": True, "keys": KEY, "cookie_secret": "s" * 32, "workers": 2, "address_limit_per_minute": 1000}
    with running(filled, **settings) as server, opened(browser, server.url) as watched:
        page = watched.page
        assert page.url.endswith("/login")
        assert watched.violations() == []
        page.locator("#key").fill("not-the-key")
        page.locator("button").click()
        page.wait_for_selector(".problem")
        assert watched.violations() == []
        page.locator("#key").fill(KEY)
        page.locator("button").click()
        page.wait_for_selector(LIVE)
        (cookie,) = page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert KEY not in cookie["value"]
        open_dialog(page, ".open")
        assert watched.complaints == []


def test_a_log_in_that_has_ended_is_said_and_can_begin_again(browser: Browser, filled: Database) -> None:
    settings = {"public": True, "keys": KEY, "cookie_secret": "s" * 32, "workers": 1, "address_limit_per_minute": 1000}
    with running(filled, **settings) as server, opened(browser, server.url, "phone") as watched:
        page = watched.page
        page.locator("#key").fill(KEY)
        page.locator("button").click()
        page.wait_for_selector(LIVE)
        viewers = figure(page, "viewers")
        assert page.locator("#notice-login").is_hidden()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url.removeprefix(server.url)))
        cookies = page.context.cookies()
        page.clock.install()
        page.context.clear_cookies()
        page.evaluate("dispatchEvent(new Event('online'))")
        page.wait_for_selector("body[data-state=ended]")
        assert page.locator("#notice").inner_text() == (
            "Your log-in has ended, so these numbers stand still. Log in again"
        )
        assert "log-in has ended" in str(page.locator("#announcement").text_content())
        assert figure(page, "viewers") == viewers
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert watched.violations() == []
        # The dialog shows it too, in words for people.
        page.locator(".open").first.click()
        page.wait_for_function("() => document.getElementById('dialog-state').textContent.includes('log-in has ended')")
        page.locator("#dialog-close").click()
        # Retries are bounded.
        page.clock.fast_forward(30_000)
        page.wait_for_timeout(500)
        assert asked.count("/live") == 1
        assert page.locator("body").get_attribute("data-state") == "ended"
        assert watched.complaints == []
        # A log-in in another window is noticed within a minute.
        page.context.add_cookies(cookies)  # type: ignore[arg-type]
        page.clock.fast_forward(31_000)
        page.wait_for_selector(LIVE)
        page.context.clear_cookies()
        page.evaluate("dispatchEvent(new Event('online'))")
        page.wait_for_selector("body[data-state=ended]")
        # By keyboard to the log-in and back to the numbers.
        page.locator("#theme").focus()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "notice-login"
        page.keyboard.press("Enter")
        page.locator("#key").fill(KEY)
        page.locator("button").click()
        page.wait_for_selector(LIVE)
        assert page.locator("#notice").is_hidden()


def test_too_many_requests_are_not_made_more(browser: Browser, server: Gunicorn) -> None:
    """The page waits as long as the server asks, which is longer than any other wait."""
    with live(browser, server.url) as watched:
        page = watched.page
        tries: list[float] = []

        def refuse(route: Route) -> None:
            tries.append(time.monotonic())
            route.fulfill(status=429, headers={"Retry-After": "18"}, json={"error": "more than 5 requests in a minute"})

        page.clock.install()
        page.route("**/live", refuse)
        page.route("**/metrics/latest*", refuse)
        page.evaluate("dispatchEvent(new Event('online'))")
        page.wait_for_selector("body[data-state=reconnecting]")
        assert page.locator("#notice").inner_text() == "Too many requests, trying again in 18 s"
        page.clock.fast_forward(16_500)
        page.wait_for_timeout(500)
        assert len(tries) == 2
        page.unroute("**/live")
        page.unroute("**/metrics/latest*")
        page.wait_for_selector(LIVE, timeout=10_000)


def test_watched_would_notice(browser: Browser, server: Gunicorn) -> None:
    """The checks above can fail: each kind of fault is noticed."""
    with opened(browser, server.url) as watched:
        page = watched.page
        page.wait_for_selector(LIVE)
        page.evaluate("document.querySelector('#theme').removeAttribute('aria-label')")
        page.evaluate("document.querySelector('#theme').removeAttribute('title')")
        assert any("button-name" in violation for violation in Watched.violations(watched))
        page.evaluate("document.body.append(Object.assign(document.createElement('script'), {textContent: '1'}))")
        page.wait_for_timeout(200)
        assert any("Content Security Policy" in complaint for complaint in watched.complaints)
