"""One micro-batch from decoded slices to a commit, retried when PostgreSQL goes away in the middle."""

import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence

import psycopg2

from streampulse.core.errors import OperatorError
from streampulse.job import metrics
from streampulse.job.counting.engine import Engine
from streampulse.job.counting.state import Presences, assume_present, present
from streampulse.job.dead_letters import Letters
from streampulse.job.positions import Border, Position, position
from streampulse.job.report import Report
from streampulse.job.rows import FUTURE, DeadLetter, Exclusion, Slice
from streampulse.job.source import Start
from streampulse.job.store import Batch, Store, SupersededError
from streampulse.job.store.exclusions import Exclusions, joined
from streampulse.job.store.groups import LetterGroups
from streampulse.job.store.state import LedgerRow

log = logging.getLogger(__name__)

# Errors of a lost connection, of a server that starts or stops, and of a full disk: worth another try.
_PASSING = (psycopg2.OperationalError, psycopg2.InterfaceError)
_RETRY_SECONDS = 0.5
# Longer than the longest statement of the lost connection can take.
_LOCK_PATIENCE_SECONDS = 70.0
_RETENTION_INTERVAL_SECONDS = 30.0


class Batches:
    """Processes micro-batches one after the other.

    :param store: opened by :meth:`open`.
    :param letters: opened by the caller.
    """

    def __init__(self, store: Store, letters: Letters) -> None:
        self._store = store
        self._letters = letters
        self._engine: Engine | None = None
        self._topic_id: str | None = None
        self._retention_due = 0.0
        self._report = Report()
        self.commits = 0
        #: The batch that is under way, or was last.
        self.batch_id: int | None = None
        #: By partition the offset up to which the log is committed.
        self.read_up_to: dict[int, int] = {}
        #: By partition the records that were excluded before the start.
        self.excluded: dict[int, list[Exclusion]] = {}
        self._groups = LetterGroups()
        #: When a batch last got a step further or PostgreSQL was asked whether it is back, on the monotonic clock.
        self.alive_at = time.monotonic()
        #: When the event clock of the other shards was last followed, on the monotonic clock.
        self.followed_at = 0.0

    def open(self, fence: Callable[[int], int] | None = None) -> LedgerRow:
        """Become the writer, load the state and return the shard's newest row of the ledger.

        :param fence: see :meth:`Store.open`.
        :raises OperatorError: another driver is the writer.
        :raises psycopg2.OperationalError: the server does not answer.
        """
        started = time.monotonic()
        self._store.open(fence)
        self._engine, newest = self._store.load()
        size = self._engine.size()
        log.info(
            "state loaded in %.2f s: %d streams, %d viewers, %d event ids",
            time.monotonic() - started,
            size["streams"],
            size["viewers"],
            size["event_ids"],
        )
        self.read_up_to = self._engine.next_offsets()
        return newest

    def start_topic(self, topic_id: str, start: Start) -> None:
        """Set the topic of the batches, and where reading it begins.

        Lost spans are committed, in Kafka and in PostgreSQL, before anything is read behind them. A driver that starts
        after that finds its position in the log.

        :param topic_id: its id, which a topic that was deleted and made again does not keep.
        """
        self._topic_id = topic_id
        if start.spans:
            self._store.hold()
            back = {span.partition: start.offsets[span.partition] for span in start.spans}
            self._letters.go_back(back)
            engine = self._state()
            for number, offset in back.items():
                engine.go_back(number, offset)
            changes, accepted = engine.apply([])
            last = {number: start.last[number] for number in back}
            batch = Batch(str(uuid.uuid4()), 0, topic_id, {}, last=last, spans=start.spans)
            self._store.commit(batch, engine, changes, accepted)
            self.read_up_to = engine.next_offsets()
        self._letters.lost = self._store.lost(topic_id)
        self.excluded = self._store.exclusions(topic_id)
        metrics.LOST_SPAN.set(self._store.newest_span_s())

    def exclusions_ahead(self, out: Mapping[int, int]) -> Exclusions:
        """Return the excluded records ahead: see :meth:`Store.exclusions_ahead`."""
        return self._store.exclusions_ahead(self._topic_id or "", out)

    def positions(self, start: Start) -> dict[int, Position]:
        """Return by partition where reading begins."""
        clocks = self._state().partition_clocks()
        return {
            number: position(offset, clocks.get(number), start.last[number], self._borders(number))
            for number, offset in start.offsets.items()
        }

    def position(self, piece: Slice) -> Position:
        """Return where reading goes on behind a slice."""
        return position(piece.next_offset, piece.clock_us, piece.last, self._borders(piece.partition))

    def _borders(self, partition: int) -> list[Border]:
        return self._store.borders(self._topic_id).get(partition, [])

    def process(
        self, query_id: str, batch_id: int, slices: Sequence[Slice], begun: float, decoded: float | None = None
    ) -> None:
        """Count and commit one batch; a batch already in the ledger is passed over.

        :param slices: go on from the batch before.
        :param begun: when reading it began, on the monotonic clock; :param decoded: when it was decoded, None: now.
        :raises OperatorError: another driver has become the writer, or the database is not the one it was.
        """
        self.alive_at = time.monotonic()
        self.batch_id = batch_id
        goes_on_from, newest = self.read_up_to, self._store.seq
        decoded = time.monotonic() if decoded is None else decoded
        while True:
            try:
                if self._store.committed(query_id, batch_id):
                    log.info("the ledger has the batch already", extra={"fields": {"batch_id": batch_id}})
                    return
                if self._store.seq != newest:
                    # A database that was restored from a backup, or a recount: these records are not the next ones for
                    # it, or were decided by other clocks.
                    raise OperatorError(_other_position(self.read_up_to, goes_on_from))
                self.alive_at = time.monotonic()
                self.commit(query_id, batch_id, slices, begun, decoded)
                self._retain()
            except _PASSING as error:
                log.warning(
                    "PostgreSQL went away: %s", " ".join(str(error).split()), extra={"fields": {"batch_id": batch_id}}
                )
                self._reopen()
            else:
                return

    def commit(self, query_id: str, batch_id: int, slices: Sequence[Slice], begun: float, decoded: float) -> None:
        """Count and commit one batch, or raise: parameters as in :meth:`process`.

        :raises psycopg2.Error: PostgreSQL went away. The state in memory may be ahead of it then.
        :raises OperatorError: a recount was swapped in.
        """
        engine = self._state()
        done = engine.next_offsets()
        letters = [
            letter for piece in slices for letter in piece.dead_letters if letter.offset >= done.get(piece.partition, 0)
        ]
        excluded = joined([each for piece in slices for each in piece.excluded])
        if self._topic_id is not None and excluded:
            # Present clocks and executors judged these records. After a restart others might judge them otherwise, with
            # their letters already out.
            self._store.exclude(self._topic_id, excluded)
        self._store.hold()
        self._move_clock()
        with metrics.PHASE_SECONDS.labels("dead_letters").time():
            self._letters.write(letters, {piece.partition: piece.next_offset for piece in slices}, self._got_further)
        self._got_further()
        with metrics.PHASE_SECONDS.labels("count").time():
            pieces = ((piece.rows, piece.next_offset) for piece in slices)
            changes, accepted = engine.apply(pieces, self._store.borders(self._topic_id))
        reasons = _by_reason(letters)
        with metrics.PHASE_SECONDS.labels("commit").time():
            last = {piece.partition: piece.last for piece in slices}
            epoch = time.time() - time.monotonic()
            batch = Batch(
                query_id,
                batch_id,
                self._topic_id,
                reasons,
                epoch + begun,
                epoch + decoded,
                self._groups.of(letters, time.time()),
                last,
                excluded=excluded,
            )
            written = self._store.commit(batch, engine, changes, accepted)
        for partition, first, final, reason in excluded:
            why = "they are ahead of the present clocks" if reason == FUTURE else "they cannot be read"
            log.error("records %d to %d of partition %d are excluded: %s", first, final, partition, why)
            metrics.EXCLUDED.labels(reason).inc(final - first + 1)
        self.commits += 1
        self.followed_at = time.monotonic()
        self.read_up_to = engine.next_offsets()
        now = time.time()
        records = sum(piece.records for piece in slices)
        metrics.RECORDS.inc(records)
        metrics.ACCEPTED.inc(changes.accepted)
        metrics.DUPLICATES.inc(changes.duplicates)
        metrics.ROWS.inc(written)
        metrics.LAST_COMMIT.set(now)
        for reason, count in reasons.items():
            metrics.DEAD_LETTERS.labels(reason).inc(count)
        if newest := max((piece.newest_arrival_us for piece in slices), default=0):
            metrics.ARRIVAL_LAG.set(now - newest / 1_000_000)
        if changes.event_clock_us is not None:
            metrics.EVENT_CLOCK.set(changes.event_clock_us / 1_000_000)
        numbers = {
            "records": records,
            "accepted": changes.accepted,
            "duplicates": changes.duplicates,
            "rows_written": written,
        }
        self._report.committed(batch_id, time.monotonic() - begun, numbers, reasons)

    def _move_clock(self) -> bool:
        """Move the event clock to the newest of all shards, and tell whether it was behind."""
        engine, clock = self._state(), self._store.event_clock()
        if clock is None or (engine.event_clock_us is not None and engine.event_clock_us >= clock):
            return False
        engine.clocks.move_event(clock)
        return True

    def follow(self) -> None:
        """Extend the rows to the event clock of the other shards, if it has moved.

        :raises OperatorError: another driver has become the writer, or the database is not the one it was.
        """
        self.alive_at = self.followed_at = time.monotonic()
        reached = self.read_up_to
        try:
            self._store.hold()
            if self._move_clock():
                engine = self._state()
                changes, accepted = engine.apply([])
                self._store.commit(Batch(str(uuid.uuid4()), 0, self._topic_id, {}), engine, changes, accepted)
                metrics.LAST_COMMIT.set(time.time())
                metrics.EVENT_CLOCK.set((engine.event_clock_us or 0) / 1_000_000)
            else:
                self._store.end()
        except _PASSING as error:
            log.warning("PostgreSQL went away: %s", " ".join(str(error).split()))
            self._reopen()
            if self.read_up_to != reached:
                raise OperatorError(_other_position(self.read_up_to, reached)) from None

    def clocks(self) -> dict[int, int]:
        """Return each partition's clock in microseconds since the epoch; a partition without one is absent."""
        return self._state().partition_clocks()

    def commit_snapshot(self, clocks: Mapping[int, int]) -> None:
        """Move partitions' clocks on, in microseconds since the epoch, and commit with a snapshot of the state."""
        engine = self._state()
        changes, accepted = engine.apply([], {number: [Border(0, clock)] for number, clock in clocks.items()})
        batch = Batch(str(uuid.uuid4()), 0, self._topic_id, {})
        self._store.commit(batch, engine, changes, accepted, snapshot_now=True)

    def assume_present(self, partition: int, viewers: Presences, newest_us: int | None) -> None:
        """Have viewers be present from the partition's position on: see :func:`.counting.state.assume_present`."""
        assume_present(self._state(), partition, viewers, newest_us)

    def present(self) -> dict[int, Presences]:
        """Return by partition the viewers who are present."""
        return present(self._state())

    def _got_further(self) -> None:
        self.alive_at = time.monotonic()

    def _retain(self) -> None:
        """Now and then remove what is older than the history, and say how much state is held."""
        now = time.monotonic()
        if now < self._retention_due:
            return
        engine = self._state()
        more = engine.event_clock_us is not None and self._store.forget_old(engine.event_clock_us)
        # While there is more to remove, one of the next batches goes on with it.
        self._retention_due = now + (1.0 if more else _RETENTION_INTERVAL_SECONDS)
        for kind, count in engine.size().items():
            metrics.STATE.labels(kind).set(count)

    def _reopen(self) -> None:
        """Connect again and go back to what is committed: the state in memory may be ahead of it."""
        self._engine = None
        lock_deadline: float | None = None
        while self._engine is None:
            self.alive_at = time.monotonic()
            time.sleep(_RETRY_SECONDS)
            try:
                self.open()
            except _PASSING as error:
                log.warning("PostgreSQL does not answer yet: %s", " ".join(str(error).split()))
            except SupersededError:
                raise
            except OperatorError:
                # Most likely our own lost connection, which the server has not noticed yet.
                lock_deadline = lock_deadline or time.monotonic() + _LOCK_PATIENCE_SECONDS
                if time.monotonic() > lock_deadline:
                    raise

    def _state(self) -> Engine:
        if self._engine is None:
            raise RuntimeError("open() first")
        return self._engine


def _other_position(found: Mapping[int, int], expected: Mapping[int, int]) -> str:
    return f"PostgreSQL came back at {found} where {expected} was committed; reading goes on from there after a restart"


def _by_reason(letters: Sequence[DeadLetter]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for letter in letters:
        counts[letter.reason] = counts.get(letter.reason, 0) + 1
    return counts
