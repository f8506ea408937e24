"""Questions to the database: simultaneous equal ones share a query, which no single client can cancel."""

import asyncio

from streampulse.api.answers import Asker


def test_equal_questions_share_one_query_that_outlives_its_client() -> None:
    asked = []

    async def query(key: str) -> str:
        asked.append(key)
        await asyncio.sleep(0.05)
        return key.upper()

    async def ask_all() -> list[str]:
        asker = Asker(query, fresh=60, stale_seconds=0)
        first = asyncio.ensure_future(asker.ask("a"))
        others = [asyncio.ensure_future(asker.ask(key)) for key in "aaaaaaab"]
        await asyncio.sleep(0.01)
        first.cancel()
        given = [await other for other in others]
        given.append(await asker.ask("a"))
        return [value for value, _, stale in given if not stale]

    assert asyncio.run(ask_all()) == ["A"] * 7 + ["B", "A"]
    assert asked == ["a", "b"]
