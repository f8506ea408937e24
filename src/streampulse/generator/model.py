"""Sessions of synthetic viewers: streams go on and off air; viewers join, chat, donate and leave.

Events depend only on the seed and the times that the caller passes: the same calls give the same events. The popularity
of streams follows Zipf's law, so the first few have most of the audience.
"""

import random
from bisect import bisect
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from typing import Final, NamedTuple

MINUTE_US: Final = 60 * 1_000_000

_SHOWS: Final = (
    "speedrun-lounge", "late-night-jazz", "pixel-kitchen", "retro-arcade", "chess-corner", "garden-cam",
    "synth-garage", "open-source-hour", "card-table", "trail-running", "night-sky", "pottery-wheel",
    "indie-games", "language-cafe", "model-trains", "street-food", "drum-practice", "map-makers",
    "puzzle-club", "bird-feeder",
)  # fmt: skip

# Shares of the whole audience and of the actions. With a full audience joins and leaves are in balance.
_SHARE_WATCHING = 0.6
_JOIN_EMPTY, _JOIN_FULL, _LEAVE_FULL, _DONATE = 0.45, 0.15, 0.15, 0.02
_SMALLEST_AUDIENCE = 3
# Message lengths and amounts in cents follow log-normal laws, cut off at both ends. Each is drawn from a precomputed
# table: that costs a fifth of a new draw.
_TABLE_SIZE = 4_096


class GeneratedEvent(NamedTuple):
    """One event of the contract. Times in microseconds since the epoch (UTC), amounts in cents."""

    event_id: str
    ts_us: int
    event_type: str
    stream_id: str
    user_id: str
    message_len: int | None = None
    amount_cents: int | None = None


class _Stream:
    __slots__ = ("audience", "live", "number", "places", "stream_id", "until_us", "viewers")

    def __init__(self, number: int, audience: int) -> None:
        self.number = number
        self.stream_id = stream_name(number)
        self.audience = audience
        # None: not started yet. A session that an earlier run left open is closed first.
        self.live: bool | None = None
        self.until_us = 0
        self.viewers: list[int] = []
        self.places: dict[int, int] = {}

    def add(self, user: int) -> None:
        self.places[user] = len(self.viewers)
        self.viewers.append(user)

    def remove_at(self, place: int) -> int:
        """Remove and return the viewer at an index; the last viewer takes its place."""
        user = self.viewers[place]
        last = self.viewers.pop()
        if last != user:
            self.viewers[place] = last
            self.places[last] = place
        del self.places[user]
        return user


class Model:
    """The synthetic world.

    :param streams: number of streams.
    :param users: number of users; each may watch several streams.
    :param seed: the same seed and the same calls give the same events.
    :param skew: exponent of Zipf's law; 0 makes all streams alike.
    :param only: numbers of the streams that this model plays; None for all. Each keeps the audience that it has among
        all streams.
    """

    def __init__(
        self, *, streams: int, users: int, seed: int | str, skew: float = 1.0, only: Sequence[int] | None = None
    ) -> None:
        self._random = random.Random(seed)  # noqa: S311 - made-up viewers, not secrets
        self._users = users
        weights = popularity(streams, skew)
        total = sum(weights)
        watching = users * _SHARE_WATCHING
        self._streams = [
            _Stream(number, min(users, max(_SMALLEST_AUDIENCE, round(watching * weights[number] / total))))
            for number in (range(streams) if only is None else only)
        ]
        self._cumulative = list(accumulate(weights[stream.number] for stream in self._streams))
        draw = self._random.lognormvariate
        self._lengths = [min(500, max(1, round(draw(3.3, 0.8)))) for _ in range(_TABLE_SIZE)]
        self._amounts = [min(1_000_000, max(100, round(draw(6.2, 1.0)))) for _ in range(_TABLE_SIZE)]

    def events(self, start_us: int, end_us: int, count: int) -> Iterator[GeneratedEvent]:
        """Yield ``count`` events with times spread evenly over the interval (start, end].

        :param start_us: microseconds since the epoch, as ``end_us``.
        """
        span = max(0, end_us - start_us)
        for index in range(1, count + 1):
            yield self._event(start_us + span * index // count)

    def _event(self, now_us: int) -> GeneratedEvent:
        stream = self._pick(now_us)
        if not stream.live:
            return self._open_or_close(stream, now_us)
        if now_us >= stream.until_us:
            return self._close(stream, now_us)
        return self._audience_event(stream, now_us)

    def _pick(self, now_us: int) -> _Stream:
        """Choose a stream by popularity among those on air or due; wake one when hardly any is on air."""
        for _ in range(4):
            at = bisect(self._cumulative, self._random.random() * self._cumulative[-1])
            stream = self._streams[min(at, len(self._streams) - 1)]
            if stream.live or now_us >= stream.until_us:
                break
        return stream

    def _open_or_close(self, stream: _Stream, now_us: int) -> GeneratedEvent:
        if stream.live is None:
            stream.live = False
            stream.until_us = now_us
            return self._of_the_host("stream_stop", stream, now_us)
        stream.live = True
        stream.until_us = now_us + self._minutes(median=90, least=10, most=480)
        return self._of_the_host("stream_start", stream, now_us)

    def _close(self, stream: _Stream, now_us: int) -> GeneratedEvent:
        stream.live = False
        stream.until_us = now_us + self._minutes(median=20, least=5, most=120)
        stream.viewers.clear()
        stream.places.clear()
        return self._of_the_host("stream_stop", stream, now_us)

    def _audience_event(self, stream: _Stream, now_us: int) -> GeneratedEvent:
        rng = self._random
        fill = len(stream.viewers) / stream.audience
        join = max(0.0, _JOIN_EMPTY - (_JOIN_EMPTY - _JOIN_FULL) * fill) if stream.viewers else 1.0
        leave = _LEAVE_FULL * fill
        draw = rng.random()
        if draw < join:
            user = self._newcomer(stream)
            if user is not None:
                stream.add(user)
                return self._make("viewer_join", stream, user_name(user), now_us)
        elif draw < join + leave:
            user = stream.remove_at(int(rng.random() * len(stream.viewers)))
            return self._make("viewer_leave", stream, user_name(user), now_us)
        # Some viewers chat far more than others.
        user = stream.viewers[int(rng.random() ** 2 * len(stream.viewers))]
        if draw >= 1.0 - _DONATE:
            cents = self._amounts[int(rng.random() * _TABLE_SIZE)]
            return self._make("donation", stream, user_name(user), now_us, None, cents)
        length = self._lengths[int(rng.random() * _TABLE_SIZE)]
        return self._make("chat_message", stream, user_name(user), now_us, length)

    def _newcomer(self, stream: _Stream) -> int | None:
        for _ in range(8):
            user = int(self._random.random() * self._users)
            if user not in stream.places:
                return user
        return None

    def _minutes(self, *, median: float, least: float, most: float) -> int:
        drawn = median * self._random.lognormvariate(0.0, 0.6)
        return round(min(most, max(least, drawn)) * MINUTE_US)

    def _of_the_host(self, event_type: str, stream: _Stream, now_us: int) -> GeneratedEvent:
        return self._make(event_type, stream, f"host-{stream.number + 1}", now_us)

    def _make(
        self,
        event_type: str,
        stream: _Stream,
        user_id: str,
        now_us: int,
        message_len: int | None = None,
        amount_cents: int | None = None,
    ) -> GeneratedEvent:
        event_id = random_uuid(self._random)
        return GeneratedEvent(event_id, now_us, event_type, stream.stream_id, user_id, message_len, amount_cents)


def popularity(streams: int, skew: float) -> list[float]:
    """Return the weight of each stream by its number; the first has weight 1 (Zipf's law).

    :param skew: the exponent.
    """
    return [rank**-skew for rank in range(1, streams + 1)]


def stream_name(number: int) -> str:
    """Return the id of the stream with this number, 0 being the most popular."""
    return f"{_SHOWS[number % len(_SHOWS)]}-{number // len(_SHOWS) + 1}"


def user_name(number: int) -> str:
    """Return the id of the user with this number."""
    return f"user-{number + 1}"


def random_uuid(rng: random.Random) -> str:
    """Return a version 4 UUID as text, drawn from the given random source for reproducibility."""
    digits = f"{rng.getrandbits(128):032x}"
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


class Encoder:
    """Serialises events as the JSON of the contract."""

    def __init__(self) -> None:
        self._second = -1
        self._second_text = ""

    def encode(self, event: GeneratedEvent) -> bytes:
        """Return the record's value. Ids from the model need no escaping, so none is done."""
        second, microsecond = divmod(event.ts_us, 1_000_000)
        if second != self._second:
            self._second = second
            self._second_text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        extra = ""
        if event.message_len is not None:
            extra = f',"message_len":{event.message_len}'
        elif event.amount_cents is not None:
            extra = f',"amount_usd":{event.amount_cents // 100}.{event.amount_cents % 100:02d}'
        return (
            f'{{"event_id":"{event.event_id}","ts":"{self._second_text}.{microsecond:06d}Z",'
            f'"event_type":"{event.event_type}","stream_id":"{event.stream_id}","user_id":"{event.user_id}"{extra}}}'
        ).encode("ascii")
