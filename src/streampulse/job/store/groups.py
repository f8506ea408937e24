"""The table ``dead_letter_groups``: how many dead letters there are of each reason, stream and producer."""

from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import psycopg2.extensions

from streampulse.events import MAX_ID_LENGTH
from streampulse.job.rows import DeadLetter

BUCKET_SECONDS: Final = 300
#: A bucket's letters of further groups have this stream_id. Garbage with ever new keys costs no more rows.
OTHERS: Final = "(others)"
_GROUPS_AT_MOST: Final = 200
_ENTER: Final = """
INSERT INTO dead_letter_groups AS g (bucket, reason, stream_id, producer, letters, newest)
VALUES (to_timestamp(%s), %s, %s, %s, %s, now())
ON CONFLICT (bucket, reason, stream_id, producer)
DO UPDATE SET letters = g.letters + EXCLUDED.letters, newest = EXCLUDED.newest
"""


class LetterGroup(NamedTuple):
    """Letters of one bucket, which begins at ``bucket_s`` seconds since the epoch."""

    bucket_s: int
    reason: str
    stream_id: str
    producer: str
    letters: int


class LetterGroups:
    """Groups the letters of one batch after the other."""

    def __init__(self) -> None:
        self._bucket_s = 0
        self._seen: set[tuple[str, str, str]] = set()

    def of(self, letters: Sequence[DeadLetter], now: float) -> list[LetterGroup]:
        """Return the groups of a batch's letters.

        :param now: seconds since the epoch.
        """
        bucket = round(now) // BUCKET_SECONDS * BUCKET_SECONDS
        if bucket != self._bucket_s:
            self._bucket_s, self._seen = bucket, set()
        counts: Counter[tuple[str, str, str]] = Counter()
        for letter in letters:
            group = letter.reason, shown(letter.key), shown(letter.producer.encode())
            if group not in self._seen:
                if len(self._seen) >= _GROUPS_AT_MOST:
                    group = letter.reason, OTHERS, ""
                self._seen.add(group)
            counts[group] += 1
        return [LetterGroup(bucket, *group, count) for group, count in sorted(counts.items())]


def shown(key: bytes | None) -> str:
    """Return a key as text that a terminal and PostgreSQL take, of 128 characters at most."""
    text = (key or b"")[: 4 * MAX_ID_LENGTH].decode("utf-8", errors="backslashreplace")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)[
        :MAX_ID_LENGTH
    ]


def write_groups(cursor: psycopg2.extensions.cursor, groups: Sequence[LetterGroup]) -> None:
    """Add a batch's groups to the table, in the batch's transaction."""
    if groups:
        cursor.executemany(_ENTER, groups)
