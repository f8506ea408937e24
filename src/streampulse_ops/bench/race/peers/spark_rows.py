"""Spark alone: rows by stream and minute, with ``from_json``, a checkpoint and ``foreachBatch``.

Started by ``spark-submit FILE``. A batch that is repeated after a crash has the same number and records; the sink
enters the number in the transaction of its rows, as the guide to ``foreachBatch`` asks for. A batch adds to rows, so
no state is kept. Unique viewers are left out: Spark counts the different values of a stream only approximately.
"""

import os
from typing import Any, Final

import psycopg2
from psycopg2.extras import execute_values
from pyspark.sql import SparkSession
from pyspark.sql import functions as f

SCHEMA: Final = "event_type string, stream_id string, user_id string, ts timestamp, amount_usd decimal(12, 2)"
UPSERT: Final = """INSERT INTO stream_metrics_minute AS rows
(window_start, stream_id, chat_messages, donations, donations_usd, joins, leaves) VALUES %s
ON CONFLICT (window_start, stream_id) DO UPDATE SET chat_messages = rows.chat_messages + excluded.chat_messages,
donations = rows.donations + excluded.donations, donations_usd = rows.donations_usd + excluded.donations_usd,
joins = rows.joins + excluded.joins, leaves = rows.leaves + excluded.leaves"""


def count(name: str) -> Any:
    """Return the number of events of a type."""
    return f.count_if(f.col("event_type") == name)


def write(batch: Any, number: int) -> None:
    """Add a batch to the rows, once."""
    minute = f.date_trunc("minute", "ts").cast("long").alias("minute")
    usd = f.coalesce(f.sum(f.when(f.col("event_type") == "donation", f.col("amount_usd"))), f.lit(0))
    counted = (count("chat_message"), count("donation"), usd, count("viewer_join"), count("viewer_leave"))
    rows = batch.groupBy(minute, "stream_id").agg(*counted).collect()
    connection = psycopg2.connect("")
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS batches (number bigint PRIMARY KEY)")
        cursor.execute("INSERT INTO batches VALUES (%s) ON CONFLICT DO NOTHING", (number,))
        if cursor.rowcount:
            execute_values(
                cursor, UPSERT, sorted(map(tuple, rows)), "(to_timestamp(%s), %s, %s, %s, %s, %s, %s)", 1_000
            )
    connection.close()


def main() -> None:
    """Count until the process is ended."""
    spark = SparkSession.builder.appName("race").getOrCreate()
    records = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", os.environ["RACE_BROKER"])
        .option("subscribe", os.environ["RACE_TOPIC"])
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", os.environ["RACE_BATCH"])
        .load()
    )
    events = records.select(f.from_json(f.col("value").cast("string"), SCHEMA).alias("e")).select("e.*")
    query = events.writeStream.foreachBatch(write).option("checkpointLocation", os.environ["RACE_STATE"]).start()
    query.awaitTermination()


if __name__ == "__main__":
    main()
