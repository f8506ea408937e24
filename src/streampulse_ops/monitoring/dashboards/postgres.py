"""PostgreSQL: connections, work, long transactions, sizes, and rows that wait for vacuum."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from streampulse_ops.monitoring.dashboards import panels
from streampulse_ops.monitoring.dashboards.panels import VALUES

_HOST = '{host=~"$host"}'
_OURS = '{host=~"$host", datname="streampulse"}'
#: Transactions that a client has begun, as the rule PostgresQueriesSlow has them.
_TRANSACTIONS = 'state=~"active|idle in transaction.*",backend_type!~"autovacuum.*|walsender"'
_OPEN = f'pg_stat_activity_max_tx_duration{{host=~"$host", datname="streampulse", {_TRANSACTIONS}}}'
_DEAD = f"sum by (relname) (pg_stat_user_tables_n_dead_tup{_HOST})"
_LIVE = f"sum by (relname) (pg_stat_user_tables_n_live_tup{_HOST})"


def build() -> dashboard.Dashboard:
    """Return the dashboard."""
    used = (
        f"sum by (host) (pg_stat_activity_count{_HOST}) / on (host) max by (host) (pg_settings_max_connections{_HOST})"
    )
    glance = [
        panels.up(
            1,
            "PostgreSQL",
            """Whether the exporter can log in and ask. DOWN: nothing is counted, and the API answers from memory for
            seconds.""",
            f"pg_up{_HOST}",
            "PostgresDown",
        ),
        panels.figure(
            2,
            "Connections in use",
            "Share of the connections that the server allows. At 1 nobody else can log in.",
            panels.RATIO,
            panels.now(f"max({used})"),
            steps=panels.above(warn=VALUES.limits.postgres_connections.value),
            links=[panels.runbook("PostgresConnectionsHigh")],
        ),
        panels.figure(
            3,
            "Longest transaction",
            """How long the oldest transaction that is still open has been. Ours take fractions of a second; an old
            one keeps vacuum from removing dead rows.""",
            panels.SECONDS,
            panels.now(f"max({_OPEN})"),
            steps=panels.above(warn=VALUES.limits.postgres_query.value),
            decimals=1,
            links=[panels.runbook("PostgresQueriesSlow")],
        ),
        panels.figure(
            4,
            "Commits",
            "Transactions a second that were committed in streampulse's database, over the last five minutes.",
            panels.OPERATIONS_PER_SECOND,
            panels.now(f"sum(rate(pg_stat_database_xact_commit{_OURS}[5m]))"),
        ),
        panels.figure(
            5,
            "Read from memory",
            """Share of pages that were found in the server's own memory, over the last five minutes. Usually above
            0.99.""",
            panels.RATIO,
            panels.now(
                f"sum(rate(pg_stat_database_blks_hit{_OURS}[5m])) / (sum(rate(pg_stat_database_blks_hit{_OURS}[5m]))"
                f" + sum(rate(pg_stat_database_blks_read{_OURS}[5m])))"
            ),
            decimals=3,
        ),
        panels.figure(
            6,
            "Database",
            "Bytes of streampulse's database on disk. Rows older than `history_days` are removed, which bounds it.",
            panels.BYTES,
            panels.now(f"sum(pg_database_size_bytes{_OURS})"),
            links=[panels.down("host")],
        ),
    ]
    work = [
        panels.graph(
            10,
            "Connections by state",
            """Connections by what they do. Many that are idle in transaction: a program forgot to end its
            transactions.""",
            panels.COUNT,
            panels.series(f"sum by (state) (pg_stat_activity_count{_HOST})", "{{state}}"),
            stacked=True,
            decimals=0,
            links=[panels.runbook("PostgresConnectionsHigh")],
        ),
        panels.graph(
            11,
            "Connections in use",
            "Share of the connections that the server allows. The dashed line is where the alert fires.",
            panels.RATIO,
            panels.series(used, "{{host}}"),
            steps=panels.above(warn=VALUES.limits.postgres_connections.value),
            links=[panels.runbook("PostgresConnectionsHigh")],
        ),
        panels.graph(
            12,
            "Longest transaction",
            "How long the oldest open transaction has been, by state. The dashed line is where the alert fires.",
            panels.SECONDS,
            panels.series(f"max by (state) ({_OPEN})", "{{state}}"),
            steps=panels.above(warn=VALUES.limits.postgres_query.value),
            links=[panels.runbook("PostgresQueriesSlow")],
        ),
        panels.graph(
            13,
            "Transactions",
            "Transactions a second, committed and rolled back. The job commits one for each batch; the API reads.",
            panels.OPERATIONS_PER_SECOND,
            panels.series(f"sum(rate(pg_stat_database_xact_commit{_OURS}[$__rate_interval]))", "committed"),
            panels.series(f"sum(rate(pg_stat_database_xact_rollback{_OURS}[$__rate_interval]))", "rolled back"),
        ),
        panels.graph(
            14,
            "Rows written",
            "Rows a second that were inserted, updated and deleted.",
            panels.ROWS_PER_SECOND,
            panels.series(f"sum(rate(pg_stat_database_tup_inserted{_OURS}[$__rate_interval]))", "inserted"),
            panels.series(f"sum(rate(pg_stat_database_tup_updated{_OURS}[$__rate_interval]))", "updated"),
            panels.series(f"sum(rate(pg_stat_database_tup_deleted{_OURS}[$__rate_interval]))", "deleted"),
        ),
        panels.graph(
            15,
            "Pages read",
            "Pages a second from the server's memory, and from the system (its cache, or the disk).",
            panels.OPERATIONS_PER_SECOND,
            panels.series(f"sum(rate(pg_stat_database_blks_hit{_OURS}[$__rate_interval]))", "from memory"),
            panels.series(f"sum(rate(pg_stat_database_blks_read{_OURS}[$__rate_interval]))", "from the system"),
        ),
    ]
    state = [
        panels.graph(
            20,
            "Locks",
            "Locks by mode. Exclusive ones for long make others wait.",
            panels.COUNT,
            panels.series(f"sum by (mode) (pg_locks_count{_OURS})", "{{mode}}"),
            decimals=0,
        ),
        panels.graph(
            21,
            "Deadlocks and spilling",
            "Deadlocks, over ten minutes: none is right. Each was ended by the server, and the job tries again.",
            panels.COUNT,
            panels.series(f"sum(increase(pg_stat_database_deadlocks{_OURS}[10m]))", "deadlocks"),
            decimals=0,
        ),
        panels.graph(
            22,
            "Written to temporary files",
            "Bytes a second of sorts and joins that did not fit into memory.",
            panels.BYTES_PER_SECOND,
            panels.series(f"sum(rate(pg_stat_database_temp_bytes{_OURS}[$__rate_interval]))", "temporary files"),
        ),
        panels.graph(
            23,
            "Dead rows by table",
            """Rows that nobody sees any more and vacuum has not removed yet. They come and go; growth without end is
            bloat.""",
            panels.COUNT,
            panels.series(_DEAD, "{{relname}}"),
            links=[panels.runbook("PostgresBloat")],
        ),
        panels.graph(
            24,
            "Share of dead rows by table",
            """Dead rows by all rows. The dashed line is where the alert PostgresBloat fires, for tables that are not
            small.""",
            panels.RATIO,
            panels.series(f"{_DEAD} / ({_DEAD} + {_LIVE} > 0)", "{{relname}}"),
            steps=panels.above(warn=VALUES.limits.postgres_bloat.value),
            most=1,
            links=[panels.runbook("PostgresBloat")],
        ),
        panels.graph(
            25,
            "Size of the databases",
            "Bytes on disk, with indexes.",
            panels.BYTES,
            panels.series(f"sum by (datname) (pg_database_size_bytes{_HOST})", "{{datname}}"),
            stacked=True,
        ),
    ]
    return panels.board(
        "postgres",
        "Whether PostgreSQL has room and is quick: connections, transactions, reads and writes, sizes, vacuum.",
        [panels.environment(), panels.host('up{job="postgres-exporter"}')],
        [("At a glance", glance), ("Work", work), ("State", state)],
    )
