"""The job on a Spark of its own, with executors in processes of their own, started again whenever its driver ends."""

import contextlib
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from streampulse.core.settings import KafkaSettings, PostgresSettings
from streampulse_ops.bench.race.runners import OWN, RUNNERS, Processes, Tools, environment, spark_programs


@contextlib.contextmanager
def unpacked() -> Iterator[Tools]:
    """Unpack Spark's wheel into a folder, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="streampulse-test-spark-") as folder:
        yield Tools(Path(sys.executable), spark_programs(Path(folder), lambda _: None), Path(folder))


class Job(Processes):
    """The driver with one worker. Use as a context manager.

    :param scratch: an empty folder.
    :param customize: Python code that each Python process runs at its start.
    """

    def __init__(
        self, tools: Tools, scratch: Path, kafka: KafkaSettings, postgres: PostgresSettings, customize: str
    ) -> None:
        (scratch / "sitecustomize.py").write_text(customize)
        variables = environment(kafka, postgres, tools, scratch, own=True)
        *words, main = RUNNERS[OWN].command(tools, scratch)
        # Hosts have 3.
        words += ["--conf", "spark.task.maxFailures=2", main]
        super().__init__(words, {**variables, "PYTHONPATH": f"{scratch}:{variables['PYTHONPATH']}"}, scratch)
        self._log = scratch / "log"
        self._ended = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise)

    def __enter__(self) -> "Job":
        self._supervisor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._supervisor.join()
        self.kill()

    def _supervise(self) -> None:
        while not self._ended.wait(0.2):
            self.keep()

    def log(self) -> str:
        return self._log.read_text()
