"""A benchmark run on a substitute stack: refusals, removal of the machine, results after a failure."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streampulse.core.errors import OperatorError, UsageError
from streampulse_ops import paths
from streampulse_ops.bench import options, place, run
from streampulse_ops.bench.figures import Figure, Measured
from streampulse_ops.bench.measures import MEASURES, api, growth, latency, monitoring, processor
from streampulse_ops.bench.measures import up as up_measure
from streampulse_ops.bench.place import Place
from streampulse_ops.cli.console import Screen
from streampulse_ops.environments import environment
from streampulse_ops.environments.session import Session
from streampulse_ops.machines.existing import Existing

GROUPS = ("kafka", "spark_master", "spark_worker", "postgres", "api")


def session(hosts: tuple[str, ...] = ("sp-x",), provider: str = "nspawn", benchmark: bool = True) -> Session:
    members: dict[str, dict[str, None]] = {"hosts": dict.fromkeys(hosts)}
    content = {
        "all": {"vars": {"provider": provider, "benchmark": benchmark}, "children": dict.fromkeys(GROUPS, members)}
    }
    made = environment.parse("x", Path("inventories/x"), content)
    return Session(made, Existing(made), Screen())


@pytest.fixture
def did(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Stand for the stack, and write down what is done with it."""
    done: list[str] = []
    monkeypatch.setattr(paths, "MACHINES_STATE", tmp_path / "state")
    monkeypatch.setattr(up_measure, "up", lambda *_, **__: done.append("up"))
    monkeypatch.setattr(place, "down", lambda *_, **how: done.append(f"down wipe={how['wipe']}"))

    def good(_place: Place, _options: options.Options) -> Measured:
        done.append("measured")
        return Measured([Figure("good", "good", 1.0, "s", must=2.0)], {"seen": 1})

    for name in MEASURES:
        monkeypatch.setitem(MEASURES, name, good)
    return done


def test_everything_is_measured_and_the_machine_removed(did: list[str], tmp_path: Path) -> None:
    said = run.run(session(), options.Options(out=tmp_path / "out"))
    assert did == ["up", *["measured"] * len(options.NAMES), "down wipe=True"]
    assert "bench.md" in said
    document = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert document["details"]["latency"] == {"seen": 1}
    assert document["figures"][0]["name"] == "up.first"


def test_selected_measurements_run_and_the_machine_is_kept(did: list[str]) -> None:
    run.run(session(), options.Options(only=("memory",), keep_machine=True))
    assert did == ["up", "measured"]


def test_an_environment_that_is_there_is_left_alone(did: list[str], tmp_path: Path) -> None:
    (tmp_path / "state" / "x").mkdir(parents=True)
    with pytest.raises(OperatorError, match="inv down --wipe --env x"):
        run.run(session(), options.Options())
    assert did == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"provider": "existing"}, "environment of its own"),
        ({"benchmark": False}, "inv bench --env bench, or write `benchmark: true`"),
        ({"hosts": ("a", "b")}, "one clock"),
    ],
)
def test_an_environment_that_is_not_for_it_is_left_alone(did: list[str], given: dict[str, Any], said: str) -> None:
    with pytest.raises(OperatorError, match=said):
        run.run(session(**given), options.Options())
    assert did == []


def test_a_failure_keeps_the_figures_and_removes_the_machine(
    did: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_place: Place, _options: options.Options) -> Measured:
        raise OperatorError("it broke")

    monkeypatch.setitem(MEASURES, "latency", broken)
    with pytest.raises(OperatorError, match="it broke"):
        run.run(session(), options.Options(only=("latency", "memory"), out=tmp_path))
    assert did == ["up", "measured", "down wipe=True"]
    names = [figure["name"] for figure in json.loads((tmp_path / "bench.json").read_text())["figures"]]
    assert names == ["up.first", "good"]


def test_a_must_that_is_missed_fails_the_run_and_is_named(did: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Measured([Figure("slow", "slow one", 3.0, "s", aim=1.0, must=2.0), Figure("x", "x", 2.0, "s", aim=1.0)], {})
    monkeypatch.setitem(MEASURES, "memory", lambda *_: slow)
    with pytest.raises(OperatorError, match=r"^1 MUST missed: slow one: 3 s, must be at most 2$"):
        run.run(session(), options.Options(only=("memory",)))
    assert did[-1] == "down wipe=True"


def test_the_comparison_is_read_before_anything_is_made(did: list[str], tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="cannot be read"):
        run.run(session(), options.Options(compare=tmp_path / "none.json"))
    assert did == []


@pytest.mark.parametrize(
    ("read", "option", "value"),
    [
        (options.names, "only", "speed"),
        (options.numbers, "rates", "fast"),
        (options.numbers, "rates", "0"),
        (options.numbers, "days", ""),
        (options.positive, "backlog", -1),
    ],
)
def test_a_wrong_option_is_named(read: Callable[[str, Any], object], option: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"^--{option} {value}"):
        read(option, value)


def times(p50: float, p95: float) -> dict[str, Any]:
    return {"count": 10, "p50": p50, "p95": p95, "p99": p95, "max": 9.0}


def test_latency_has_its_aims_at_one_rate_and_its_limit_at_all() -> None:
    made = {f.name: f for f in latency.figures(3_000, {"from_creation": times(0.5, 2.6), "sent_per_second": 2_999.0})}
    assert made["latency.3000.p50"].verdict == "ok"
    assert made["latency.3000.p95"].verdict == "MUST missed"
    assert made["latency.3000.p99"].verdict == ""
    slow = latency.figures(300, {"from_creation": times(9.0, 2.4), "sent_per_second": 200.0})
    assert [figure.verdict for figure in slow] == ["", "ok", ""]
    assert "only 200 events/s were sent" in slow[0].note


def test_an_events_processor_time_is_that_of_all_cores() -> None:
    counting, total = processor.figures(2_000, {"job": 0.06, "spark-worker": 0.04, "kafka": 0.02})
    assert counting.value == pytest.approx(50)
    assert total.value == pytest.approx(60)
    assert total.note == "cores: job 0.06, spark-worker 0.04, kafka 0.02"


def mark(days: int, seconds: float) -> dict[str, Any]:
    return {
        "days": days,
        "batch_median_seconds": seconds,
        "batch_p95_seconds": seconds,
        "batch_median_cpu_seconds": 2 * seconds,
        "load_average": 0.5,
        "state_payload_bytes": 1024,
        "load_seconds": 0.1,
        "rows": 5,
        "table_bytes": {"batch_ledger": 1024 * 1024, "job_state_snapshot": 1024 * 1024, "job_state_delta": 0},
        "state_entries": {"streams": 2, "event_ids": 3},
    }


def test_growth_compares_the_last_mark_with_the_first() -> None:
    made = {figure.name: figure for figure in growth.figures([mark(1, 0.01), mark(30, 0.02)])}
    assert made["growth.ratio"].value == 2.0
    assert made["growth.ratio"].verdict == ""
    assert made["growth.cpu_ratio"].verdict == "aim missed"
    assert (made["growth.30.tables"].value, made["growth.30.stored_state"].value) == (1, 1)
    assert made["growth.30.entries"].value == 5
    assert "growth.ratio" not in {figure.name for figure in growth.figures([mark(1, 0.01)])}


def seen(rate: float, p99: float = 0.01, failed: int = 0) -> dict[str, Any]:
    return {"rate": rate, "p50": p99 / 2, "p99": p99, "failed": failed}


def test_the_api_is_held_against_a_plain_pool_of_the_same_rounds() -> None:
    answer = {
        "latest": [seen(9_000.0, 0.015), seen(12_000.0, 0.030), seen(8_500.0, 0.018)],
        "paced": [seen(8_100.0, 0.004), seen(7_900.0, 0.021), seen(8_200.0, 0.003)],
        # Slow in the round in which the API was: the ratio is of rounds, not of medians.
        "plain_pool": [seen(900.0), seen(1_500.0), seen(850.0)],
        "history": seen(2_000.0),
        "top": seen(999.0, failed=3),
        "largest_age_seconds": 0.3,
        "live": {"readers": 1_000, "served": 998, "readings": 8.0},
    }
    made = {figure.name: figure for figure in api.figures(answer)}
    assert (made["api.latest.rate"].value, made["api.latest.rate"].verdict) == (9_000, "ok")
    assert (made["api.latest.p99"].value, made["api.latest.p99"].verdict) == (0.018, "")
    assert (made["api.paced.rate"].value, made["api.paced.rate"].verdict) == (8_100, "ok")
    assert (made["api.paced.p99"].value, made["api.paced.p99"].verdict) == (0.004, "ok")
    assert "15, 30, 18 ms" in made["api.latest.p99"].note
    assert (made["api.plain_pool.rate"].value, made["api.plain_pool.rate"].verdict) == (900, "")
    assert (made["api.ratio"].value, made["api.ratio"].verdict) == (10.0, "ok")
    assert made["api.top.rate"].verdict == "aim missed"
    assert (made["api.failed"].value, made["api.failed"].verdict) == (3, "MUST missed")
    assert made["api.age"].verdict == "ok"
    assert made["api.live.served"].verdict == "aim missed"


def test_the_cost_of_monitoring_includes_its_effect_on_others() -> None:
    answer = {
        "up_seconds": 91.0,
        "again_seconds": 20.0,
        "again_changed": 1,
        "cores_alone": {"job": 0.10, "kafka": 0.04},
        "cores_watched": {"job": 0.15, "kafka": 0.05, "prometheus": 0.04, "probe": 0.02},
        "memory": [
            {"service": s, "process": s, "pss_kib": mib * 1024}
            for s, mib in (("job", 3_000), ("prometheus", 90), ("probe", 40), ("generator", 30))
        ],
    }
    made = {figure.name: figure for figure in monitoring.figures(answer)}
    assert made["monitoring.up"].verdict == "aim missed"
    assert made["monitoring.changed"].verdict == "MUST missed"
    assert made["monitoring.cores.own"].value == pytest.approx(0.06)
    assert made["monitoring.cores.total"].value == pytest.approx(0.12)
    assert made["monitoring.cores.total"].verdict == "aim missed"
    assert (made["monitoring.memory"].value, made["monitoring.memory"].verdict) == (3_160, "aim missed")
    assert made["monitoring.memory"].note == "of monitoring: prometheus 90, probe 40"
