"""A plain pool to compare the API with: a query for each request, as it would be without snapshots.

Runs on the API's host, with its settings and its gunicorn, for `streampulse measure api`.
"""

import asyncio
import os
import sys
from typing import Any, Final

from streampulse.api.answers import answer
from streampulse.api.database import Database
from streampulse.api.questions import LatestQuestion
from streampulse.core.settings import ApiSettings, PostgresSettings, load

_QUESTION: Final = LatestQuestion(limit=100, after="", stream_id=None)
# One for each worker, made with the first request.
_databases: Final[list[Database]] = []


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer every request as /metrics/latest?limit=100, by a query."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if not _databases:
        _databases.append(Database(load(PostgresSettings), load(ApiSettings)))
    given = await asyncio.shield(_databases[0].run(lambda cursor: answer(_QUESTION.from_database(cursor))))
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(given.body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": given.body})


def main() -> None:
    """Become gunicorn, with two workers, on the port that is given."""
    if len(sys.argv) != 2 or not sys.argv[1].isdigit():
        sys.exit("usage: python -m streampulse.api.plain_pool PORT")
    os.execv(  # noqa: S606 - no shell
        sys.executable,
        [
            *(sys.executable, "-m", "gunicorn", "--workers", "2", "--worker-class", "uvicorn_worker.UvicornWorker"),
            *("--bind", f"0.0.0.0:{sys.argv[1]}", "--log-level", "warning", "streampulse.api.plain_pool:app"),
        ],
    )


if __name__ == "__main__":
    main()
