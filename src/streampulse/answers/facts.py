"""What PostgreSQL knows about the topic besides its log."""

from dataclasses import dataclass, field

import psycopg2.extensions

from streampulse.core.errors import OperatorError
from streampulse.oracle.compare import generation_at
from streampulse.oracle.reader import Bounds, TopicReader
from streampulse.oracle.spans import Exclusion, LostSpan, by_partition, in_force, read_spans, unreadable, uuid_of


@dataclass(frozen=True)
class Facts:
    """The newest ledger row's position, the lost spans and the exclusions in force, by partition.

    ``first_read_ms`` is when the topic was first read, in milliseconds since the epoch; None: it is the only topic that
    was ever read.
    """

    topic_id: str
    offsets: dict[int, int]
    lost: dict[int, list[LostSpan]] = field(default_factory=dict)
    excluded: dict[int, list[Exclusion]] = field(default_factory=dict)
    first_read_ms: int | None = None

    def generation(self, partition: int, offset: int) -> int:
        """Return the generation of the record that the log has at an offset."""
        return generation_at([span.first_offset for span in self.lost.get(partition, ())], offset)

    @property
    def unreadable(self) -> dict[int, list[Bounds]]:
        """By partition the offsets of records that cannot be read."""
        return unreadable(self.excluded)


def read_facts(connection: psycopg2.extensions.connection, reader: TopicReader, topic: str) -> Facts:
    """Read the facts about the topic that the job reads now.

    :raises OperatorError: the job has committed nothing of this topic yet.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT topic_id, offsets FROM counted_up_to")
        newest = cursor.fetchone()
        if newest is None or newest[0] is None or uuid_of(newest[0]) not in (None, reader.topic_id(topic)):
            raise OperatorError(f"the job has committed no batch of {topic} yet: inv status, inv logs job")
        lost, excluded = read_spans(cursor, newest[0])
        cursor.execute(
            "SELECT (SELECT (extract(epoch FROM first_read) * 1000)::bigint FROM topics_read WHERE topic_id = %s)"
            " FROM topics_read HAVING count(*) > 1",
            (newest[0],),
        )
        first_read = cursor.fetchone()
    spans = by_partition(lost)
    offsets = {int(number): int(offset) for number, offset in newest[1].items()}
    return Facts(newest[0], offsets, spans, in_force(excluded, spans), None if first_read is None else first_read[0])
