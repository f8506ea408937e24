"""Pipeline: from the generator over Kafka and the job into the tables: does it keep up, does everything count."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from streampulse_ops.monitoring.dashboards import panels
from streampulse_ops.monitoring.dashboards.panels import VALUES

#: The probe sends one event a minute, so a quantile of it needs a quarter of an hour.
PROBE_WINDOW = "15m"
_END_TO_END = "streampulse_probe_end_to_end_seconds_bucket"


def lag(number: int, span: int = 4) -> panels.Panel:
    """Return the figure of the lag in seconds."""
    return panels.figure(
        number,
        "Lag",
        f"""How long the oldest record that is not counted yet has been in Kafka. Around a second is usual;
        {VALUES.complete_seconds:g} s is where the objective for completeness counts the time as bad and, after a
        while, the alert PipelineStalled fires. Empty: Kafka or PostgreSQL could not be read.""",
        panels.SECONDS,
        panels.now("max(streampulse_pipeline_lag_seconds)"),
        steps=panels.above(bad=VALUES.complete_seconds),
        nothing="not known",
        span=span,
        decimals=1,
        links=[panels.runbook("PipelineStalled")],
    )


def freshness(number: int, span: int = 4) -> panels.Panel:
    """Return the figure of the time from event to API."""
    return panels.figure(
        number,
        "Event to API, p95",
        f"""Of the probe's events of the last {PROBE_WINDOW.removesuffix("m")} minutes, 95 of 100 were visible in the
        API after at most this time. The objective for freshness is {VALUES.fresh_seconds:g} s.""",
        panels.SECONDS,
        panels.now(panels.quantile(0.95, _END_TO_END, window=PROBE_WINDOW)),
        steps=panels.above(bad=VALUES.fresh_seconds),
        nothing="not known",
        span=span,
        decimals=2,
        links=[panels.runbook("ProbeFailing")],
    )


def batch_seconds() -> str:
    """Return PromQL for the mean time of a batch, as the alert BatchesSlow has it."""
    window = VALUES.limits.batches_slow.window
    return (
        f"sum(rate(streampulse_job_batch_phase_seconds_sum[{window}]))"
        f' / sum(rate(streampulse_job_batch_phase_seconds_count{{phase="commit"}}[{window}]))'
    )


def build() -> dashboard.Dashboard:
    """Return the dashboard."""
    glance = [
        lag(1),
        freshness(2),
        panels.figure(
            3,
            "Newest commit",
            """Time since a batch was last committed to PostgreSQL. Batches follow one another all the time while
            events arrive; without events it grows, and that alone is no fault.""",
            panels.SECONDS,
            panels.now("time() - max(streampulse_pipeline_last_commit_timestamp_seconds)"),
            nothing="not known",
            decimals=0,
        ),
        panels.figure(
            4,
            "Counted",
            "Events a second that were counted, over the last five minutes.",
            panels.EVENTS_PER_SECOND,
            panels.now("sum(rate(streampulse_job_accepted_events_total[5m]))"),
        ),
        panels.figure(
            5,
            "Dead letters",
            f"""Share of records of the last hour that do not count: not valid, too late, or from the future. The
            objective for correctness allows {VALUES.limits.dead_letters_growing.value:.0%}.""",
            panels.RATIO,
            panels.now(
                "(sum(increase(streampulse_job_dead_letters_total[1h])) or vector(0))"
                " / sum(increase(streampulse_job_records_total[1h]))"
            ),
            steps=panels.above(warn=VALUES.limits.dead_letters_growing.value),
            decimals=2,
            links=[panels.runbook("DeadLettersGrowing")],
        ),
        panels.figure(
            6,
            "Event clock behind",
            """How far the newest counted event's own time lies behind now. It moves with the senders' clocks: hours
            mean that old events are being read.""",
            panels.SECONDS,
            panels.now("time() - max(streampulse_job_event_clock_timestamp_seconds)"),
            decimals=0,
        ),
    ]
    keeping_up = [
        panels.graph(
            10,
            "Lag",
            "As above, over time. The dashed line is where the time counts as bad.",
            panels.SECONDS,
            panels.series("max(streampulse_pipeline_lag_seconds)", "lag"),
            steps=panels.above(bad=VALUES.complete_seconds),
            links=[panels.runbook("PipelineStalled")],
        ),
        panels.graph(
            11,
            "Lag in records, by partition",
            """Records in Kafka that are not counted yet. One partition alone: a stream with very many events. All of
            them: the job does not keep up, or stands.""",
            panels.COUNT,
            panels.series(
                "streampulse_pipeline_end_offset - on (partition) streampulse_pipeline_committed_offset",
                "partition {{partition}}",
            ),
            stacked=True,
        ),
        panels.graph(
            12,
            "Event to API",
            """Time from sending the probe's events to seeing them in the API. The dashed line is the objective for
            freshness.""",
            panels.SECONDS,
            panels.series(panels.quantile(0.5, _END_TO_END, window=PROBE_WINDOW), "p50"),
            panels.series(panels.quantile(0.95, _END_TO_END, window=PROBE_WINDOW), "p95"),
            steps=panels.above(bad=VALUES.fresh_seconds),
        ),
        panels.graph(
            15,
            "Lag in records",
            """Records in Kafka that are not counted yet, over all partitions: as the probe sees it from outside, and
            as the job's query last reported it.""",
            panels.COUNT,
            panels.series("max(streampulse_pipeline_lag_records)", "seen by the probe"),
            panels.series("max(streampulse_job_lag_records)", "reported by the job"),
        ),
        panels.graph(
            16,
            "Time since the newest commit",
            """As the ledger in PostgreSQL has it, and as the job remembers it. The lines lie on one another; the
            job's goes away with the job.""",
            panels.SECONDS,
            panels.series("time() - max(streampulse_pipeline_last_commit_timestamp_seconds)", "in the ledger"),
            panels.series("time() - max(streampulse_job_last_commit_timestamp_seconds)", "of the job"),
        ),
        panels.graph(
            13,
            "Events by hop",
            """Events a second: sent by the generator, arrived in Kafka, read by the job, counted. The lines lie on
            one another while everything keeps up and every record counts. Other senders than the generator make
            the second higher.""",
            panels.EVENTS_PER_SECOND,
            panels.series("sum(rate(streampulse_generator_events_sent_total[$__rate_interval]))", "sent"),
            panels.series("sum(rate(streampulse_pipeline_end_offset[$__rate_interval]))", "in Kafka"),
            panels.series("sum(rate(streampulse_job_records_total[$__rate_interval]))", "read"),
            panels.series("sum(rate(streampulse_job_accepted_events_total[$__rate_interval]))", "counted"),
        ),
        panels.graph(
            14,
            "Arrival to commit",
            """Time from the arrival of a batch's newest record to the commit of that batch: the job's own part of the
            delay.""",
            panels.SECONDS,
            panels.series("max(streampulse_job_arrival_lag_seconds)", "newest record"),
        ),
    ]
    batches = [
        panels.graph(
            20,
            "Phases of a batch, mean",
            """Where a batch's time goes: decode (reading and parsing on the executors), dead letters, count, commit
            (writing to PostgreSQL).""",
            panels.SECONDS,
            panels.series(panels.mean("streampulse_job_batch_phase_seconds", "phase"), "{{phase}}"),
            stacked=True,
        ),
        panels.graph(
            21,
            "Phases of a batch, p95",
            "The slowest 5 of 100 batches take at least this long in each phase.",
            panels.SECONDS,
            panels.series(panels.quantile(0.95, "streampulse_job_batch_phase_seconds_bucket", by="phase"), "{{phase}}"),
        ),
        panels.graph(
            22,
            "Time of a batch",
            """How long a batch takes: the mean of its phases over five minutes, which the alert BatchesSlow watches
            (dashed line), and the newest one from beginning to end, as Spark reports it.""",
            panels.SECONDS,
            panels.series(batch_seconds(), "mean"),
            panels.series("max(streampulse_job_trigger_seconds)", "newest"),
            steps=panels.above(warn=VALUES.limits.batches_slow.value),
            links=[panels.runbook("BatchesSlow"), panels.down("spark")],
        ),
        panels.graph(
            23,
            "Arriving and worked through",
            """Records a second as Spark reports them. The second line above the first: there is room. Below it for
            long: the lag grows.""",
            panels.RECORDS_PER_SECOND,
            panels.series("sum(streampulse_job_input_records_per_second)", "arriving"),
            panels.series("sum(streampulse_job_processed_records_per_second)", "worked through while busy"),
        ),
        panels.graph(
            24,
            "Rows written",
            "Rows of the tables that were written or removed, a second.",
            panels.ROWS_PER_SECOND,
            panels.series("sum(rate(streampulse_job_rows_written_total[$__rate_interval]))", "rows"),
            links=[panels.down("postgres")],
        ),
        panels.graph(
            25,
            "Working state",
            """Entries that the job holds in memory, by kind. It follows the number of streams and viewers; growth
            without end is a fault.""",
            panels.COUNT,
            panels.series("sum by (kind) (streampulse_job_state_entries)", "{{kind}}"),
        ),
    ]
    right = [
        panels.graph(
            30,
            "Dead letters by reason",
            """Records a second that do not count: invalid (not an event), late (too old for the log's clock), future.
            Each is in stream.events.dlq with its reason.""",
            panels.RECORDS_PER_SECOND,
            panels.series("sum by (reason) (rate(streampulse_job_dead_letters_total[$__rate_interval]))", "{{reason}}"),
            stacked=True,
            links=[panels.runbook("DeadLettersGrowing")],
        ),
        panels.graph(
            31,
            "Dead letters ever",
            "Dead letters that were ever written to stream.events.dlq. Kafka keeps them for 30 days.",
            panels.COUNT,
            panels.series("max(streampulse_pipeline_dead_letters_total)", "dead letters"),
            links=[panels.runbook("DeadLetterBacklog")],
        ),
        panels.graph(
            32,
            "Duplicates",
            "Events a second whose id was counted before. They are passed over, and change no number.",
            panels.EVENTS_PER_SECOND,
            panels.series("sum(rate(streampulse_job_duplicate_events_total[$__rate_interval]))", "duplicates"),
        ),
        panels.graph(
            33,
            "The probe's events",
            """Outcomes of the probe's events over ten minutes: exact (the API's row is exactly right), wrong (it is
            not), lost (not visible in time), unsent (Kafka did not take it), unread (the API does not let the
            probe in). Ten, all exact, is what should be
            seen.""",
            panels.COUNT,
            panels.series("sum by (outcome) (increase(streampulse_probe_events_total[10m]))", "{{outcome}}"),
            stacked=True,
            links=[panels.runbook("ProbeFailing")],
        ),
        panels.graph(
            34,
            "What the probe can read",
            """1 while the probe can read Kafka's offsets and the job's ledger in PostgreSQL. 0: the lag is not known,
            which counts as bad.""",
            panels.NO_UNIT,
            panels.series("min by (part) (streampulse_pipeline_readable)", "{{part}}"),
            most=1,
            decimals=0,
        ),
        panels.graph(
            35,
            "Version of the job",
            "The release that the job runs.",
            panels.COUNT,
            panels.series("sum by (host, version) (streampulse_job_build_info)", "{{host}} {{version}}"),
            decimals=0,
        ),
    ]
    generator = [
        panels.graph(
            40,
            "Sent by the generator",
            "Events a second that Kafka acknowledged, and the rate that was asked for.",
            panels.EVENTS_PER_SECOND,
            panels.series("sum(rate(streampulse_generator_events_sent_total[$__rate_interval]))", "sent"),
            panels.series("sum(streampulse_generator_target_events_per_second)", "asked for"),
        ),
        panels.graph(
            41,
            "Not sent by the generator",
            """Events a second that were given up after retries (failed), or left out since too many were waiting
            (skipped). Either means that Kafka does not take them quickly enough.""",
            panels.EVENTS_PER_SECOND,
            panels.series("sum(rate(streampulse_generator_events_failed_total[$__rate_interval]))", "failed"),
            panels.series("sum(rate(streampulse_generator_events_skipped_total[$__rate_interval]))", "skipped"),
            links=[panels.down("kafka")],
        ),
        panels.graph(
            42,
            "Waiting for Kafka",
            "Events of the generator that wait for Kafka's acknowledgement. It rises when Kafka is slow or away.",
            panels.COUNT,
            panels.series("sum(streampulse_generator_events_pending)", "pending"),
            links=[panels.down("kafka")],
        ),
        panels.graph(
            43,
            "Time since Kafka's last acknowledgement",
            "How long ago Kafka last took an event of the generator's. It stays within a second while events are sent.",
            panels.SECONDS,
            panels.series(
                "time() - (max(streampulse_generator_last_acknowledgement_timestamp_seconds) > 0)", "generator"
            ),
            links=[panels.down("kafka")],
        ),
    ]
    return panels.board(
        "pipeline",
        """The way of an event from the sender into the tables: does it keep up, where does the time go, does
        everything count.""",
        [panels.environment()],
        [
            ("At a glance", glance),
            ("Keeping up", keeping_up),
            ("Batches", batches),
            ("Is it right", right),
            ("Generator", generator),
        ],
    )
