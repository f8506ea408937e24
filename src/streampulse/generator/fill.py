"""``streampulse fill``: fill the topic with a backlog as fast as the machine allows, reproducible by seed."""

import argparse
import json
import math
import multiprocessing
import os
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from typing import Final

from streampulse.core.settings import KafkaSettings, WorldSettings, load
from streampulse.events import InvalidEvent, parse_ts
from streampulse.generator import arguments
from streampulse.generator.backlog import Part, Plan, interleaved, share_out
from streampulse.generator.bulk import BulkSender
from streampulse.generator.model import MINUTE_US

_TURN: Final = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``streampulse fill``."""
    parser.add_argument("--events", type=_count, default=1_000_000, metavar="N", help="good events (default: 1000000)")
    parser.add_argument(
        "--minutes", type=_positive, default=60.0, metavar="M", help="event time that they span (default: 60)"
    )
    parser.add_argument("--until", type=_instant, metavar="TS", help="time of the newest event (default: now)")
    parser.add_argument(
        "--processes",
        type=_count,
        default=os.cpu_count() or 1,
        metavar="N",
        help="at most (default: one for each core)",
    )
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    arguments.add(parser)


def run(args: argparse.Namespace) -> int:
    """Send a backlog and print the number of records, the rate and the seed.

    :raises OperatorError: Kafka does not answer or gave a record up; an argument is out of range.
    """
    kafka = load(KafkaSettings)
    world = arguments.settings(args, WorldSettings)
    begun = time.monotonic()
    until_us = args.until if args.until is not None else time.time_ns() // 1000
    plan = Plan(
        events=args.events,
        begin_us=until_us - round(args.minutes * MINUTE_US),
        end_us=until_us,
        partitions=BulkSender(kafka).partitions(),
        streams=world.streams,
        users=world.users,
        skew=world.skew,
        seed=world.seed if world.seed is not None else random.SystemRandom().getrandbits(32),
        shares=arguments.shares(world),
    )
    records = fill(plan, kafka, args.processes)
    seconds = time.monotonic() - begun
    total = sum(records.values())
    again = f"--seed {plan.seed} --until {datetime.fromtimestamp(until_us / 1e6, UTC).isoformat()}"
    if args.json:
        answer = {"events": plan.events, "records": records, "seconds": seconds, "seed": plan.seed, "end_us": until_us}
        sys.stdout.write(json.dumps(answer) + "\n")
    else:
        sys.stdout.write(
            f"{total:,} records ({plan.events:,} good events) in {seconds:.1f} s, {total / seconds:,.0f} a second; "
            f"the same again: {again}\n"
        )
    return 0


def fill(plan: Plan, kafka: KafkaSettings, processes: int) -> dict[int, int]:
    """Send a backlog from several processes and return the number of acknowledged records by partition.

    :raises OperatorError: Kafka did not acknowledge every record.
    """
    loads = share_out(plan.parts(), processes)
    # Spawned, not forked: librdkafka's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    sent: dict[int, int] = {}
    with ProcessPoolExecutor(len(loads), mp_context=context) as pool:
        for counts in pool.map(_send, loads, [kafka] * len(loads)):
            sent |= counts
    return dict(sorted(sent.items()))


def _send(parts: list[Part], kafka: KafkaSettings) -> dict[int, int]:
    sender = BulkSender(kafka)
    counts = dict.fromkeys((part.partition for part in parts), 0)
    for partition, records in interleaved(parts, _TURN):
        sender.send(partition, records)
        counts[partition] += len(records)
    sender.flush()
    return counts


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def _instant(text: str) -> int:
    try:
        return parse_ts(text)
    except InvalidEvent as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error.detail}") from None
