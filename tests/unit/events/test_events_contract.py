"""The event contract held against the design's text: every rule by example, with the field that is to blame."""

import datetime
import json
import time

import pytest

from streampulse.events import Event, InvalidEvent, is_internal, murmur2, parse, partition_of

PARTITIONS = 4
ID = "0b5f3c1e-7a52-4c7e-9f64-5f2f6f0a9b01"
CHAT: dict[str, object] = {
    "event_id": ID,
    "ts": "2026-03-01T12:00:00Z",
    "event_type": "chat_message",
    "stream_id": "stream-1",
    "user_id": "user-1",
    "message_len": 5,
}
DONATION: dict[str, object] = {
    **{name: value for name, value in CHAT.items() if name != "message_len"},
    "event_type": "donation",
    "amount_usd": 5,
}


def changed(base: dict[str, object] = CHAT, **fields: object) -> bytes:
    return json.dumps({**base, **fields}, ensure_ascii=False).encode()


def without(name: str, base: dict[str, object] = CHAT) -> bytes:
    return json.dumps({each: value for each, value in base.items() if each != name}).encode()


def raw(name: str, text: str, base: dict[str, object] = CHAT) -> bytes:
    """Write an event with one field's value written exactly as given."""
    fields = ",".join(f"{json.dumps(each)}:{json.dumps(value)}" for each, value in base.items() if each != name)
    return f"{{{fields},{json.dumps(name)}:{text}}}".encode()


def read(value: bytes | None, stream_id: str = "stream-1") -> Event:
    key = stream_id.encode()
    return parse(key, value, partition_of(key, PARTITIONS), PARTITIONS)


def blamed(value: bytes | None) -> str:
    with pytest.raises(InvalidEvent) as caught:
        read(value)
    field, _, why = caught.value.detail.partition(":")
    assert why.strip(), "the detail says what is wrong"
    return field


def test_an_event_of_each_type_is_read() -> None:
    assert read(changed()) == Event("stream-1", "user-1", ID, 1_772_366_400_000_000, "chat_message", None)
    assert read(changed(DONATION)).amount_cents == 500
    for kind in ("stream_start", "stream_stop", "viewer_join", "viewer_leave"):
        event = read(json.dumps({**CHAT, "event_type": kind}).encode())
        assert (event.event_type, event.amount_cents) == (kind, None)


@pytest.mark.parametrize("kind", ["stream_start", "stream_stop", "viewer_join", "viewer_leave"])
def test_fields_that_the_type_does_not_use_are_not_checked(kind: str) -> None:
    assert read(changed(event_type=kind, message_len="x", amount_usd="NaN", amount=[], other={"a": 1}))
    assert read(changed(amount_usd=-1)), "a chat's amount is not checked"
    assert read(changed(DONATION, message_len=-1)), "nor a donation's message_len"


@pytest.mark.parametrize(
    "value",
    [
        None, b"", b" ", b"\n", b"null", b"true", b"1", b'"text"', b"[]", b"[" + changed() + b"]", b"{", b"}",
        b"{}{}", changed() + b"x", changed() + b"\0", changed() + changed(), changed()[:-1], changed()[:-1] + b",}",
        b"{,}", b"{'event_id': 1}", b"{event_id: 1}", b"\xef\xbb\xbf" + changed(),
        changed().decode().encode("utf-16"), changed().decode().encode("utf-32-le"), b"\xc2\xa0" + changed(),
        b"\x0b" + changed(), b"\x0c" + changed(), changed() + b"\xe2\x80\xa8", b"/* */" + changed(),
        changed() + b"// x",
    ],
)  # fmt: skip
def test_other_values_than_one_json_object_are_blamed_on_the_value(value: bytes | None) -> None:
    assert blamed(value) == "value"


@pytest.mark.parametrize(
    "text",
    [
        "NaN", "Infinity", "-Infinity", "nan", "+1", "-", "01", "-01", "1.", ".5", "-.5", "1e", "1e+", "0x10",
        "1_000", "1,000", "\u0661", "1.\u0662", "True", "None", "undefined", "'x'", '"\t"', '"\n"', '"\0"', '"\x1f"',
        r'"\x41"', r'"\u12"', r'"\u12G4"', r'"\u 123"', r'"\u+123"', r'"\u0x12"', '"\\u\uff11\uff12\uff13\uff14"',
        r'"\U0001F600"', r'"\'"', '"open', '"\\"', "[1,]", "[,1]", "[1 2]", "[1", "1]", '{"a"}', '{"a":}', '{"a":1,}',
        "{1:2}", "{null:1}", "",
    ],
)  # fmt: skip
def test_json_is_read_strictly_also_in_unused_fields(text: str) -> None:
    assert blamed(raw("other", text)) == "value"


@pytest.mark.parametrize(
    "text",
    [
        "-0", "0", "1e400", "-1E-400", "0.0000", "1" * 309, '"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"\x7f"',
        '"\u2028"', '"\\/"', "[[],{},[{}]]", '{"":""}', '" \\\\"', '"\\"}]"', "\t\r\n 1 \t\r\n",
    ],
)  # fmt: skip
def test_json_that_is_odd_but_right_is_read(text: str) -> None:
    assert read(raw("other", text)).event_id == ID


@pytest.mark.parametrize(
    "bad",
    [
        b"\x80",
        b"\xff",
        b"\xc0\xaf",  # overlong "/"
        b"\xc1\xbf",
        b"\xe0\x80\xaf",  # overlong, three bytes
        b"\xf0\x80\x80\xaf",  # overlong, four bytes
        b"\xed\xa0\x80",  # a surrogate, encoded
        b"\xed\xa0\xbd\xed\xb8\x80",  # CESU-8
        b"\xf4\x90\x80\x80",  # past U+10FFFF
        b"\xf5\x80\x80\x80",
        b"\xe2\x82",  # cut short
        b"\xc0\x80",  # Java's NUL
    ],
)
def test_invalid_utf_8_is_blamed_on_the_value(bad: bytes) -> None:
    assert blamed(changed().replace(b"user-1", b"user" + bad)) == "value"


@pytest.mark.parametrize(("levels", "valid"), [(99, True), (100, False), (1000, False), (100_000, False)])
@pytest.mark.parametrize("brackets", [("[", "]"), ('{"a":', "}"), ('[{"b":', "}]")])
def test_depth(levels: int, valid: bool, brackets: tuple[str, str]) -> None:
    # The outermost object is level 1, so that 99 more are allowed.
    each = 2 if brackets[0].startswith("[{") else 1
    nested, rest = divmod(levels, each)
    text = brackets[0] * nested + "[" * rest + "1" + "]" * rest + brackets[1] * nested
    if valid:
        assert read(raw("other", text)).event_id == ID
    else:
        assert blamed(raw("other", text)) == "value"


def test_many_brackets_side_by_side_or_in_strings_are_not_deep() -> None:
    assert read(raw("other", "[" + "[]," * 5000 + "{}]"))
    assert read(raw("other", json.dumps("[{" * 5000)))
    assert read(raw("other", json.dumps('\\"[' * 5000)))
    assert read(raw("user_id", json.dumps("[" * 128)))


def test_unclosed_depth_is_invalid_and_quick() -> None:
    started = time.monotonic()
    for text in ("[" * 250_000, '{"a":' * 50_000, '"' + "\\" * 250_000, '["' * 100_000, '\\"[' * 80_000):
        assert blamed(raw("other", text)) == "value"
        assert blamed(text.encode()) == "value"
    assert time.monotonic() - started < 5


def test_a_record_of_more_than_262144_bytes_is_invalid_whatever_is_in_it() -> None:
    event = changed()
    padded = event + b" " * (262_144 - len(event) - len(b"stream-1"))
    assert parse(b"stream-1", padded, partition_of(b"stream-1", 4), 4).stream_id == "stream-1"
    for key, value in ((b"stream-1", padded + b" "), (b"k" * 262_145, None), (b"k" * 262_144, b"\xff")):
        with pytest.raises(InvalidEvent, match=r"^value: larger than 262144 bytes$"):
            parse(key, value, 0, 4)


@pytest.mark.parametrize("sign", ["", "-"])
def test_integers_of_more_than_4000_digits_are_invalid_anywhere(sign: str) -> None:
    assert read(raw("other", sign + "9" * 4000))
    assert blamed(raw("other", sign + "9" * 4001)) == "value"
    assert blamed(raw("other", '[[{"a": ' + sign + "1" * 5000 + "}]]")) == "value"
    # A fraction or exponent makes it a number that is no integer.
    assert read(raw("other", sign + "9" * 4001 + ".5"))
    assert read(raw("other", sign + "9" * 4001 + "e1"))


def test_of_a_repeated_name_the_last_counts() -> None:
    twice = changed().decode()[:-1]
    assert read((twice + ', "user_id": "user-2"}').encode()).user_id == "user-2"
    assert blamed((twice + ', "user_id": 2}').encode()) == "user_id"
    assert blamed((twice + ', "event_type": "x"}').encode()) == "event_type"
    assert read(('{"user_id": 7, "message_len": "x", ' + changed().decode()[1:]).encode()).user_id == "user-1"
    escaped = (twice + ', "user\\u005fid": "user-3"}').encode()
    assert read(escaped).user_id == "user-3", "a name is what it means, not how it is written"
    amounts = changed(DONATION).decode()[:-1] + ', "amount_usd": 7, "amount_usd": 9.5}'
    assert read(amounts.encode()).amount_cents == 950


@pytest.mark.parametrize("field", ["event_id", "ts", "event_type", "stream_id", "user_id", "message_len"])
@pytest.mark.parametrize("text", ["null", "true", "false", "1.5", "[]", "{}", '[""]', '""'])
def test_wrong_types_are_blamed_on_the_field(field: str, text: str) -> None:
    assert blamed(raw(field, text)) == field


@pytest.mark.parametrize("field", ["event_id", "ts", "event_type", "stream_id", "user_id", "message_len"])
def test_missing_fields_are_blamed_on_the_field(field: str) -> None:
    assert blamed(without(field)) == field


@pytest.mark.parametrize("field", ["event_id", "ts", "event_type", "stream_id", "user_id"])
def test_a_number_is_no_string(field: str) -> None:
    assert blamed(raw(field, "1")) == field


@pytest.mark.parametrize(
    ("written", "valid"),
    [
        (ID, True), (ID.upper(), True), ("00000000-0000-0000-0000-000000000000", True),
        ("ffffffff-FFFF-ffff-FFFF-ffffffffffff", True), (ID.replace("-", ""), False), ("{" + ID + "}", False),
        ("urn:uuid:" + ID, False), (ID + "\n", False), (" " + ID, False), (ID[:-1], False), (ID + "0", False),
        (ID[:-1] + "g", False), (ID[:-1] + "\uff11", False), (ID[:-1] + "\uff41", False),
        (ID.replace("-", "_"), False), (ID.replace("-", "\u2010"), False),
        ("0b5f3c1e7-a52-4c7e-9f64-5f2f6f0a9b01", False), ("------------------------------------", False),
    ],
)  # fmt: skip
def test_event_ids(written: str, valid: bool) -> None:
    if valid:
        assert read(changed(event_id=written)).event_id == written.lower()
    else:
        assert blamed(changed(event_id=written)) == "event_id"


def micros(*parts: int) -> int:
    whole = datetime.datetime(*parts, tzinfo=datetime.UTC)  # type: ignore[misc, arg-type]
    return (whole - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("written", "instant"),
    [
        ("2026-03-01T12:00:00Z", micros(2026, 3, 1, 12)),
        ("2026-03-01T12:00:00.5Z", micros(2026, 3, 1, 12, 0, 0, 500_000)),
        ("2026-03-01T12:00:00.05Z", micros(2026, 3, 1, 12, 0, 0, 50_000)),
        ("2026-03-01T12:00:00.000001Z", micros(2026, 3, 1, 12, 0, 0, 1)),
        ("2026-03-01T12:00:00.999999Z", micros(2026, 3, 1, 12, 0, 0, 999_999)),
        ("2026-03-01T12:00:00+00:00", micros(2026, 3, 1, 12)), ("2026-03-01T12:00:00-00:00", micros(2026, 3, 1, 12)),
        ("2026-03-01T12:00:00+05:45", micros(2026, 3, 1, 6, 15)),
        ("2026-03-01T12:00:00-05:45", micros(2026, 3, 1, 17, 45)),
        ("2026-03-01T12:00:00+23:59", micros(2026, 2, 28, 12, 1)),
        ("2026-03-01T12:00:00-23:59", micros(2026, 3, 2, 11, 59)),
        ("2024-02-29T23:59:59.999999Z", micros(2024, 2, 29, 23, 59, 59, 999_999)),
        ("2000-02-29T00:00:00Z", micros(2000, 2, 29)), ("2000-01-01T00:00:00Z", micros(2000, 1, 1)),
        ("2000-01-01T00:00:00-00:01", micros(2000, 1, 1, 0, 1)), ("1999-12-31T23:59:00-00:01", micros(2000, 1, 1)),
        ("1999-12-31T00:01:00-23:59", micros(2000, 1, 1)), ("2000-01-01T23:59:00+23:59", micros(2000, 1, 1)),
        ("9999-12-31T23:59:59.999999Z", micros(9999, 12, 31, 23, 59, 59, 999_999)),
        ("9999-12-31T23:59:59-23:59", micros(9999, 12, 31, 23, 59, 59) + (23 * 60 + 59) * 60_000_000),
    ],
)  # fmt: skip
def test_times_are_read_to_the_microsecond(written: str, instant: int) -> None:
    assert read(changed(ts=written)).ts_us == instant


@pytest.mark.parametrize(
    "written",
    [
        # The leap second of 2016 is one of these: seconds go to 59.
        "", "2026-03-01", "2026-03-01T12:00:00", "2026-03-01 12:00:00Z", "2026-03-01t12:00:00Z", "2026-03-01T12:00:00z",
        "2026-03-01T12:00:00 Z", "2026-03-01T12:00:00Z\n", " 2026-03-01T12:00:00Z", "2026-03-01T12:00Z",
        "2026-03-01T12:00:00.Z", "2026-03-01T12:00:00.1234567Z", "2026-03-01T12:00:00,5Z", "2026-03-01T12:00:00+0000",
        "2026-03-01T12:00:00+00", "2026-03-01T12:00:00+00:00:00", "2026-03-01T12:00:00+24:00",
        "2026-03-01T12:00:00-24:00", "2026-03-01T12:00:00+23:60", "2026-03-01T12:00:00+99:99",
        "2026-03-01T12:00:00\u221205:00", "2026-03-01T12:00:00Z+00:00", "2026-03-01T24:00:00Z", "2026-03-01T23:60:00Z",
        "2026-03-01T23:59:60Z", "2016-12-31T23:59:60Z", "2026-02-29T12:00:00Z", "2100-02-29T12:00:00Z",
        "2026-02-30T12:00:00Z", "2026-04-31T12:00:00Z", "2026-00-01T12:00:00Z", "2026-13-01T12:00:00Z",
        "2026-01-00T12:00:00Z", "2026-01-32T12:00:00Z", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59",
        "1970-01-01T00:00:00Z", "1999-12-31T23:59:59.999999Z", "2000-01-01T00:00:00+00:01",
        "2000-01-01T23:58:59.999999+23:59", "12026-03-01T12:00:00Z", "+2026-03-01T12:00:00Z", "-2026-03-01T12:00:00Z",
        "26-03-01T12:00:00Z", "2026-3-1T12:00:00Z", "\uff12026-03-01T12:00:00Z", "2026-03-01T12:00:0\u0660Z",
        "2026-W09-7T12:00:00Z", "2026-060T12:00:00Z", "20260301T120000Z", "1772366400",
    ],
)  # fmt: skip
def test_times_of_another_form_or_not_real_are_blamed_on_ts(written: str) -> None:
    assert blamed(changed(ts=written)) == "ts"


@pytest.mark.parametrize(
    "written", ["", "Chat_message", "chat_message ", "viewer_joined", "stream_start\n", "chat\\u0000", "*"]
)
def test_other_event_types_are_invalid(written: str) -> None:
    assert blamed(changed(event_type=written)) == "event_type"


@pytest.mark.parametrize(
    "name",
    [
        "x", " ", "\n", "a" * 128, "\U0001f600" * 128, "é" * 128, "e\u0301" * 64, "\ufeff", "\u202e", "\x01", "\x7f",
        '"\\',
    ],
)  # fmt: skip
def test_ids_of_1_to_128_characters_of_any_kind(name: str) -> None:
    event = read(changed(stream_id=name, user_id=name), stream_id=name)
    assert (event.stream_id, event.user_id) == (name, name)
    escaped = json.dumps({**CHAT, "stream_id": name, "user_id": name}, ensure_ascii=True).encode()
    assert read(escaped, stream_id=name) == event


@pytest.mark.parametrize("field", ["stream_id", "user_id"])
@pytest.mark.parametrize(
    "text",
    [
        '""', json.dumps("a" * 129), json.dumps("\U0001f600" * 129), json.dumps("e\u0301" * 64 + "x"), '"\\u0000"',
        '"a\\u0000b"', '"\\ud800"', '"\\udfff"', '"\\udc00\\ud800"', '"a\\ud83d"', '"\\ud83dx\\ude00"',
    ],
)  # fmt: skip
def test_ids_of_a_wrong_length_or_with_characters_that_postgresql_cannot_hold(field: str, text: str) -> None:
    assert blamed(raw(field, text)) == field


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("0", True),
        ("-0", True),  # an integer without fraction or exponent, and its value is 0
        ("1", True),
        ("2147483647", True),
        ("2147483648", False),
        ("-1", False),
        ("1.0", False),
        ("1e0", False),
        ("1E2", False),
        ("0.0", False),
        ('"5"', False),
        ("9" * 4000, False),
        ("-" + "9" * 4000, False),
        ("true", False),
        ("null", False),
        ("[5]", False),
    ],
)
def test_message_len(text: str, valid: bool) -> None:
    if valid:
        assert read(raw("message_len", text)).event_type == "chat_message"
    else:
        assert blamed(raw("message_len", text)) == "message_len"


AMOUNTS = [
    ("0", 0), ("-0", 0), ("-0.0", 0), ("-0e5", 0), ("0e999999999999", 0), ("0.000000", 0), ("5", 500), ("5.1", 510),
    ("5.10", 510), ("5.100000000000", 510), ("0.01", 1), ("0.1", 10), ("1e2", 10_000), ("1E2", 10_000),
    ("1e+2", 10_000), ("1e-2", 1), ("100e-4", 1), ("1.5e1", 1500), ("123.456e1", 123_456), ("0.001e1", 1),
    ("1000000000", 10**11), ("1000000000.00", 10**11), ("1e9", 10**11), ("0.1e10", 10**11),
    ("1000000000000000000e-9", 10**11), ("999999999.99", 10**11 - 1), ("0." + "0" * 5000 + "1e5000", 10),
    ("1" + "0" * 3990 + "e-3990", 100),
]  # fmt: skip
NOT_AMOUNTS = [
    "0.001", "1e-3", "5.001", "5.1000000000000000000000000000001", "1000000000.01", "1000000000.001", "1e10", "1e400",
    "1e999999999", "1e999999999999999999999", "1e-999999999999999999999", "1e-400", "-1", "-0.01", "-1e-400", "0.1e-2",
    "12345678901234567890",
]  # fmt: skip


@pytest.mark.parametrize("field", ["amount_usd", "amount"])
@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize(("text", "cents"), AMOUNTS)
def test_amounts(field: str, quote: str, text: str, cents: int) -> None:
    bare = {name: value for name, value in DONATION.items() if name != "amount_usd"}
    assert read(raw(field, quote + text + quote, bare)).amount_cents == cents


@pytest.mark.parametrize("field", ["amount_usd", "amount"])
@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("text", NOT_AMOUNTS)
def test_invalid_amounts(field: str, quote: str, text: str) -> None:
    bare = {name: value for name, value in DONATION.items() if name != "amount_usd"}
    started = time.monotonic()
    assert blamed(raw(field, quote + text + quote, bare)) == field
    assert time.monotonic() - started < 1, "an exponent is not worked out"


@pytest.mark.parametrize(
    "written",
    [
        "", " 5", "5 ", "+5", "5.", ".5", "5.e1", "1e", "1e+", "NaN", "nan", "Infinity", "inf", "1_0", "1,5", "0x5",
        "\u0665", "5\n", "$5", "--5",
    ],
)  # fmt: skip
def test_amounts_as_text_of_another_form(written: str) -> None:
    assert blamed(changed(DONATION, amount_usd=written)) == "amount_usd"


@pytest.mark.parametrize(("written", "cents"), [("007", 700), ("00.50", 50), ("-00", 0), ("0" * 5000 + "1", 100)])
def test_amounts_as_text_may_begin_with_zeros(written: str, cents: int) -> None:
    assert read(changed(DONATION, amount_usd=written)).amount_cents == cents


@pytest.mark.parametrize("text", ["null", "true", "[]", "{}"])
def test_amounts_of_another_type(text: str) -> None:
    assert blamed(raw("amount_usd", text, DONATION)) == "amount_usd"


def test_the_older_name_is_read_only_where_the_newer_is_absent() -> None:
    assert read(changed(DONATION, amount=9)).amount_cents == 500
    assert read(changed(DONATION, amount="x")).amount_cents == 500
    assert blamed(changed(DONATION, amount_usd=None, amount=9)) == "amount_usd", "present and null is not absent"
    assert blamed(without("amount_usd", DONATION)) == "amount_usd"


@pytest.mark.parametrize("key", [None, b"", b"stream-2", b"Stream-1", b"stream-1 ", b"\xff", b'"stream-1"'])
def test_the_key_must_be_the_stream_id(key: bytes | None) -> None:
    with pytest.raises(InvalidEvent) as caught:
        parse(key, changed(), partition_of(key or b"", PARTITIONS), PARTITIONS)
    assert caught.value.detail.startswith("key:")


def test_the_key_of_a_name_beyond_ascii_is_its_utf_8() -> None:
    name = "ünïcode-\U0001f600"
    key = name.encode()
    assert parse(key, changed(stream_id=name), partition_of(key, 7), 7).stream_id == name
    with pytest.raises(InvalidEvent, match=r"^key:"):
        parse(name.encode("utf-16"), changed(stream_id=name), partition_of(key, 7), 7)


def test_the_partition_must_be_the_keys() -> None:
    right = partition_of(b"stream-1", PARTITIONS)
    for partition in range(PARTITIONS):
        if partition == right:
            assert parse(b"stream-1", changed(), partition, PARTITIONS)
        else:
            with pytest.raises(InvalidEvent, match=r"^partition:"):
                parse(b"stream-1", changed(), partition, PARTITIONS)


@pytest.mark.parametrize(
    ("key", "hashed"),
    # The values that Apache Kafka's own UtilsTest.testMurmur2 expects.
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(key: bytes, hashed: int) -> None:
    assert murmur2(key) == hashed & 0xFFFFFFFF
    assert partition_of(key, 13) == (hashed & 0x7FFFFFFF) % 13


def test_internal_streams_are_those_that_begin_with_two_underscores() -> None:
    assert is_internal("__probe")
    assert is_internal("__")
    assert not any(map(is_internal, ("_", "_x", "x__", "")))


def test_huge_records_are_read_in_reasonable_time() -> None:
    started = time.monotonic()
    assert read(changed(other="x" * 250_000))
    assert read(raw("other", json.dumps(['\\"[{'] * 20_000)))
    assert read(raw("other", "[" + "1," * 100_000 + "1]"))
    assert blamed(raw("other", '"' + "\\\\" * 100_000)) == "value"
    assert time.monotonic() - started < 5
