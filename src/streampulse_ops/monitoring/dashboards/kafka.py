"""Kafka: brokers, partitions and their replicas, traffic, how long requests take, and what the logs hold."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from streampulse_ops.monitoring.dashboards import panels

_HOST = '{host=~"$host"}'
_REQUEST_MS = 'kafka_network_requestmetrics_totaltimems{host=~"$host", quantile="%s"}'


def build() -> dashboard.Dashboard:
    """Return the dashboard."""
    glance = [
        panels.up(
            1,
            "Brokers",
            "Whether each broker answers the scrape. DOWN: nothing is taken or given on that host.",
            'up{job="kafka", host=~"$host"}',
            "KafkaDown",
        ),
        panels.figure(
            2,
            "Partitions offline",
            "Partitions without a leader: nothing can be written to them or read from them. 0 on a healthy cluster.",
            panels.COUNT,
            panels.now(f"max(kafka_controller_kafkacontroller_offlinepartitionscount{_HOST})"),
            steps=panels.above(bad=1),
            links=[panels.runbook("KafkaPartitionsOffline")],
        ),
        panels.figure(
            3,
            "Under-replicated",
            """Partitions with fewer replicas in step than they should have: another failure may cost data. Always 0
            with a single broker.""",
            panels.COUNT,
            panels.now(f"sum(kafka_server_replicamanager_underreplicatedpartitions{_HOST})"),
            steps=panels.above(bad=1),
            links=[panels.runbook("KafkaUnderReplicated")],
        ),
        panels.figure(
            4,
            "Events arriving",
            "Records a second that arrive in stream.events, over the last five minutes.",
            panels.RECORDS_PER_SECOND,
            panels.now(
                'sum(rate(kafka_server_brokertopicmetrics_messagesin_total{host=~"$host", topic="stream.events"}[5m]))'
            ),
        ),
        panels.figure(
            5,
            "Written",
            "Bytes a second that arrive, all topics, over the last five minutes.",
            panels.BYTES_PER_SECOND,
            panels.now(f"sum(rate(kafka_server_brokertopicmetrics_bytesin_total{_HOST}[5m]))"),
        ),
        panels.figure(
            6,
            "Logs",
            "Bytes of all logs on disk, with every replica. The retention of each topic bounds it.",
            panels.BYTES,
            panels.now(f"sum(kafka_log_log_size{_HOST})"),
            links=[panels.down("host")],
        ),
    ]
    cluster = [
        panels.graph(
            10,
            "Brokers of the cluster",
            """Brokers that the controller counts as alive, and fenced ones (known, but not taking part). Several
            controllers that call themselves active at once would be a fault.""",
            panels.COUNT,
            panels.series(f"max(kafka_controller_kafkacontroller_activebrokercount{_HOST})", "alive"),
            panels.series(f"max(kafka_controller_kafkacontroller_fencedbrokercount{_HOST})", "fenced"),
            panels.series(f"sum(kafka_controller_kafkacontroller_activecontrollercount{_HOST})", "active controllers"),
            decimals=0,
        ),
        panels.graph(
            11,
            "Partitions in trouble",
            """Offline (no leader), under-replicated, and with fewer replicas in step than a write needs. All 0 when
            healthy.""",
            panels.COUNT,
            panels.series(f"max(kafka_controller_kafkacontroller_offlinepartitionscount{_HOST})", "offline"),
            panels.series(f"sum(kafka_server_replicamanager_underreplicatedpartitions{_HOST})", "under-replicated"),
            panels.series(f"sum(kafka_server_replicamanager_underminisrpartitioncount{_HOST})", "cannot be written"),
            steps=panels.above(bad=1),
            decimals=0,
            links=[panels.runbook("KafkaPartitionsOffline")],
        ),
        panels.graph(
            12,
            "Replicas falling behind and catching up",
            """How often a second a replica left the set of those in step, or came back. It moves when a broker
            restarts.""",
            panels.OPERATIONS_PER_SECOND,
            panels.series(f"sum(rate(kafka_server_replicamanager_isrshrinks_total{_HOST}[$__rate_interval]))", "left"),
            panels.series(
                f"sum(rate(kafka_server_replicamanager_isrexpands_total{_HOST}[$__rate_interval]))", "came back"
            ),
        ),
        panels.graph(
            13,
            "Leaders by broker",
            "Partitions that each broker leads. Even shares are even load.",
            panels.COUNT,
            panels.series(f"sum by (host) (kafka_server_replicamanager_leadercount{_HOST})", "{{host}}"),
            stacked=True,
            decimals=0,
        ),
    ]
    traffic = [
        panels.graph(
            20,
            "Records arriving, by topic",
            "Records a second. stream.events is the events, stream.events.dlq those that do not count.",
            panels.RECORDS_PER_SECOND,
            panels.series(
                f"sum by (topic) (rate(kafka_server_brokertopicmetrics_messagesin_total{_HOST}[$__rate_interval]))",
                "{{topic}}",
            ),
            links=[panels.down("pipeline")],
        ),
        panels.graph(
            21,
            "Bytes arriving, by topic",
            "Bytes a second, as compressed by the senders.",
            panels.BYTES_PER_SECOND,
            panels.series(
                f"sum by (topic) (rate(kafka_server_brokertopicmetrics_bytesin_total{_HOST}[$__rate_interval]))",
                "{{topic}}",
            ),
        ),
        panels.graph(
            22,
            "Bytes read, by topic",
            "Bytes a second that are read. More than arrive: somebody reads from the beginning.",
            panels.BYTES_PER_SECOND,
            panels.series(
                f"sum by (topic) (rate(kafka_server_brokertopicmetrics_bytesout_total{_HOST}[$__rate_interval]))",
                "{{topic}}",
            ),
        ),
        panels.graph(
            23,
            "Time of a request",
            """Milliseconds from a request's arrival to its answer, as the broker measures it, over its recent past.
            Fetches wait for data on purpose, up to half a second.""",
            panels.MILLISECONDS,
            panels.series(f"max by (request) ({_REQUEST_MS % '0.5'})", "{{request}} p50"),
            panels.series(f"max by (request) ({_REQUEST_MS % '0.99'})", "{{request}} p99"),
        ),
        panels.graph(
            24,
            "Requests that failed",
            """Requests a second that the brokers answered with an error, by kind. NOT_LEADER and COORDINATOR errors
            come and go while a broker restarts; clients try again by themselves.""",
            panels.REQUESTS_PER_SECOND,
            panels.series(
                f"sum by (request, error) (rate(kafka_network_requestmetrics_errors_total{_HOST}[$__rate_interval]))",
                "{{request}} {{error}}",
            ),
        ),
        panels.graph(
            26,
            "Requests",
            """Requests a second by kind. Sending and reading in small pieces makes many; each costs the broker about
            the same, however much is in it.""",
            panels.REQUESTS_PER_SECOND,
            panels.series(
                f"sum by (request) (rate(kafka_network_requestmetrics_requests_total{_HOST}[$__rate_interval]))",
                "{{request}}",
            ),
        ),
        panels.graph(
            27,
            "Requests that wait",
            """Requests that have arrived and that no thread handles yet. More than a few for long: the broker is at
            its limit.""",
            panels.COUNT,
            panels.series(f"max by (host) (kafka_network_requestchannel_requestqueuesize{_HOST})", "{{host}}"),
            decimals=0,
        ),
        panels.graph(
            25,
            "Idle",
            """Share of time in which the broker's threads had nothing to do: those of the network, and those that
            handle requests. Below 0.3 for long, the broker is at its limit.""",
            panels.RATIO,
            panels.series(
                f"min by (host) (kafka_network_socketserver_networkprocessoravgidlepercent{_HOST})", "{{host}} network"
            ),
            panels.series(
                f"min by (host) (kafka_server_kafkarequesthandlerpool_requesthandleravgidlepercent{_HOST})",
                "{{host}} requests",
            ),
            most=1,
        ),
    ]
    inside = [
        panels.graph(
            30,
            "Logs on disk, by topic",
            "Bytes with every replica. Growth stops where retention begins to remove the oldest.",
            panels.BYTES,
            panels.series(f"sum by (topic) (kafka_log_log_size{_HOST})", "{{topic}}"),
            stacked=True,
        ),
        panels.graph(
            31,
            "Records held, by partition of stream.events",
            "From the oldest that is kept to the newest. Very different lines: few streams have most of the events.",
            panels.COUNT,
            panels.series(
                'max by (partition) (kafka_log_log_logendoffset{host=~"$host", topic="stream.events"})'
                ' - max by (partition) (kafka_log_log_logstartoffset{host=~"$host", topic="stream.events"})',
                "partition {{partition}}",
            ),
        ),
        panels.graph(
            32,
            "Heap of the broker",
            "Bytes of the JVM's heap in use, and what it may use. A floor that keeps rising is a leak.",
            panels.BYTES,
            panels.series('jvm_memory_used_bytes{job="kafka", host=~"$host", area="heap"}', "{{host}} used"),
            panels.series('jvm_memory_max_bytes{job="kafka", host=~"$host", area="heap"}', "{{host}} at most"),
        ),
        panels.graph(
            33,
            "Time in garbage collection",
            "Share of time that the JVM stood still to collect garbage.",
            panels.RATIO,
            panels.series(
                'sum by (host) (rate(jvm_gc_collection_seconds_sum{job="kafka", host=~"$host"}[$__rate_interval]))',
                "{{host}}",
            ),
        ),
    ]
    return panels.board(
        "kafka",
        "Whether Kafka takes and gives everything: brokers, partitions, traffic, time of requests, logs.",
        [panels.environment(), panels.host('up{job="kafka"}')],
        [("At a glance", glance), ("Cluster", cluster), ("Traffic and requests", traffic), ("Logs and memory", inside)],
    )
