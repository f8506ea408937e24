"""The synthetic world: reproducible, plausible, and every event valid by the contract."""

from collections import Counter, defaultdict
from collections.abc import Iterable

import pytest

from streampulse import events as contract
from streampulse.generator.faults import Faults, Record, Shares
from streampulse.generator.model import Encoder, GeneratedEvent, Model

START_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
SECOND_US = 1_000_000
PARTITIONS = 4


def made(count: int, *, seed: int = 1, streams: int = 20, users: int = 500, seconds: int = 600) -> list[GeneratedEvent]:
    model = Model(streams=streams, users=users, seed=seed)
    result: list[GeneratedEvent] = []
    for second in range(seconds):
        start = START_US + second * SECOND_US
        result += model.events(start, start + SECOND_US, count // seconds)
    return result


def parsed(record: Record) -> contract.Event:
    return contract.parse(record.key, record.value, contract.partition_of(record.key, PARTITIONS), PARTITIONS)


def spoiled(shares: Shares, events: Iterable[GeneratedEvent], seed: int = 1) -> list[Record]:
    faults = Faults(shares, seed=seed)
    return [*faults.records(events), *faults.rest()]


def test_the_same_seed_gives_the_same_events_and_another_seed_others() -> None:
    assert made(6_000, seed=7) == made(6_000, seed=7)
    assert made(6_000, seed=7) != made(6_000, seed=8)


def test_every_event_is_valid_by_the_contract_and_keeps_the_models_values() -> None:
    events = made(30_000)
    encoder = Encoder()
    for event in events:
        read = parsed(Record(event.stream_id.encode(), encoder.encode(event)))
        assert (read.event_id, read.ts_us, read.event_type) == (event.event_id, event.ts_us, event.event_type)
        assert (read.stream_id, read.user_id, read.amount_cents) == (event.stream_id, event.user_id, event.amount_cents)
    assert {event.event_type for event in events} == set(contract.EVENT_TYPES)
    assert len({event.event_id for event in events}) == len(events)
    assert not any(contract.is_internal(event.stream_id) for event in events)


def test_times_lie_in_the_interval_in_order() -> None:
    events = list(Model(streams=3, users=10, seed=1).events(START_US, START_US + SECOND_US, 300))
    times = [event.ts_us for event in events]
    assert len(times) == 300
    assert times == sorted(times)
    assert times[0] > START_US
    assert times[-1] == START_US + SECOND_US


def test_sessions_make_sense() -> None:
    """Only joined viewers leave, chat or donate; none joins twice; a stop empties the stream until its next start."""
    present: dict[str, set[str]] = defaultdict(set)
    live: dict[str, bool] = {}
    # Four hours, so that streams end and start again.
    for event in made(60_000, seconds=14_400, streams=5, users=200):
        stream, user = event.stream_id, event.user_id
        match event.event_type:
            case "stream_stop":
                assert live.get(stream, True)
                live[stream] = False
                present[stream].clear()
            case "stream_start":
                assert live[stream] is False
                live[stream] = True
            case "viewer_join":
                assert live[stream]
                assert user not in present[stream]
                present[stream].add(user)
            case "viewer_leave":
                present[stream].remove(user)
            case _:
                assert user in present[stream]


def test_popularity_is_heavy_tailed() -> None:
    counts = [count for _, count in Counter(event.stream_id for event in made(60_000, streams=50)).most_common()]
    assert len(counts) == 50
    # Zipf's law with 50 streams: the first has 22 % of everything, the last 25 together 15 %.
    assert counts[0] > 0.15 * sum(counts)
    assert sum(counts[25:]) < 0.25 * sum(counts)


@pytest.mark.parametrize(("streams", "users"), [(1, 1), (1, 1000), (1000, 1), (3, 2)])
def test_small_worlds_keep_the_rate(streams: int, users: int) -> None:
    assert len(made(6_000, streams=streams, users=users)) == 6_000


def test_without_faults_every_event_passes_once_in_order() -> None:
    events = made(6_000)
    assert [parsed(record).event_id for record in spoiled(Shares(), events)] == [event.event_id for event in events]


def test_disorder_moves_records_by_less_than_the_contract_allows_and_loses_none() -> None:
    events = made(20_000)
    records = [parsed(record) for record in spoiled(Shares(disorder=0.2), events)]
    assert sorted(record.event_id for record in records) == sorted(event.event_id for event in events)
    clock, behind = 0, 0
    for record in records:
        clock = max(clock, record.ts_us)
        behind = max(behind, clock - record.ts_us)
    assert 60 * SECOND_US < behind < contract.ALLOWED_LATENESS_US / 2


def test_garbage_is_refused_for_many_reasons_and_the_rest_is_untouched() -> None:
    events = made(20_000)
    good, details, future = [], Counter[str](), 0
    for record in spoiled(Shares(garbage=0.1), events):
        try:
            read = parsed(record)
        except contract.InvalidEvent as error:
            details[error.detail.split(":")[0]] += 1
            continue
        if read.ts_us > START_US + 1_000 * SECOND_US:
            future += 1
        else:
            good.append(read.event_id)
    assert good == [event.event_id for event in events]
    assert {"key", "value", "event_id", "event_type", "ts", "user_id"} <= set(details)
    assert future > 0
    assert details.total() + future == pytest.approx(2_000, rel=0.15)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares_out_of_range_are_refused(share: float) -> None:
    with pytest.raises(ValueError, match="late must be from 0 to 1"):
        Shares(late=share)
