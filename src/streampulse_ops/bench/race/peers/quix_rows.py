# mypy: ignore-errors
"""Quix Streams: rows by stream and minute, exactly-once.

Started by ``python FILE``, an instance for each core. State is in RocksDB with a changelog topic; ``exactly-once``
commits offsets and changelog in one transaction of Kafka. The sink writes whole totals before that, so a row that is
written twice is the same row. Unique viewers are left out: a window's state is one value that is read and written for
each record.
"""

import os
from datetime import UTC, datetime, timedelta

import psycopg2
import quixstreams.dataframe.windows.aggregations as agg
from psycopg2.extras import execute_values
from quixstreams import Application
from quixstreams.sinks import BatchingSink

COLUMNS = {"chat_message": 0, "donation": 1, "viewer_join": 3, "viewer_leave": 4}
UPSERT = """INSERT INTO stream_metrics_minute
(window_start, stream_id, chat_messages, donations, donations_usd, joins, leaves) VALUES %s
ON CONFLICT (window_start, stream_id) DO UPDATE SET chat_messages = excluded.chat_messages,
donations = excluded.donations, donations_usd = excluded.donations_usd, joins = excluded.joins,
leaves = excluded.leaves"""


def event_time(value, *_):
    """Return the event time in milliseconds since the epoch."""
    return int(datetime.fromisoformat(value["ts"]).timestamp() * 1000)


def add(row, event):
    """Return a window's totals with one more event."""
    column = COLUMNS[event["event_type"]]
    row[column] += 1
    if column == 1:
        row[2] += round(float(event["amount_usd"]) * 100)
    return row


class Rows(BatchingSink):
    """PostgreSQL. Of the many updates of a window in a batch, the last one is written."""

    def setup(self):
        """Connect."""
        self.connection = psycopg2.connect("")

    def write(self, batch):
        """Write rows in one transaction."""
        rows = {}
        for item in batch:
            stream = item.key.decode() if isinstance(item.key, bytes) else item.key
            rows[item.value["start"], stream] = item.value["row"]
        values = [
            (datetime.fromtimestamp(start / 1000, UTC), stream, row[0], row[1], f"{row[2]}e-2", row[3], row[4])
            for (start, stream), row in sorted(rows.items())
        ]
        with self.connection, self.connection.cursor() as cursor:
            execute_values(cursor, UPSERT, values, page_size=1_000)


instance = 0
for number in range(1, os.cpu_count() or 1):
    # Instances of one consumer group share the partitions.
    if os.fork() == 0:
        instance = number
        break

app = Application(
    broker_address=os.environ["RACE_BROKER"],
    consumer_group=os.environ["RACE_GROUP"],
    auto_offset_reset="earliest",
    processing_guarantee="exactly-once",
    state_dir=f"{os.environ['RACE_STATE']}/{instance}",
    # The default of 5 s would add as much to the time to the next commit.
    commit_interval=1.0,
)
topic = app.topic(os.environ["RACE_TOPIC"], value_deserializer="json", timestamp_extractor=event_time)
frame = app.dataframe(topic)
frame = frame[frame["event_type"].isin(list(COLUMNS))]
frame = frame.tumbling_window(timedelta(minutes=1), grace_ms=timedelta(minutes=10))
frame = frame.agg(row=agg.Reduce(reducer=add, initializer=lambda event: add([0] * 5, event))).current()
frame.sink(Rows())

if __name__ == "__main__":
    app.run()
