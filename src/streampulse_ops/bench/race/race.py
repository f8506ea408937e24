"""The runs of the race, the comparison with the oracle, and the table."""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from streampulse.core.errors import IncompleteError, OperatorError
from streampulse.core.postgres import connect, execute
from streampulse.core.settings import CountingSettings, KafkaSettings, PostgresSettings, WorldSettings
from streampulse.generator import fill
from streampulse.generator.arguments import shares
from streampulse.generator.backlog import Plan
from streampulse.host.migrate import migrate
from streampulse.oracle.command import Snapshot, read_log, take_snapshot
from streampulse.oracle.reader import TopicReader
from streampulse.oracle.tables import MINUTE_US, MinuteRow, tables
from streampulse_ops.bench import run
from streampulse_ops.bench.figures import Figure, in_digits, missed
from streampulse_ops.bench.options import Options
from streampulse_ops.bench.race import runners, servers
from streampulse_ops.bench.race.runners import OWN, RUNNERS, Processes, Tools
from streampulse_ops.bench.report import Report
from streampulse_ops.cli.console import Screen

KILLS: Final = 3
SEED: Final = 1
#: streampulse's rate divided by that of another: what must be reached, and the aim.
LIMITS: Final = {"bytewax": (1.25, 1.6), "spark": (0.7, 0.9)}
#: Event time of the records in minutes, and the share that is out of order.
_MINUTES: Final = 60
_DISORDER: Final = 0.02
#: As streampulse has it.
_BATCH: Final = 250_000
_LOOK_SECONDS: Final = 0.2
# Longer than a dead member of a consumer group is waited for (45 s).
_SILENT_SECONDS: Final = 90.0
_FIRST_SECONDS: Final = 300.0
_SETTLE_SECONDS: Final = 3.0
_COUNTED: Final = ("chat_messages", "donations", "joins", "leaves")

Rows = Mapping[tuple[int, str], MinuteRow]


@dataclass(frozen=True)
class World:
    """What all runs share. ``total`` is the sum of the rows' counts."""

    kafka: KafkaSettings
    postgres: PostgresSettings
    tools: Tools
    folder: Path
    records: int
    expected: Rows
    total: int


@dataclass(frozen=True)
class Outcome:
    """One run.

    ``rate`` is in records per second from the first commit to the last, without the first commit's. ``first`` is the
    time from the start to the first commit and ``nexts`` from each kill to the next, in seconds. ``memory`` is the
    largest sum in bytes. ``differing`` counts rows, ``ends`` how often the processes ended by themselves.
    """

    rate: float
    first: float
    nexts: Sequence[float]
    memory: int
    differing: int
    ends: int


def race(screen: Screen, options: Options) -> str:
    """Run the race, show and save the table, and return the closing line.

    :raises OperatorError: something cannot be started, or a limit is missed.
    :raises IncompleteError: the race is run, but without a peer that this Python has no package of.
    """
    asked = [name for name in RUNNERS if name == OWN or name in (options.only or RUNNERS)]
    left_out = [name for name in asked if name == "bytewax" and sys.version_info >= (3, 13)]
    names = [name for name in asked if name not in left_out]
    about = run.describe("this one", options)
    outcomes: dict[str, list[Outcome]] = {name: [] for name in names}
    killed: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="streampulse-race-") as name, ExitStack() as stack:
        # PostgreSQL's account passes through it.
        Path(name).chmod(0o755)
        world = _world(screen, stack, Path(name), options.backlog)
        for number in range(options.repeats):
            for each in names if number % 2 == 0 else names[::-1]:
                outcomes[each].append(_shown(screen, world, each, f"{each}-{number + 1}", 0))
        for each in names:
            killed[each] = _shown(screen, world, each, f"{each}-kills", KILLS)
    wrong = _worst([*outcomes[OWN], killed[OWN]])
    figures = [*ratios(outcomes), Figure("race.rows", "streampulse, rows that differ", wrong, "rows", must=0)]
    text = markdown(outcomes, killed)
    details = {each: [asdict(outcome) for outcome in [*outcomes[each], killed[each]]] for each in names}
    report = Report(about, figures, details)
    screen.line(f"\n{text}")
    screen.console.print(report.table())
    files: list[Path] = []
    if options.out is not None:
        files = [*report.write(options.out), options.out / "peers.md"]
        files[-1].write_text(text, encoding="utf-8")
    if missed(figures):
        raise OperatorError(f"{len(missed(figures))} MUST missed: {'; '.join(missed(figures))}")
    done = " · ".join([f"{len(names)} raced", *map(str, files)])
    if left_out:
        raise IncompleteError(
            f"without {RUNNERS[left_out[0]].title}: it has no wheel for Python 3.13; run ./inv with Python 3.12", done
        )
    return done


def differing(expected: Rows, found: Rows, columns: Sequence[str]) -> int:
    """Return the number of rows that differ in some of the columns. A missing row counts as one of zeros."""
    empty = MinuteRow(*(0,) * len(MinuteRow._fields))
    return sum(
        any(getattr(expected.get(key, empty), each) != getattr(found.get(key, empty), each) for each in columns)
        for key in expected.keys() | found.keys()
    )


def ratios(outcomes: Mapping[str, Sequence[Outcome]]) -> list[Figure]:
    """Return streampulse's rate divided by each other's: the median of the rounds."""
    figures = []
    for name in (name for name in outcomes if name != OWN):
        pairs = zip(outcomes[OWN], outcomes[name], strict=True)
        must, aim = LIMITS.get(name, (None, None))
        value = statistics.median(own.rate / other.rate for own, other in pairs)
        title = f"streampulse / {RUNNERS[name].title}"
        figures.append(Figure(f"race.{name}", title, value, "times", aim, must, more_is_better=True))
    return figures


def markdown(outcomes: Mapping[str, Sequence[Outcome]], killed: Mapping[str, Outcome]) -> str:
    """Return the table."""
    heads = (
        "",
        "records/s",
        "first commit, s",
        "rows that differ",
        "after kills",
        "kill to commit, s",
        "MiB",
        "not counted",
    )
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for name, runs in outcomes.items():
        runner, crash = RUNNERS[name], killed[name]
        rates = sorted(outcome.rate for outcome in runs)
        cells = [
            runner.title,
            f"{in_digits(statistics.median(rates))} ({in_digits(rates[0])} to {in_digits(rates[-1])})",
            f"{statistics.median(outcome.first for outcome in runs):.1f}",
            f"{_worst(runs):,}",
            f"{crash.differing:,} ({len(crash.nexts)} kills)",
            ", ".join(f"{seconds:.1f}" for seconds in crash.nexts),
            f"{max(outcome.memory for outcome in runs) / 2**20:,.0f}",
            ", ".join(each for each in MinuteRow._fields if each not in runner.columns),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _worst(runs: Sequence[Outcome]) -> int:
    return max(outcome.differing for outcome in runs)


def _world(screen: Screen, stack: ExitStack, folder: Path, events: int) -> World:
    """Start the servers, fill the topic, and have the oracle count it."""
    with screen.step("peers") as step:
        tools = runners.tools(folder, step.note)
        step.done("ready")
    with screen.step("records") as step:
        kafka = stack.enter_context(servers.kafka(folder, step.note))
        postgres = stack.enter_context(servers.postgres(folder))
        with closing(connect(postgres, "race")) as admin, admin:
            # The migrations give it rights.
            execute(admin, "CREATE ROLE streampulse_sessions")
        step.note(f"filling {events:,} events")
        world = WorldSettings(disorder=_DISORDER)
        now_us = time.time_ns() // 1000
        plan = Plan(
            events=events,
            begin_us=now_us - _MINUTES * MINUTE_US,
            end_us=now_us,
            partitions=servers.PARTITIONS,
            streams=world.streams,
            users=world.users,
            skew=world.skew,
            seed=SEED,
            shares=shares(world),
        )
        records = sum(fill.fill(plan, kafka, 2).values())
        step.note("counting by the oracle")
        reader = TopicReader(kafka)
        offsets = {number: bounds.end for number, bounds in reader.bounds(kafka.topic).items()}
        snapshot = Snapshot(False, None, 1, offsets, {}, [], [], {}, {})
        log = read_log(reader, kafka.topic, snapshot, lambda _: None)
        reader.close()
        counting = CountingSettings()
        timeout_us = counting.viewer_timeout_seconds * 1_000_000
        expected = tables(log.accepted, log.clocks, timeout_us, counting.history_days).minutes
        total = sum(getattr(row, each) for row in expected.values() for each in _COUNTED)
        step.done(f"{records:,} records, {len(expected):,} rows")
    return World(kafka, postgres, tools, folder, records, expected, total)


def _shown(screen: Screen, world: World, name: str, label: str, kills: int) -> Outcome:
    with screen.step(label) as step:
        step.note("counting")
        outcome = _one(world, name, label, kills)
        step.done(f"{outcome.rate:,.0f} records/s, {outcome.differing:,} rows differ")
    return outcome


def _one(world: World, name: str, label: str, kills: int) -> Outcome:
    """Count the topic into a database of its own, from nothing."""
    runner, database = RUNNERS[name], label.replace("-", "_")
    folder = world.folder / label
    folder.mkdir()
    with closing(connect(world.postgres, "race")) as admin:
        admin.autocommit = True
        execute(admin, f"CREATE DATABASE {database}")
    postgres = world.postgres.model_copy(update={"database": database})
    migrate(postgres)
    with closing(connect(postgres, "race")) as connection:
        connection.autocommit = True
        for column in ("unique_viewers", "active_viewers"):
            execute(connection, f"ALTER TABLE stream_metrics_minute ALTER {column} SET DEFAULT 0")
        variables = runners.environment(world.kafka, postgres, world.tools, folder, name == OWN)
        # Four batches are needed for kills between them.
        batch = str(min(_BATCH, world.records // 4))
        variables |= {"STREAMPULSE_JOB_MAX_OFFSETS_PER_TRIGGER": batch, "RACE_BATCH": batch}
        started = time.time()
        processes = Processes(runner.command(world.tools, folder), variables, folder)
        try:
            seen = _watch(connection, processes, world.total, moments(kills, world.total))
        finally:
            processes.kill()
    rows = take_snapshot(postgres).minutes
    # A single commit is measured from the start.
    first_at, first = seen.commits[0] if len(seen.commits) > 1 else (started, 0)
    last_at, last = seen.commits[-1]
    share = (last - first) / world.total
    return Outcome(
        rate=world.records * share / (last_at - first_at),
        first=seen.commits[0][0] - started,
        nexts=seen.nexts,
        memory=seen.memory,
        differing=differing(world.expected, rows, runner.columns),
        ends=processes.ends,
    )


def moments(kills: int, total: int) -> list[tuple[int, float]]:
    """Return when to kill: the count that is reached, and the seconds after that."""
    chance = random.Random(SEED)  # noqa: S311 - reproducible on purpose
    return sorted((int(total * chance.uniform(0.05, 0.75)), chance.random()) for _ in range(kills))


@dataclass
class _Seen:
    commits: list[tuple[float, int]]
    nexts: list[float]
    memory: int = 0


def _watch(connection: Any, processes: Processes, total: int, kills: list[tuple[int, float]]) -> _Seen:
    """Look at the rows until all is counted, or nothing is committed any more. Kill on the way.

    :raises OperatorError: nothing was committed.
    """
    seen = _Seen([], [])
    moved = time.monotonic()
    waits_since: float | None = None
    while True:
        time.sleep(_LOOK_SECONDS)
        processes.keep()
        seen.memory = max(seen.memory, processes.memory())
        # The newest of the commits that wrote the present rows.
        ((count, at),) = execute(
            connection,
            f"SELECT coalesce(sum({' + '.join(_COUNTED)}), 0)::bigint, "  # noqa: S608 - no value in it
            "extract(epoch FROM max(pg_xact_commit_timestamp(xmin)))::float8 FROM stream_metrics_minute",
        )
        if at is not None and (not seen.commits or at > seen.commits[-1][0]):
            seen.commits.append((at, count))
            moved = time.monotonic()
            if waits_since is not None and at > waits_since:
                seen.nexts.append(at - waits_since)
                waits_since = None
        if kills and waits_since is None and kills[0][0] <= count < total:
            time.sleep(kills.pop(0)[1])
            waits_since = time.time()
            processes.restart()
        silent = time.monotonic() - moved
        if not seen.commits:
            if silent > _FIRST_SECONDS:
                raise OperatorError(f"nothing counted within {silent:.0f} s; its last line: {processes.last_line()}")
        elif silent > (_SETTLE_SECONDS if count == total and waits_since is None else _SILENT_SECONDS):
            return seen
