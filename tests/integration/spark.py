"""The job on a Spark of its own, with executors in processes of their own, started again whenever its driver ends."""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from streampulse.core.settings import KafkaSettings, PostgresSettings
from streampulse_ops import paths
from streampulse_ops.artifacts.spark import spark_set
from streampulse_ops.artifacts.store import Store
from streampulse_ops.bench.race.runners import job_variables


@contextlib.contextmanager
def unpacked() -> Iterator[Path]:
    """Unpack Spark's wheel into a folder, which is removed at the end."""
    store, item = Store(paths.cache_home() / "artifacts"), spark_set(paths.repository())
    store.ensure(item, lambda _: None)
    with tempfile.TemporaryDirectory(prefix="streampulse-test-spark-") as folder:
        (wheel,) = store.folder(item).glob("pyspark-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        for program in Path(folder, "pyspark/bin").iterdir():
            program.chmod(0o755)
        yield Path(folder)


class Job:
    """The driver with one worker of two cores. Use as a context manager.

    :param spark: the folder of :func:`unpacked`; :param scratch: an empty folder.
    :param customize: Python code that each Python process runs at its start.
    """

    def __init__(
        self, spark: Path, scratch: Path, kafka: KafkaSettings, postgres: PostgresSettings, customize: str
    ) -> None:
        (scratch / "sitecustomize.py").write_text(customize)
        properties = {
            "spark.executor.memory": "512m",
            # Hosts have 3.
            "spark.task.maxFailures": "2",
            "spark.ui.enabled": "false",
            "spark.sql.adaptive.enabled": "false",
            "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
            "spark.local.dir": str(scratch),
        }
        given = [word for name, value in properties.items() for word in ("--conf", f"{name}={value}")]
        main = Path(sys.modules["streampulse"].__path__[0], "job/__main__.py")
        self._command = [
            str(spark / "pyspark/bin/spark-submit"),
            "--master",
            "local-cluster[1,2,512]",
            *given,
            str(main),
        ]
        self._environment = {
            **os.environ,
            "SPARK_HOME": str(spark / "pyspark"),
            "PYSPARK_PYTHON": sys.executable,
            "PYTHONPATH": os.pathsep.join([str(scratch), str(spark), str(main.parents[2])]),
            **job_variables(kafka, postgres, scratch / "checkpoints"),
        }
        self._scratch = scratch
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise)
        self._log = scratch / "log"
        #: How often the driver was started.
        self.starts = 0

    def __enter__(self) -> "Job":
        self._supervisor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._supervisor.join()

    def _supervise(self) -> None:
        while not self._ended.is_set():
            self.starts += 1
            with self._log.open("ab") as log:
                process = psutil.Popen(self._command, cwd=self._scratch, env=self._environment, stdout=log, stderr=log)
            while process.poll() is None and not self._ended.wait(0.2):
                pass
            with contextlib.suppress(psutil.NoSuchProcess):
                for each in [*process.children(recursive=True), process]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        each.kill()
            process.wait()

    def log(self) -> str:
        return self._log.read_text()
