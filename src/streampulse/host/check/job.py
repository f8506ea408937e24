"""Looks at the job: its progress, its ledger, lost and excluded records, and clocks."""

from collections.abc import Iterator
from typing import Final

from streampulse.core import http, kafka
from streampulse.core.settings import JobSettings, KafkaSettings, load
from streampulse.events import ALLOWED_FUTURE_US
from streampulse.host.check.host import ANSWER_SECONDS, Finding, Host, fault, fine, look, reachable
from streampulse.host.check.postgres import query

#: The job commits every second or so while there is anything to read.
JOB_SILENT_SECONDS: Final = 30


@look("job.progress", "job")
def progress(host: Host, services: dict[str, str]) -> Iterator[Finding]:
    """Look whether the job commits while events wait."""
    newest = query(
        "SELECT shard, shards, offsets, extract(epoch FROM now() - committed_at)::float8 FROM newest_batches"
        " ORDER BY shard"
    )
    log = _log()
    running = host.uptime() - int(host.properties(services["job"]).get("ActiveEnterTimestampMonotonic") or 0) / 1e6
    fine_ones = []
    for shard, shards, offsets, age in newest or [(0, 1, {}, None)]:
        others = {str(number): end for number, end in log.ends.items() if number % shards != shard}
        lag = log.behind(others | offsets)
        silent = running if age is None else min(age, running)
        who, name = (
            ("the job", "job.progress") if shards == 1 else (f"shard {shard} of the job", f"job.progress.{shard}")
        )
        if lag and silent > JOB_SILENT_SECONDS:
            last = "has never committed a batch" if age is None else f"committed its newest batch {age:.0f} s ago"
            yield fault("SP-JOB-001", name, f"{lag:,} records wait, and {who} {last}", "inv logs job")
        else:
            last = "nothing to read yet" if age is None else f"newest batch {age:.0f} s ago, {lag:,} records behind"
            fine_ones.append(last if shards == 1 else f"{who}: {last}")
    if len(fine_ones) == max(1, len(newest)):
        yield fine("job.progress", "; ".join(fine_ones))


@look("job.ledger", "job")
def ledger(_: Host, __: dict[str, str]) -> Iterator[Finding]:
    """Look whether the newest batches in the ledger follow one another: offsets go back only where Kafka lost some."""
    back = query(
        "SELECT this.seq, this.number, this.before, this.reached FROM ("
        "  SELECT seq, topic_id, key AS number, value::bigint AS reached,"
        "    lag(value::bigint) OVER (PARTITION BY topic_id, key ORDER BY seq) AS before"
        "  FROM (SELECT * FROM batch_ledger ORDER BY seq DESC LIMIT 500) AS newest, jsonb_each_text(offsets)"
        ") AS this WHERE this.reached < this.before AND NOT EXISTS ("
        "  SELECT FROM lost_spans WHERE topic_id = this.topic_id AND partition = this.number::integer"
        "  AND kind = 'lost' AND next_offset >= this.before) ORDER BY this.seq"
    )
    for seq, partition, before, reached in back:
        cause = f"row {seq} of batch_ledger goes back from offset {before} to {reached} in partition {partition}"
        yield fault("SP-JOB-006", "job.ledger", cause, "inv verify")
    if not back:
        yield fine("job.ledger", "no batch goes back")


@look("job.lost", "job")
def lost(host: Host, _: dict[str, str]) -> Iterator[Finding]:
    """Look whether Kafka lost records a short while ago."""
    said = {"lost": "were lost after they were counted", "unread": "were removed before the job read them"}
    yield from _spans(
        host, "SP-JOB-002", "job.lost", "lost_spans", "next_offset - 1, kind", "noted_at", said, "inv verify"
    )


@look("job.excluded", "job")
def excluded(host: Host, _: dict[str, str]) -> Iterator[Finding]:
    """Look whether records were excluded a short while ago."""
    said = {"invalid": "do not count: they cannot be read", "future": "do not count: they are ahead of the clocks"}
    table = "excluded_records WHERE NOT pending"
    fix = "inv peek stream.events.dlq"
    yield from _spans(host, "SP-JOB-003", "job.excluded", table, "last_offset, reason", "excluded_at", said, fix)


def _spans(
    host: Host, code: str, name: str, table: str, columns: str, noted: str, said: dict[str, str], fix: str
) -> Iterator[Finding]:
    """Find the spans of offsets that a table has since a short while.

    :param columns: the last offset, and the word that ``said`` has a sentence for.
    """
    rows = query(
        f"SELECT partition, first_offset, {columns}, extract(epoch FROM now() - {noted})::float8"  # noqa: S608 - constants
        f" FROM {table} ORDER BY {noted} DESC LIMIT 20"
    )
    recent = [row for row in rows if row[-1] < host.limits()["records_lost"]]
    for partition, first, last, word, _ in recent:
        yield fault(code, name, f"records {first} to {last} of partition {partition} {said[word]}", fix)
    if not recent:
        yield fine(name, "none in the last hour")


@look("job.clocks", "job")
def clocks(_: Host, __: dict[str, str]) -> Iterator[Finding]:
    """Look whether a partition's event clock is ahead, and whether a partition waits because clocks differ."""
    found = query(
        "SELECT key, value::float8 / 1e6 - extract(epoch FROM now())::float8 FROM jsonb_each_text("
        "  (SELECT clocks FROM counted_up_to)) ORDER BY key::integer"
    )
    ahead = [each for each in found if each[1] > ALLOWED_FUTURE_US / 1_000_000]
    for partition, seconds in ahead:
        cause = f"the event clock of partition {partition} is {seconds:.0f} s ahead of PostgreSQL's"
        yield fault("SP-JOB-004", "job.clocks", cause, "timedatectl")
    waiting = _waiting()
    for partition, clock, offset in waiting:
        cause = f"partition {partition} waits at offset {offset}: {clock} clock differs or does not answer"
        yield fault("SP-JOB-005", "job.clocks", cause, "timedatectl")
    if not ahead and not waiting:
        oldest = f", the oldest {-min(each[1] for each in found):.0f} s behind" if found else ""
        yield fine("job.clocks", f"no event clock of {len(found)} partitions is ahead{oldest}")


def _waiting() -> list[tuple[str, str, int]]:
    """Return partition, clock and offset of each partition that waits, as the job's scrape endpoints have them."""
    from prometheus_client.parser import text_string_to_metric_families

    settings, found = load(JobSettings), []
    for shard in range(settings.shards):
        url = f"http://{reachable(settings.metrics_host)}:{settings.metrics_port + shard}/metrics"
        try:
            text = http.get(url, seconds=ANSWER_SECONDS).text
        except http.NoAnswer:
            # Another host's, or the check of the ports names a job that does not answer.
            continue
        found += [
            (sample.labels["partition"], sample.labels["clock"], int(sample.value))
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "streampulse_job_waiting_partition_offset"
        ]
    return found


def _log() -> kafka.Log:
    """Return the bounds of the raw topic."""
    with kafka.Topic(load(KafkaSettings), "streampulse-check", ANSWER_SECONDS) as topic:
        return topic.log()
