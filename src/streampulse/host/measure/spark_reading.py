"""Program of :mod:`streampulse.host.measure.spark` for spark-submit: read, parse and drop every record.

Prints each batch's number of records and its seconds, as JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile

from streampulse.core.settings import JobSettings, KafkaSettings, load

#: The contract's fields, in lossless types.
SCHEMA = (
    "event_id string, ts string, event_type string, stream_id string, user_id string, message_len long,"
    " amount_usd decimal(30,2)"
)


def main() -> None:
    """Read the topic from its beginning to its present end, in batches of the job's size."""
    from pyspark.sql import SparkSession
    from pyspark.sql.functions import col, from_json

    kafka, job = load(KafkaSettings), load(JobSettings)
    session = SparkSession.builder.appName("streampulse-measure").getOrCreate()
    session.sparkContext.setLogLevel("WARN")
    records = (
        session.readStream.format("kafka")
        .option("subscribe", kafka.topic)
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", job.max_offsets_per_trigger)
        .options(**kafka.spark_options())
        .load()
    )
    events = records.select(from_json(col("value").cast("string"), SCHEMA).alias("event")).select("event.*")
    with tempfile.TemporaryDirectory() as checkpoint:
        query = (
            events.writeStream.format("noop")
            .option("checkpointLocation", checkpoint)
            .trigger(availableNow=True)
            .start()
        )
        query.awaitTermination()
        batches = [
            {"records": progress["numInputRows"], "seconds": progress["durationMs"]["triggerExecution"] / 1000}
            for progress in query.recentProgress
        ]
    sys.stdout.write(json.dumps(batches) + "\n")
    session.stop()


if __name__ == "__main__":
    main()
