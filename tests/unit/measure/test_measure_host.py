"""Measurements on a host: processes, units, the job's phases, event times."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from streampulse.core import http
from streampulse.core.settings import JobSettings
from streampulse.host.measure import processor, recovery, start, topic, units
from streampulse.host.measure.match import Commit, Visibility
from streampulse.host.measure.memory import title
from streampulse.host.measure.phases import Phases
from streampulse.host.measure.topic import Arrival
from streampulse.host.measure.units import EXECUTOR, Process


def test_recovery_looks_at_records_that_arrived_after_the_kill() -> None:
    records = [Arrival(0, offset, arrived, None) for offset, arrived in enumerate((9.9, 10.1, 10.2, 14.0, 19.9))]
    visible = Visibility([Commit(1, 10.5, {0: 1}), Commit(2, 15.0, {0: 4}), Commit(3, 21.0, {0: 5})])
    # The commit at 10.5 has only records that arrived before; the last record waits because of the next kill.
    assert recovery.between(records, visible, 10.0, 20.0) == {
        "to_commit_seconds": 5.0,
        "longest_wait_seconds": pytest.approx(4.9),
    }
    assert recovery.between(records, visible, 15.0, 20.0) is None


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("0::/system.slice/kafka.service\n", "kafka.service"),
        ("0::/system.slice/system-postgresql.slice/postgresql@17-main.service\n", "postgresql@17-main.service"),
        ("3:memory:/x.service\n1:name=systemd:/system.slice/a.service/sub\n0::/\n", "a.service"),
        ("0::/user.slice/session-1.scope\n", None),
    ],
)
def test_the_service_of_a_process(text: str, unit: str | None) -> None:
    assert units._unit(text) == unit


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["/usr/bin/java", "-Xmx1g", "-cp", "/a/*:/b.jar", "kafka.Kafka", "/etc/x.properties"], "java Kafka"),
        (["java", "-cp", "/a/*", "org.apache.spark.deploy.SparkSubmit", "--x"], "java SparkSubmit"),
        (["/venv/bin/python", "-m", "pyspark.daemon", "pyspark.worker"], "python pyspark.daemon"),
        (["/venv/bin/python3", "/x/job/__main__.py"], "python __main__.py"),
        (["postgres: 17/main: checkpointer"], "postgres: 17/main: checkpointer"),
        (["/usr/lib/postgresql/17/bin/postgres", "-D", "/x"], "postgres"),
    ],
)
def test_a_process_has_a_name_that_says_something(words: list[str], expected: str) -> None:
    assert title(Process("u", 1, tuple(words), 1, 0.0)) == expected


def test_this_process_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "_unit", lambda _: "x.service")

    def mine() -> Process:
        return next(process for process in units.processes() if process.pid == os.getpid())

    before = mine()
    assert before.pss_kib > 1_000
    # The time of an ended child is added to this process's.
    subprocess.run([sys.executable, "-c", "while __import__('time').process_time() < 0.3: pass"], check=True)
    assert mine().cpu_seconds >= before.cpu_seconds + 0.25


def test_the_time_of_a_process_that_has_ended_is_counted_once() -> None:
    def look(*found: tuple[str, int, float]) -> list[Process]:
        return [Process(unit, pid, ("x",), 1, used) for unit, pid, used in found]

    before = look(("a.service", 1, 10.0), ("a.service", 2, 5.0), ("b.service", 3, 1.0))
    # Process 2 used another second and ended: its 6 s are now its parent's, beside the parent's own 2.
    after = look(("a.service", 1, 18.0), ("b.service", 3, 1.0), ("b.service", 4, 0.5))
    names = {"a.service": "a", "b.service": "b", "c.service": "c"}
    assert processor.cores(names, before, after, 10.0) == {"a": 0.3, "b": 0.05, "c": 0.0}
    assert processor.cores({"b.service": "b"}, before, after, 10.0) == {"b": 0.05}


def test_archives_are_those_of_the_job_and_of_its_executors(monkeypatch: pytest.MonkeyPatch) -> None:
    def java(unit: str, archive: str, *words: str) -> Process:
        return Process(unit, 1, ("java", f"-XX:SharedArchiveFile={archive}", *words), 1, 0.0)

    running = [
        java("job.service", "/a/driver.jsa"),
        java("spark-worker.service", "/b/executor.jsa", EXECUTOR),
        java("spark-worker.service", "/b/worker.jsa"),
        java("kafka.service", "/c/kafka.jsa"),
    ]
    monkeypatch.setattr(start, "processes", lambda: running)
    monkeypatch.setattr(start, "properties", lambda unit: {"Id": unit})
    assert start._archives("job.service") == [Path("/a/driver.jsa"), Path("/b/executor.jsa")]


def test_an_archive_is_out_of_the_way_and_back_again(tmp_path: Path) -> None:
    file = tmp_path / "spark.jsa"
    file.write_text("first")
    with start._aside(file):
        assert not file.exists()
        file.write_text("second")
    assert file.read_text() == "first"
    file.unlink()
    with start._aside(file):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b'{"event_id":"x","ts":"2026-01-01T00:00:00.25Z"}', 1_767_225_600.25),
        (b'{"ts":"yesterday"}', None),
        (b"garbage", None),
        (None, None),
    ],
)
def test_the_time_at_which_an_event_was_made(value: bytes | None, seconds: float | None) -> None:
    assert topic._created(value) == seconds


def test_phases_are_means_between_two_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "streampulse_job_batch_phase_seconds"

    def scrape(decode: float, batches: int) -> str:
        return f'{name}_bucket{{le="1",phase="decode"}} 1\n{name}_sum{{phase="decode"}} {decode}\n' + (
            f'{name}_count{{phase="decode"}} {batches}\n{name}_created{{phase="decode"}} 1.7e9\n'
        )

    pages = iter([scrape(10.0, 100), scrape(16.0, 120)])
    monkeypatch.setattr(http, "get", lambda *_, **__: httpx.Response(200, text=next(pages)))
    phases = Phases(JobSettings(checkpoint_dir="/x", metrics_port=1))
    phases.begin()
    assert phases.end() == {"decode": pytest.approx(0.3)}
