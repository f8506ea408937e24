"""Spark: master, workers, executors, and the query that runs on them."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from streampulse_ops.monitoring.dashboards import panels, pipeline
from streampulse_ops.monitoring.dashboards.panels import VALUES

_WORKER = '{host=~"$worker"}'
_MEBIBYTE = 1024 * 1024


def build() -> dashboard.Dashboard:
    """Return the dashboard."""
    glance = [
        panels.up(
            1,
            "Master",
            "Whether Spark's master answers. While it is away, what runs goes on, and nothing new starts.",
            'up{job="spark-master"}',
            "SparkMasterDown",
        ),
        panels.up(
            2,
            "Workers",
            "Whether each worker answers. With none, the job has no executor and counts nothing.",
            'up{job="spark-worker", host=~"$worker"}',
            "SparkWorkerDown",
        ),
        panels.up(
            3,
            "Job",
            "Whether the job's driver answers. DOWN: nothing is counted until it is back; then it catches up.",
            'up{job="job"}',
            "JobDown",
        ),
        panels.figure(
            4,
            "Executors of the job",
            "Executors that work for the job. With none it stands, and the alert SparkNoExecutor fires.",
            panels.COUNT,
            panels.now("min(streampulse_job_executors)"),
            steps=panels.below(bad=1),
            nothing="not known",
            links=[panels.runbook("SparkNoExecutor")],
        ),
        panels.figure(
            5,
            "Cores free",
            "Cores of the workers that no executor has. The job takes what it is given when it starts.",
            panels.COUNT,
            panels.now(f"sum(metrics_worker_coresFree_Value{_WORKER})"),
        ),
        panels.figure(
            6,
            "Batches",
            """How long a batch takes, as a mean over five minutes. Orange is where the alert BatchesSlow begins to
            count.""",
            panels.SECONDS,
            panels.now(pipeline.batch_seconds()),
            steps=panels.above(warn=VALUES.limits.batches_slow.value),
            decimals=2,
            links=[panels.runbook("BatchesSlow")],
        ),
    ]
    cluster = [
        panels.graph(
            10,
            "Workers and applications, as the master sees them",
            """Alive workers, running applications and those that wait for cores. One application is the job; a second
            one for long: an old driver was not ended.""",
            panels.COUNT,
            panels.series("max(metrics_master_aliveWorkers_Value)", "alive workers"),
            panels.series("max(metrics_master_apps_Value)", "applications"),
            panels.series("max(metrics_master_waitingApps_Value)", "waiting applications"),
            decimals=0,
        ),
        panels.graph(
            11,
            "Executors",
            "Executors that each worker runs, and those that the job has.",
            panels.COUNT,
            panels.series(f"sum by (host) (metrics_worker_executors_Value{_WORKER})", "on {{host}}"),
            panels.series("min(streampulse_job_executors)", "of the job"),
            decimals=0,
            links=[panels.runbook("SparkNoExecutor")],
        ),
        panels.graph(
            12,
            "Cores",
            "Cores of the workers that executors have, and that are free.",
            panels.COUNT,
            panels.series(f"sum by (host) (metrics_worker_coresUsed_Value{_WORKER})", "{{host}} used"),
            panels.series(f"sum by (host) (metrics_worker_coresFree_Value{_WORKER})", "{{host}} free"),
            stacked=True,
            decimals=0,
        ),
        panels.graph(
            13,
            "Memory for executors",
            "Bytes that the workers have given to executors, and that they may still give.",
            panels.BYTES,
            panels.series(f"sum by (host) (metrics_worker_memUsed_MB_Value{_WORKER}) * {_MEBIBYTE}", "{{host}} used"),
            panels.series(f"sum by (host) (metrics_worker_memFree_MB_Value{_WORKER}) * {_MEBIBYTE}", "{{host}} free"),
            stacked=True,
        ),
        panels.graph(
            14,
            "Heap of master and workers",
            "Bytes of the JVMs' heaps in use. A floor that keeps rising is a leak.",
            panels.BYTES,
            panels.series("metrics_jvm_heap_used_Value", "{{job}} {{host}}"),
        ),
    ]
    query = [
        panels.graph(
            20,
            "Time of a batch",
            """How long a batch takes: the mean over five minutes, which the alert BatchesSlow watches (dashed line),
            and the newest one from beginning to end.""",
            panels.SECONDS,
            panels.series(pipeline.batch_seconds(), "mean"),
            panels.series("max(streampulse_job_trigger_seconds)", "newest"),
            steps=panels.above(warn=VALUES.limits.batches_slow.value),
            links=[panels.runbook("BatchesSlow"), panels.down("pipeline")],
        ),
        panels.graph(
            21,
            "Arriving and worked through",
            """Records a second as Spark reports them. The second line above the first: there is room. Below it for
            long: the lag grows.""",
            panels.RECORDS_PER_SECOND,
            panels.series("sum(streampulse_job_input_records_per_second)", "arriving"),
            panels.series("sum(streampulse_job_processed_records_per_second)", "worked through while busy"),
        ),
        panels.graph(
            22,
            "The driver's process",
            "Bytes of memory of the driver's Python process (its JVM comes on top).",
            panels.BYTES,
            panels.series('process_resident_memory_bytes{job="job"}', "{{host}}"),
        ),
    ]
    return panels.board(
        "spark",
        "Whether Spark gives the job what it needs: master, workers, executors, and how the query runs on them.",
        [panels.environment(), panels.host('up{job="spark-worker"}', "worker")],
        [("At a glance", glance), ("Cluster", cluster), ("The job's query", query)],
    )
