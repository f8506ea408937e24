"""`inv sql` and the page of questions: each query runs as the reading role on a filled database."""

import re
import subprocess
from decimal import Decimal
from pathlib import Path

import pytest
from conftest import Database

from streampulse_ops.verbs.sql import SCRIPT
from streampulse_ops.verbs.support_bundle import TABLES

PAGE = (Path(__file__).parents[2] / "docs/sql.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"^## \d+\. ([^\n]+)\n.*?^```sql\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
#: What each query has to say of the rows of :func:`filled`, in the order of the page: its first row, some columns.
FIRST_ROWS: list[tuple[object, ...]] = [
    ("red", 7), (10, 4), ("red", Decimal("12.50"), 5), ("blue", 3), (Decimal("20.0"), 10), ("blue", Decimal("3.333")),
    ("red", 34), ("red", 9), ("late", "red", "shop", 11), (1, 42, Decimal("0.500")),
]  # fmt: skip
#: The columns of FIRST_ROWS in each result.
COLUMNS = [(0, 1), (1, 2), (0, 1, 2), (0, 2), (1, 2), (0, 1), (0, 1), (0, 2), (0, 1, 2, 3), (1, 2, 3)]


@pytest.fixture
def filled(database: Database) -> Database:
    rows = [(0, "red", 2, 1, "2.50", 2, 10), (1, "red", 2, 1, "2.50", 2, 9), (2, "red", 2, 1, "2.50", 2, 8)]
    rows += [(3, "red", 2, 1, "2.50", 2, 6), (4, "red", 2, 1, "2.50", 2, 1), (0, "blue", 10, 0, "0", 0, 3)]
    rows += [(0, "__probe", 99, 9, "99", 9, 99)]
    database.execute(
        # In one hour of today by UTC, whatever the time is.
        "INSERT INTO stream_metrics_minute SELECT date_trunc('hour', now(), 'UTC') + %s * interval '1 minute',"
        " %s, %s, %s, %s, %s, 0, 4, %s",
        *rows,
    )
    database.execute("INSERT INTO stream_presence VALUES ('red', 7, NULL, now()), ('blue', 0, NULL, now())")
    database.execute(
        "INSERT INTO dead_letter_groups VALUES (now() - interval '1 hour', 'late', 'red', 'shop', 11, now())"
    )
    database.execute(
        "INSERT INTO batch_ledger (query_id, batch_id, accepted, begun_at)"
        " VALUES (gen_random_uuid(), 0, 42, now() - interval '0.5 s')"
    )
    return database


def test_ten_questions_are_answered(filled: Database) -> None:
    assert len(QUERIES) == len(FIRST_ROWS) == 10
    with filled.server.connect("streampulse_reader", filled.name) as reader, reader.cursor() as cursor:
        cursor.execute("SET timezone = 'UTC'")
        for (question, query), expected, columns in zip(QUERIES, FIRST_ROWS, COLUMNS, strict=True):
            cursor.execute(query)
            first = cursor.fetchone()
            assert first is not None, question
            assert tuple(first[column] for column in columns) == expected, question


@pytest.mark.parametrize(
    ("query", "code", "said"),
    [
        ("SELECT 'it''s ' || current_user", 0, "it's streampulse_reader"),
        ("DELETE FROM stream_presence", 1, "read-only transaction"),
        (TABLES["ledger.csv"], 0, "seq,query_id,batch_id,committed_at,"),
        (TABLES["releases.csv"], 0, "name,marked_at"),
        ("SELECT nonsense", 1, 'column "nonsense" does not exist'),
    ],
)
def test_psql_runs_as_the_reading_role(database: Database, tmp_path: Path, query: str, code: int, said: str) -> None:
    file = tmp_path / "reader.env"
    settings = database.server.environment(database.name, "streampulse_reader")
    file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()), encoding="utf-8")
    file.chmod(0o600)
    done = subprocess.run(["sh", "-c", SCRIPT, "sh", str(file), query], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert said in done.stdout + done.stderr
