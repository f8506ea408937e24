"""A client for the API in this process, for tests that write rows and read exactly these."""

import asyncio
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from streampulse.api.app import create_app
from streampulse.api.database import Database
from streampulse.core.settings import ApiSettings, PostgresSettings

INTERVAL_MS = 50


def make_app(postgres: PostgresSettings, **settings: Any) -> FastAPI:
    """Return the application for a database, with the given settings of the API."""
    chosen = {"port": 1, "pool_size": 2, "snapshot_interval_ms": INTERVAL_MS, **settings}
    return create_app(ApiSettings(**chosen), lambda api: Database(postgres, api))


class FreshClient(TestClient):
    """Waits before each request until the API has read the previous writes."""

    def request(self, *arguments: Any, **more: Any) -> Any:
        assert self.portal is not None
        self.portal.call(self._read_again)
        return super().request(*arguments, **more)

    async def _read_again(self) -> None:
        snapshots = self.app.state.runtime.snapshots  # type: ignore[attr-defined]
        # Answers from the database itself are cached for one interval.
        await asyncio.sleep(INTERVAL_MS / 1000)
        snapshots.hurry()
        await snapshots.next(5)
