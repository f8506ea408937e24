"""The quick way of reading an event never disagrees with the contract's own."""

import json
import uuid
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streampulse.events import InvalidEvent, parse, parse_ts, partition_of
from streampulse.job.decode.slices import Decoder, Raw
from streampulse.job.rows import NO_LIMIT, TYPE_CODES, DeadLetter, Limit, Slice

PARTITIONS = 4
ARRIVAL_US = 1_790_000_000_000_000

texts = st.sampled_from(
    ["a", "é", "\U0001f3a5" * 128, "x" * 129, "", "a\x00b", "\ud800", '"', "\\", "[", "{", "\x1f", "\x7f", "__a"]
)
stamps = st.sampled_from(
    [
        "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5Z", "2026-01-01T00:00:00.123456Z", "2026-01-01T00:00:00.1234567Z",
        "2026-01-01T00:00:60Z", "2026-01-01T00:00:59.999999Z", "2026-01-01T00:00:00.Z", "2026-01-01T00:00:0:Z",
        "2026-01-01T00:00:00+00:00", "2026-02-29T00:00:00Z", "1999-12-31T23:59:59.9Z", "2026-01-01T00:00:\u0660\u0660Z",
        "2026-01-01t00:00:00Z", "2026-01-01T00:00:00Z 2026-01-01T00:00:00Z", "2026-01-01T00:10:59.123Z", "",
    ]
)  # fmt: skip
numbers = st.sampled_from(
    [
        "0", "1", "007", "1.5", "5.10", "0.001", "1e2", "-0", "-1", "999999999", "1000000000", "1000000000.01",
        "2147483647", "2147483648", '"5.10"', '"1e2"', '"-0"', '" 1"', '"\u0665"', "null", "true", "[1]", "NaN",
        "9" * 4001, '"' + "0" * 99 + '"',
    ]
)  # fmt: skip
others = st.sampled_from(
    [
        *(
            "{}", "[]", "[ ]", '{"a":1}', '[1,"x",null]', '{ "ts" : 1.5e-3 , "b":true}', '{"event_id":[]}', "[[1]]",
            '[{"a":1}]',
        ),
        *(
            '{"a":1,}', "[1,]", "[,1]", '{"a"}', "{1:2}", '"\x01"', '"\x7f\\u0041"', "+1", "01", "1.", ".5", "1e", "-",
            "tru",
        ),
        *("9" * 3900, '["' + "y" * 4100 + '"]', '"\u00e9"', "Infinity", "'x'", "/**/1"),
    ]
)  # fmt: skip
space = st.sampled_from(["", "", " ", "\t", "\r\n", "\x0c", "\u00a0"])
plain = {
    "event_id": st.sampled_from([str(uuid.UUID(int=7)), str(uuid.UUID(int=2**127)).upper(), "x", "{" + "0" * 34 + "}"]),
    "ts": stamps,
    "event_type": st.sampled_from([*TYPE_CODES, "unknown"]),
    "stream_id": texts,
    "user_id": texts,
}


@st.composite
def values(draw: st.DrawFn) -> tuple[str, bytes]:
    """Write a record's JSON by hand, so that names can repeat, be missing or unknown, and numbers keep their text."""
    stream = draw(texts)
    members = [
        (name, json.dumps(draw(strategy), ensure_ascii=draw(st.booleans())))
        for name, strategy in plain.items()
        if name != "stream_id" and draw(st.integers(0, 30))
    ]
    members.append(("stream_id", json.dumps(stream, ensure_ascii=draw(st.booleans()))))
    for name in draw(st.lists(st.sampled_from(["message_len", "amount_usd", "amount", "extra", "ts"]), max_size=4)):
        members.append((name, draw(numbers)))
    for name in draw(st.lists(st.sampled_from(["tags", "Ts", "amount", "", "stream_id "]), max_size=2)):
        members.append((name, draw(others)))
    at = draw(space)
    body = ",".join(f'{at}"{name}"{at}:{at}{value}{at}' for name, value in draw(st.permutations(members)))
    text = draw(st.sampled_from(["", " ", "\ufeff"])) + "{" + body + "}" + draw(st.sampled_from(["", "\n", "x"]))
    return stream, text.encode("utf-8", "surrogatepass")


def event(stream: str = "a", ts: str = "2026-09-21T14:13:20Z", user: str = "u") -> bytes:
    event_id = str(uuid.uuid5(uuid.NAMESPACE_OID, stream + ts + user))
    document = {"event_id": event_id, "ts": ts, "event_type": "viewer_join", "stream_id": stream, "user_id": user}
    return json.dumps(document, separators=(",", ":")).encode()


@st.composite
def cut(draw: st.DrawFn) -> list[bytes]:
    """Write events as one text, and cut it anywhere."""
    made = draw(st.lists(st.builds(event, ts=stamps, user=st.sampled_from(["u", "{", "}", "},{", "]"])), max_size=3))
    text = draw(st.sampled_from([b"", b"\n", b",", b" ", b"\r\n"])).join(made)
    cuts = [0, *sorted(draw(st.lists(st.integers(0, len(text)), max_size=4))), len(text)]
    return [text[first:end] for first, end in pairwise(cuts)]


@st.composite
def chunks(draw: st.DrawFn) -> list[tuple[bytes | None, bytes | None]]:
    """Write records, most of them valid events."""
    usual = st.builds(event, st.sampled_from(["a", "a", "__b"]), stamps)
    pieces = draw(st.lists(st.one_of(st.lists(usual, max_size=6), cut()), max_size=4))
    records: list[tuple[bytes | None, bytes | None]] = [
        (b"__b" if b"__b" in value else b"a", value) for piece in pieces for value in piece
    ]
    hostile = [
        (stream.encode("utf-8", "surrogatepass"), value) for stream, value in draw(st.lists(values(), max_size=2))
    ]
    absent: list[tuple[bytes | None, bytes | None]] = [(b"a", None), (None, event()), (b"b", event())]
    return draw(st.permutations([*records, *hostile, *draw(st.lists(st.sampled_from(absent), max_size=1))]))


def decoded(key: bytes | None, value: bytes | None, partition: int) -> Slice:
    # Twice: what the first record looked like decides which way is tried first with the next one.
    piece = Decoder(partition, PARTITIONS, None).decode([Raw([2, 3], [ARRIVAL_US] * 2, [key] * 2, [value] * 2)])
    rows, letters = piece.rows, piece.dead_letters
    assert len(rows) + len(letters) == 2
    assert rows.event_ids[:16] == rows.event_ids[16:]
    assert rows.ts_us[:1] == rows.ts_us[1:]
    return Slice.decode(piece.encode())


def agree(key: bytes | None, value: bytes | None, partition: int) -> None:
    piece = decoded(key, value, partition)
    detail, event = None, None
    try:
        event = parse(key, value, partition, PARTITIONS)
    except InvalidEvent as invalid:
        detail = invalid.detail
    if event is None:
        assert len(piece.rows) == 0
        _, letter = piece.dead_letters
        assert letter == DeadLetter(partition, 3, "invalid", detail or "", key, value)
        return
    assert piece.dead_letters == []
    rows = piece.rows
    (stream, user) = rows.viewers[rows.viewer[0]]
    assert (rows.streams[stream], user) == (event.stream_id, event.user_id)
    assert rows.event_id(0).hex() == event.event_id.replace("-", "")
    assert (rows.ts_us[0], rows.code[0], rows.cents[0]) == (
        event.ts_us,
        TYPE_CODES[event.event_type],
        event.amount_cents or 0,
    )


@settings(max_examples=1500, deadline=None)
@given(values(), st.booleans(), st.booleans())
def test_decoder_agrees_with_the_contract(record: tuple[str, bytes], right_key: bool, right_partition: bool) -> None:
    stream, value = record
    key = stream.encode("utf-8", "surrogatepass") if right_key else b"other"
    home = partition_of(key, PARTITIONS)
    agree(key, value, home if right_partition else (home + 1) % PARTITIONS)


# Two values that only together are an event, each with a brace of both kinds.
_TORN = [b'{"user_id":"}",', event(user="{")[1:]]


@settings(max_examples=1000, deadline=None)
@given(chunks(), st.booleans(), st.booleans())
@example([(b"a", value) for value in _TORN], False, False)
@example([(b"a", value) for value in [*_TORN, event() + event()]], False, False)
@example([(b"a", value) for value in [event(), b"", event()]], False, False)
def test_a_chunk_is_decoded_as_its_records_one_by_one(
    records: list[tuple[bytes | None, bytes | None]], early: bool, suspect: bool
) -> None:
    arrival_us = ARRIVAL_US - 365 * 86_400_000_000 if early else ARRIVAL_US
    limit = Limit(parse_ts("2026-01-01T00:00:00Z"), True) if suspect else NO_LIMIT
    count = len(records)
    whole = Raw(list(range(count)), [arrival_us] * count, [key for key, _ in records], [value for _, value in records])
    pieces = [whole] if records else []
    for number in range(PARTITIONS):
        together, alone = (Decoder(number, PARTITIONS, None, limit=limit) for _ in range(2))
        assert together.decode(pieces) == alone.decode(whole.part(slice(row, row + 1)) for row in range(count))


@pytest.mark.parametrize("value", ['"x"', "1.5e-3", "null", "{}", "[]", '{"a":1, "b" : "c"}', "[true,-0]", '"\u00e9"'])
def test_fields_that_the_contract_does_not_know_take_the_quick_way(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    record = event()[:-1] + f', "app": {value}, "stream": 1}}'.encode()
    home = partition_of(b"a", PARTITIONS)
    agree(b"a", record, home)
    monkeypatch.setattr("streampulse.events.parse", None)
    piece = decoded(b"a", record, home)
    assert (len(piece.rows), len(piece.dead_letters)) == (2, 0)


@settings(deadline=None)
@given(st.binary(max_size=60))
@example(b"")
@example(b"\xff")
@example(b"[" * 100_000)
@example(b'{"a":' * 200)
def test_garbage_is_a_dead_letter(value: bytes) -> None:
    agree(b"a", value, partition_of(b"a", PARTITIONS))


@pytest.mark.parametrize(("key", "value"), [(None, None), (None, b"{}"), (b"a", None)])
def test_absent_key_or_value_is_a_dead_letter(key: bytes | None, value: bytes | None) -> None:
    agree(key, value, 0)


def test_a_large_record_is_cut_before_the_driver_gets_it() -> None:
    piece = decoded(b"k" * 70_000, b"v" * 60_000 + b"x" * 200_000, 1)
    detail = "value: larger than 262144 bytes"
    expected = DeadLetter(1, 3, "invalid", detail, b"k" * 65_536, b"v" * 60_000 + b"x" * 5_536)
    assert piece.dead_letters[1] == expected


def test_our_own_streams_move_no_clock() -> None:
    home = partition_of(b"__a", PARTITIONS)
    raw = Raw([0], [ARRIVAL_US], [b"__a"], [event("__a")])
    piece = Decoder(home, PARTITIONS, 5).decode([raw])
    assert (len(piece.rows), piece.clock_us) == (1, 5)
