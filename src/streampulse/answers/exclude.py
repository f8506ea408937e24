"""``streampulse exclude``: an operator judges one record of the topic, and lists the records that were judged."""

import argparse
import sys
import time
from typing import Final

import psycopg2.extensions

from streampulse.answers.facts import Facts, read_facts
from streampulse.answers.output import columns, database, moment
from streampulse.core import kafka, postgres
from streampulse.core.errors import OperatorError, UsageError
from streampulse.core.settings import KafkaSettings, PostgresSettings, load
from streampulse.events import InvalidEvent, parse
from streampulse.oracle.decide import FUTURE, INVALID
from streampulse.oracle.reader import Bounds, TopicReader

#: The words of the command line, and the reasons that the table has.
REASONS: Final = {"future": FUTURE, "unreadable": INVALID}
#: The running job looks at the table every two seconds.
_PATIENCE_SECONDS: Final = 10.0
_ENTRY: Final = (
    "SELECT reason, pending, excluded_by, excluded_at FROM excluded_records WHERE topic_id = %s AND partition = %s"
    " AND generation = %s AND %s BETWEEN first_offset AND last_offset"
)
_ENTER: Final = (
    "INSERT INTO excluded_records"
    " (topic_id, partition, generation, first_offset, last_offset, reason, pending, excluded_by)"
    " VALUES (%s, %s, %s, %s, %s, %s, true, %s) ON CONFLICT DO NOTHING"
)
_REACHED: Final = "SELECT coalesce((offsets ->> %s)::bigint, 0) FROM counted_up_to"
_LIST: Final = (
    "SELECT topic_id, partition, generation, first_offset, last_offset, reason, pending, excluded_by, excluded_at"
    " FROM excluded_records ORDER BY excluded_at DESC, partition, first_offset"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``streampulse exclude``."""
    parser.add_argument("partition", metavar="PARTITION|list")
    parser.add_argument("offset", nargs="?", metavar="OFFSET")
    parser.add_argument("--reason", default="", help=", ".join(REASONS))
    parser.add_argument("--by", default="root", metavar="WHO", help="name of the operator")
    parser.add_argument("--dry-run", action="store_true", help="change nothing")


def run(arguments: argparse.Namespace) -> int:
    """Exclude a record or list the exclusions.

    :raises OperatorError: it cannot be excluded, or Kafka or PostgreSQL does not answer.
    """
    kafka.silence()
    settings, server = load(KafkaSettings), load(PostgresSettings)
    if arguments.partition == "list":
        if arguments.offset is not None or arguments.reason:
            raise UsageError("list takes no offset and no reason: inv exclude list")
        said = listed(server)
    else:
        partition, offset = number("partition", arguments.partition), number("offset", arguments.offset)
        if arguments.reason not in REASONS:
            raise UsageError(
                f"{arguments.reason or 'no reason'} is not a reason. There are: future (its time is wrong), "
                f"unreadable. Try: inv exclude {partition} {offset} --reason future"
            )
        where, reason = (partition, offset), REASONS[arguments.reason]
        said = exclude(settings, server, where, reason, arguments.by, dry_run=arguments.dry_run)
    sys.stdout.write("\n".join(said) + "\n")
    return 0


def number(name: str, text: str | None) -> int:
    """Return a whole number of the command line.

    :raises UsageError: it is none.
    """
    if text is None or not text.isdecimal():
        raise UsageError(
            f"the {name} is {text or 'missing'}, not a whole number: inv exclude PARTITION OFFSET --reason future"
        )
    return int(text)


def exclude(
    settings: KafkaSettings, server: PostgresSettings, where: tuple[int, int], reason: str, by: str, *, dry_run: bool
) -> list[str]:
    """Enter one record as excluded, wait for the running job, and return lines that say what it came to.

    :param where: partition and offset; :param reason: ``future`` or ``invalid``; :param by: name of the operator.
    :raises OperatorError: there is no such record, or its outcome would not change.
    """
    partition, offset = where
    reader = TopicReader(settings)
    try:
        with database(server, "exclude") as connection:
            facts = read_facts(connection, reader, settings.topic)
            _check(reader, settings.topic, facts, where, reason)
            key = (facts.topic_id, partition, facts.generation(partition, offset))
            for judged, pending, who, at in postgres.execute(connection, _ENTRY, (*key, offset)):
                state = "pending" if pending else "in force"
                raise OperatorError(
                    f"partition {partition} offset {offset} is excluded already ({judged}, {state}, by {who} at "
                    f"{moment(at)}): inv exclude list"
                )
            if dry_run:
                counted = facts.offsets.get(partition, 0) > offset
                effect = (
                    "an inv recount is needed, it is counted already" if counted else "at once, it is not counted yet"
                )
                return [f"partition {partition} offset {offset} would be excluded as {reason}; effect: {effect}"]
            postgres.execute(connection, _ENTER, (*key, offset, offset, reason, by))
            return [f"partition {partition} offset {offset} is excluded as {reason}: {_effect(connection, key, where)}"]
    finally:
        reader.close()


def _check(reader: TopicReader, topic: str, facts: Facts, where: tuple[int, int], reason: str) -> None:
    partition, offset = where
    bounds = reader.bounds(topic)
    if partition not in bounds:
        raise OperatorError(f"{topic} has no partition {partition}: it has 0 to {max(bounds)}. See: inv trace EVENT_ID")
    start, end = bounds[partition]
    if not start <= offset < end:
        raise OperatorError(
            f"partition {partition} has no record at offset {offset}: its log has {start} to {end - 1}. "
            "See: inv trace EVENT_ID, inv peek"
        )
    if reason == INVALID:
        # The record need not be readable.
        return
    found = next(reader.read(topic, {partition: Bounds(offset, offset + 1)}, excluded=facts.unreadable), None)
    if found is None:
        raise OperatorError(
            f"partition {partition} offset {offset} holds no record (a transaction's marker, or excluded): inv peek"
        )
    try:
        parse(found.key, found.value, partition, len(bounds))
    except InvalidEvent as error:
        raise OperatorError(
            f"partition {partition} offset {offset} is no valid event ({error.detail}) and counts nowhere: inv dlq show"
        ) from None


def _effect(connection: psycopg2.extensions.connection, key: tuple[str, int, int], where: tuple[int, int]) -> str:
    """Wait until the job has put the entry in force or has counted the record, and return the effect in words."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        ((_, pending, *_more),) = postgres.execute(connection, _ENTRY, (*key, where[1]))
        ((reached,),) = postgres.execute(connection, _REACHED, (str(where[0]),))
        if not pending:
            return "in force, the job had not read it"
        if reached > where[1]:
            return "pending, because it is counted already. Count again without it: inv recount"
        if time.monotonic() > deadline:
            return (
                "pending, because the job has not read on since. It puts the entry in force if it has not read the "
                "record: inv exclude list, inv status"
            )
        time.sleep(0.2)


def listed(server: PostgresSettings) -> list[str]:
    """Return the exclusions as lines, the newest first."""
    with database(server, "exclude") as connection:
        rows = postgres.execute(connection, _LIST)
        newest = postgres.execute(connection, "SELECT topic_id FROM counted_up_to")
    if not rows:
        return ["no record is excluded"]
    lines = [("partition", "offsets", "reason", "state", "by", "at")]
    for topic_id, partition, generation, first, last, reason, pending, who, at in rows:
        offsets = str(first) if first == last else f"{first} to {last}"
        state = "pending" if pending else "in force"
        if newest and newest[0][0] != topic_id:
            state = "of an earlier topic"
        more = f" (generation {generation})" if generation else ""
        lines.append((str(partition), offsets + more, reason, state, who, moment(at)))
    return columns(lines)
