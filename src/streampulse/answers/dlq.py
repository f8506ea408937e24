"""``streampulse dlq``: count dead letters, show them, and send them again."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from streampulse.answers.conditions import Where, where
from streampulse.answers.output import columns, database, moment
from streampulse.core import postgres
from streampulse.core.errors import OperatorError, UsageError
from streampulse.core.settings import KafkaSettings, PostgresSettings, load

if TYPE_CHECKING:
    from streampulse.answers.letters import Letter

_SHOWN_GROUPS: Final = 40
#: A part of a group's letters may be older than the instant that is asked for: letters are counted by five minutes.
_GROUPS: Final = """
SELECT reason, stream_id, producer, sum(letters)::bigint, max(newest),
       (sum(sum(letters)) OVER ())::bigint, count(*) OVER ()
FROM dead_letter_groups
WHERE newest >= to_timestamp(%(since)s) AND (%(reason)s IS NULL OR reason = %(reason)s)
  AND (%(stream)s IS NULL OR stream_id = %(stream)s)
GROUP BY reason, stream_id, producer ORDER BY max(newest) DESC, 4 DESC LIMIT %(limit)s
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``streampulse dlq``."""
    parser.add_argument("action", help="list, show or replay")
    parser.add_argument("--where", default="", metavar="CONDITIONS", help="reason=…,stream=…,since=…")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="replay: change a field")
    parser.add_argument("-n", dest="count", type=int, default=3, help="show: how many")
    parser.add_argument("--by", default="root", metavar="WHO", help="name of the operator")
    parser.add_argument("--dry-run", action="store_true", help="replay: only predict")


def run(arguments: argparse.Namespace) -> int:
    """Do what is asked.

    :raises OperatorError: Kafka or PostgreSQL does not answer, or a replay came to something else than was predicted.
    """
    wanted = where(arguments.where, time.time_ns() // 1_000_000)
    if arguments.action not in ("list", "show", "replay"):
        raise UsageError(f"{arguments.action} cannot be done with dead letters: inv dlq list, show or replay")
    if arguments.action != "replay" and (arguments.set or arguments.dry_run):
        raise UsageError("--set and --dry-run are for a replay: inv dlq replay --where … --dry-run")
    if not 1 <= arguments.count <= 1_000:
        raise UsageError("-n must be from 1 to 1000: inv dlq show -n 10")
    server = load(PostgresSettings)
    if arguments.action == "list":
        _say("\n".join(listed(server, wanted)))
        return 0
    # Kafka's clients take a second to import. A list needs none.
    from streampulse.answers.facts import read_facts
    from streampulse.answers.letters import Letters
    from streampulse.answers.replay import Replay, edits
    from streampulse.core import kafka
    from streampulse.oracle.command import Progress
    from streampulse.oracle.reader import TopicReader

    kafka.silence()
    settings = load(KafkaSettings)
    with closing(TopicReader(settings)) as reader:
        letters = Letters(reader, settings.dlq_topic, settings.topic)
        if arguments.action == "show":
            found = letters.newest(wanted, arguments.count)
            _say("\n".join(map(shown_in_full, found)) if found else "no letter meets the conditions: inv dlq list")
            return 0
        changes, progress = edits(arguments.set), Progress()
        with database(server, "dlq") as connection:
            facts = read_facts(connection, reader, settings.topic)
            chosen = list(letters.all(wanted, lambda count: progress(f"dlq  read {count:,} letters")))
            replay = Replay(reader, settings, connection, facts, arguments.by)
            replay.predict(chosen, changes)
            progress.done()
            _say("\n".join(replay.said()))
            if arguments.dry_run or not replay.due:
                return 0
            replay.send()
            _say("\n".join(replay.compared(letters)))
    if replay.surprises:
        raise OperatorError(f"{len(replay.surprises):,} replays came to something else than was predicted: inv verify")
    return 0


def listed(server: PostgresSettings, wanted: Where) -> list[str]:
    """Return the groups of letters as lines, the newest first."""
    since = (wanted.since_ms or 0) / 1000
    chosen = {"since": since, "reason": wanted.reason, "stream": wanted.stream, "limit": _SHOWN_GROUPS}
    with database(server, "dlq") as connection:
        rows = postgres.execute(connection, _GROUPS, chosen)
    if not rows:
        return ["no dead letters"]
    lines = [("letters", "newest", "reason", "stream", "producer")]
    for reason, stream, producer, count, newest, *_ in rows:
        lines.append((f"{count:,}", moment(newest), reason, stream or "(no key)", producer or "-"))
    total, groups = rows[0][5:]
    more = f", {groups - len(rows):,} older groups are not shown" if groups > len(rows) else ""
    return [*columns(lines), f"{total:,} letters in {groups:,} groups{more}"]


def shown_in_full(letter: Letter) -> str:
    """Return a letter with everything that it has."""
    from streampulse.host.peek import printable

    at = moment(datetime.fromtimestamp(letter.at_ms / 1000, UTC))
    generation = f" generation {letter.source.generation}" if letter.source.generation else ""
    return "\n".join(
        [
            f"{letter.reason} at {at}: {printable(letter.detail.encode())}",
            f"  record: partition {letter.source.partition} offset {letter.source.offset}{generation}"
            + (f", producer {printable(letter.producer.encode())}" if letter.producer else ""),
            f"  key: {printable(letter.key)}",
            f"  {printable(letter.value)}",
        ]
    )


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
