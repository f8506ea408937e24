"""``streampulse shadow --prove``: this release counts beside the job's, from a copy of its state, and must agree.

The copy is of one ledger row, and so is the comparison: everything must be equal at equal offsets.
"""

import argparse
import os
import re
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psycopg2
from kafka.errors import KafkaError

from streampulse.core.errors import OperatorError, one_line
from streampulse.core.kafka import Topic
from streampulse.core.settings import CountingSettings, KafkaSettings, PostgresSettings
from streampulse.job.counting.state import present
from streampulse.job.store.commit import one
from streampulse.recount import ANSWER_SECONDS, compare, in_background, schema
from streampulse.recount.count import Recount
from streampulse.recount.letters import SentLetters

#: Fewer events prove nothing.
ENOUGH_EVENTS: Final = 10_000
PATIENCE_SECONDS: Final = 600
#: Cores and available memory that a count beside the job needs.
CORES: Final = 2
MEMORY_MB: Final = 1_000
#: Exit code of a proof that could not be made.
NOT_PROVED: Final = 3
_LOOK_SECONDS: Final = 2.0
_COUNTED: Final = "SELECT coalesce(sum(accepted), 0)::bigint, coalesce(sum(duplicates), 0)::bigint FROM "
_BY_THE_JOB: Final = (
    _COUNTED + "public.batch_ledger JOIN unnest(%s::integer[], %s::bigint[], %s::bigint[]) AS part (shard, after, last)"
    " USING (shard) WHERE seq > after AND seq <= last"
)


@dataclass
class Proof:
    """What was compared, and what differs, in words. ``events``: those that both have counted, duplicates included."""

    events: int = 0
    rows: int = 0
    letters: int = 0
    enough: bool = True
    differences: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return the outcome in a line."""
        counts = f"{self.events:,} events, {self.rows:,} rows, {self.letters:,} dead letters"
        if self.differences:
            return f"differs: {counts}, {len(self.differences):,} differ"
        return f"proved: {counts}, 0 differ" if self.enough else f"not proved: only {counts}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``streampulse shadow``."""
    parser.add_argument("--prove", action="store_true", required=True, help="compare with what the job counts")
    parser.add_argument("--events", type=int, default=ENOUGH_EVENTS, help="events to compare (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=PATIENCE_SECONDS, help="how long to wait for them (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prove, print the outcome, and return 0; 1 where something differs, 3 where there was too little to prove it.

    :raises OperatorError: Kafka or PostgreSQL does not answer, or the log changed.
    """
    memory = re.search(r"^MemAvailable: +(\d+)", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
    lacking = too_little(len(os.sched_getaffinity(0)), int(memory[1]) // 1_000 if memory else 0)
    if lacking:
        sys.stdout.write(f"not proved: {lacking}\n")
        return NOT_PROVED
    found = prove(*in_background(), arguments.events, arguments.seconds)
    for line in found.differences[: compare.SHOWN]:
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"{found.text()}\n")
    return 1 if found.differences else 0 if found.enough else NOT_PROVED


def too_little(cores: int, memory_mb: int) -> str:
    """Return which resource is too small for a count beside the job; empty if none is."""
    if cores < CORES:
        return f"{cores} core, and {CORES} are needed"
    return f"{memory_mb:,} MB of memory are available, and {MEMORY_MB:,} are needed" if memory_mb < MEMORY_MB else ""


def prove(
    kafka: KafkaSettings,
    postgres: PostgresSettings,
    counting: CountingSettings,
    events: int = ENOUGH_EVENTS,
    seconds: float = PATIENCE_SECONDS,
    waited: Callable[[], None] = lambda: time.sleep(_LOOK_SECONDS),
) -> Proof:
    """Count from a copy of the job's state until the job has counted so many events more, and compare.

    :param seconds: the longest time to wait for them.
    :param waited: waits between two looks.
    :raises OperatorError: Kafka or PostgreSQL does not answer, or the log changed.
    """
    try:
        with schema.made(postgres, with_pending=False), closing(Recount(kafka, postgres, counting)) as shadow:
            return _prove(kafka, postgres, counting, shadow, (events, time.monotonic() + seconds), waited)
    except psycopg2.Error as error:
        raise OperatorError(f"PostgreSQL at {postgres.host}:{postgres.port}: {one_line(error)} (inv doctor)") from None
    except KafkaError as error:
        raise OperatorError(f"Kafka at {kafka.bootstrap_servers}: {one_line(error)} (inv doctor)") from None


def _prove(
    kafka: KafkaSettings,
    postgres: PostgresSettings,
    counting: CountingSettings,
    shadow: Recount,
    until: tuple[int, float],
    waited: Callable[[], None],
) -> Proof:
    timeout_us = counting.viewer_timeout_seconds * 1_000_000
    with Topic(kafka, "streampulse-shadow", ANSWER_SECONDS) as reader:
        topic = reader.log(settled=True)
    first = schema.copy_state(postgres, timeout_us)
    if first.row.topic_id != topic.topic_id:
        raise OperatorError(f"the job has not yet counted anything of {kafka.topic}: wait for its next batch")
    shadow.resume(topic)
    while True:
        with closing(schema.connect(postgres)) as connection, connection, connection.cursor() as cursor:
            newest = schema.counted_up_to(cursor)
            if schema.new_spans(cursor):
                raise OperatorError("Kafka lost records while they were counted: run it again")
            counted = sum(_by_the_job(cursor, first.seqs, dict.fromkeys(first.seqs, 2**62)))
        schema.refresh_exclusions(postgres)
        shadow.count(newest.offsets)
        if counted >= until[0] or time.monotonic() > until[1]:
            break
        waited()
    engine, (last, seqs) = schema.copy_present(postgres, timeout_us)
    if seqs.keys() != first.seqs.keys():
        raise OperatorError("the number of drivers was changed while they counted (job_shards): run it again")
    schema.refresh_exclusions(postgres)
    shadow.count(last.offsets)
    sent = SentLetters(kafka, first.row.offsets, shadow.store.lost(topic.topic_id), None)
    sent.read()
    proof = Proof()
    with closing(schema.connect(postgres)) as connection, connection.cursor() as cursor:
        cursor.execute(schema.VIEWS_OF_COPIES)
        clocks = shadow.clocks()
        found = compare.find(cursor, max(clocks.values(), default=None), counting.history_days, {}, len(topic.starts))
        proof.differences += [f"row {line}" for line in found.named]
        hidden = found.rows_added + found.rows_removed + found.rows_changed - len(found.named)
        proof.differences += ["another row"] * hidden + ["the viewers of a stream"] * found.streams
        proof.differences += [f"clock of {line}" for line in compare.clock_differences(last.clocks, clocks)]
        own, theirs = shadow.present(), present(engine)
        for number in sorted(own.keys() | theirs.keys()):
            differing = own.get(number, {}).items() ^ theirs.get(number, {}).items()
            proof.differences += [
                f"viewer {user!r} of {stream!r}" for stream, user in sorted({k for k, _ in differing})
            ]
        cursor.execute("SELECT partition, record_offset, reason FROM streampulse_recount.letters")
        expected = {(number, offset, reason) for number, offset, reason in cursor}
        there = {(*at, each.reason) for at, each in sent.found.items() if at[1] < last.offsets.get(at[0], 0)}
        proof.differences += [
            f"dead letter of partition {number} offset {offset}: {reason}"
            for number, offset, reason in sorted(expected ^ there)
        ]
        accepted, duplicates = _by_the_job(cursor, first.seqs, seqs)
        cursor.execute(_COUNTED + "streampulse_recount.batch_ledger WHERE seq > %s", (first.row.seq,))
        for name, was, now in zip(("accepted", "duplicates"), (accepted, duplicates), one(cursor), strict=True):
            if was != now:
                proof.differences.append(f"{name}: {was:,} by the job, {now:,} by this release")
        cursor.execute("SELECT count(*) FROM present_rows")
        proof.rows = one(cursor)[0]
    proof.events, proof.letters = accepted + duplicates, len(there)
    proof.enough = proof.events >= until[0]
    return proof


def _by_the_job(cursor: psycopg2.extensions.cursor, after: dict[int, int], last: dict[int, int]) -> tuple[int, int]:
    """Return how many events and duplicates the job has counted between two moments, each a ledger row by driver."""
    cursor.execute(_BY_THE_JOB, (list(after), list(after.values()), [last[shard] for shard in after]))
    accepted, duplicates = one(cursor)
    return accepted, duplicates
