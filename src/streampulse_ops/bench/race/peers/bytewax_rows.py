# mypy: ignore-errors
"""Bytewax: rows by stream and minute, with recovery.

Started by ``python -m bytewax.testing FILE:flow -p PROCESSES -r FOLDER -s SECONDS -b 0``. State and positions are
stored together in the recovery folder; after a crash both go back to the last snapshot. The sink writes whole totals,
so a row that is written twice is the same row.
"""

import os
from datetime import UTC, datetime, timedelta

import bytewax.operators as op
import orjson
import psycopg2
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from psycopg2.extras import execute_values

COLUMNS = {"chat_message": 0, "donation": 1, "viewer_join": 3, "viewer_leave": 4}
KEPT_MINUTES = 12
UPSERT = """INSERT INTO stream_metrics_minute
(window_start, stream_id, chat_messages, donations, donations_usd, joins, leaves, unique_viewers) VALUES %s
ON CONFLICT (window_start, stream_id) DO UPDATE SET chat_messages = excluded.chat_messages,
donations = excluded.donations, donations_usd = excluded.donations_usd, joins = excluded.joins,
leaves = excluded.leaves, unique_viewers = excluded.unique_viewers"""


def decode(messages):
    """Return (stream, (minute, column, cents, user)) of each message of a batch."""
    found = []
    for message in messages:
        event = orjson.loads(message.value)
        column = COLUMNS.get(event["event_type"])
        if column is not None:
            cents = round(float(event["amount_usd"]) * 100) if column == 1 else 0
            found.append((event["stream_id"], (event["ts"][:16], column, cents, event["user_id"])))
    return found


class Minutes(StatefulBatchLogic):
    """The last minutes of one stream. Changed rows are emitted once a second."""

    def __init__(self, resumed):
        self.rows, self.changed = resumed or ({}, set())

    def on_batch(self, events):
        """Count."""
        rows, changed = self.rows, self.changed
        for minute, column, cents, user in events:
            row = rows.get(minute)
            if row is None:
                row = rows[minute] = [0, 0, 0, 0, 0, set()]
            row[column] += 1
            row[2] += cents
            row[5].add(user)
            changed.add(minute)
        return (), self.RETAIN

    def notify_at(self):
        """Return the next full second, the same for all streams, so that their rows are written together."""
        return datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1) if self.changed else None

    def on_notify(self):
        """Emit the changed rows and forget old ones."""
        found = [(minute, *self.rows[minute][:5], len(self.rows[minute][5])) for minute in self.changed]
        self.changed = set()
        for minute in sorted(self.rows)[:-KEPT_MINUTES]:
            del self.rows[minute]
        return found, self.RETAIN

    def snapshot(self):
        """Return a copy, since Bytewax stores it later."""
        return {minute: [*row[:5], set(row[5])] for minute, row in self.rows.items()}, set(self.changed)


class Writer(StatelessSinkPartition):
    """One worker's connection."""

    def __init__(self):
        self.connection = psycopg2.connect("")

    def write_batch(self, items):
        """Write rows in one transaction."""
        rows = {}
        for stream, (minute, chat, donations, cents, joins, leaves, users) in items:
            rows[minute, stream] = (f"{minute}Z", stream, chat, donations, f"{cents}e-2", joins, leaves, users)
        with self.connection, self.connection.cursor() as cursor:
            execute_values(cursor, UPSERT, [rows[key] for key in sorted(rows)], page_size=1_000)


class Rows(DynamicSink):
    """PostgreSQL."""

    def build(self, *_):
        """Return the writer of one worker."""
        return Writer()


flow = Dataflow("race")
messages = op.input("kafka", flow, KafkaSource([os.environ["RACE_BROKER"]], [os.environ["RACE_TOPIC"]]))
events = op.flat_map_batch("decode", messages, decode)
op.output("rows", op.stateful_batch("count", events, Minutes), Rows())
