"""up, down and reset with a substitute provider: their steps and the order of these."""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from streampulse.core.errors import IncompleteError, OperatorError
from streampulse.host import SMOKE_SECONDS
from streampulse_ops import ansible, artifacts
from streampulse_ops.cli.console import Screen
from streampulse_ops.environments import inventory, lock, secrets
from streampulse_ops.environments.environment import Environment, Host
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts import command
from streampulse_ops.machines.existing import Existing
from streampulse_ops.releases import bundle, history
from streampulse_ops.releases.bundle import INTERFACE, Bundle
from streampulse_ops.releases.history import Look
from streampulse_ops.verbs import deploy as deploy_verb
from streampulse_ops.verbs import down as down_verb
from streampulse_ops.verbs import reset as reset_verb
from streampulse_ops.verbs.down import down
from streampulse_ops.verbs.reset import plan, question, reset
from streampulse_ops.verbs.up import up
from streampulse_ops.verbs.upgrade import upgrade

GROUPS = frozenset({"kafka", "spark_master", "spark_worker", "postgres", "api"})


class FakeProvider(Existing):
    """Machines that exist in a set only."""

    def __init__(self, environment: Environment, did: list[str]) -> None:
        super().__init__(environment)
        self.did, self.up = did, set[str]()

    def start(self, host: Host) -> bool:
        if host.name in self.up:
            return False
        self.up.add(host.name)
        self.did.append(f"start {host.name}")
        return True

    def stop(self, host: Host) -> bool:
        if host.name not in self.up:
            return False
        self.up.remove(host.name)
        self.did.append(f"stop {host.name}")
        return True

    def destroy(self, host: Host) -> bool:
        self.up.discard(host.name)
        self.did.append(f"destroy {host.name}")
        return True

    def running(self, host: Host) -> bool:
        return host.name in self.up

    def forget(self) -> None:
        self.did.append("forget")


@dataclass
class World:
    """One environment, and all that was done to it."""

    session: Session
    provider: FakeProvider
    did: list[str]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    did: list[str] = []
    hosts = (Host("a", GROUPS), Host("b", frozenset({"spark_worker"})))
    environment = Environment("demo", tmp_path / "inventory", hosts, {"provider": "vagrant"})
    provider = FakeProvider(environment, did)

    def play(_environment: Environment, playbook: str, _extra: Any, *_more: Any, **named: Any) -> int:
        limit: Sequence[Host] = named.get("hosts", ())
        did.append(" ".join([playbook, *(host.name for host in limit)]))
        did.extend(named.get("then", ()))
        return 3

    def prepare(pythons: Sequence[str], *_more: Any) -> artifacts.Prepared:
        did.append(f"artifacts {' '.join(pythons)}")
        return artifacts.Prepared({"streampulse_artifacts": {}}, 5, 0, 0)

    monkeypatch.setattr(ansible, "play", play)
    monkeypatch.setattr(artifacts, "prepare", prepare)
    known = {"streampulse_topic": "t", "streampulse_dlq_topic": "t.dlq", "streampulse_database": "d"}
    monkeypatch.setattr(inventory, "variables", lambda *_which: {"streampulse_ports": {"api": 8000}, **known})
    monkeypatch.setattr(
        deploy_verb, "smoke", lambda _session, seconds=0: did.append(f"smoke {seconds}" if seconds else "smoke")
    )
    release = Bundle(tmp_path / "v-0123456789.tar.gz", {"name": "v-0123456789", "interface": INTERFACE, "schema": 1})
    monkeypatch.setattr(Bundle, "environment", lambda _bundle, current: current)
    monkeypatch.setattr(bundle, "make", lambda _environment, _drivers: release)
    monkeypatch.setattr(history, "look", lambda _session: Look([], {}, [], False))
    monkeypatch.setattr(history, "note", lambda *_event, **_more: None)
    monkeypatch.setattr(command, "on_master", lambda *_words: (0, "", ""))
    return World(Session(environment, provider, Screen()), provider, did)


def test_up_makes_configures_and_checks(world: World) -> None:
    words = up(world.session, full=False)
    assert world.did == ["artifacts cp311 cp312 cp313", "start a", "start b", "site", "smoke"]
    assert words.startswith("5 changed · http://")
    assert (world.session.environment.state / "secrets.json").stat().st_mode & 0o077 == 0


def test_down_stops_in_reverse_and_the_second_does_nothing(world: World) -> None:
    up(world.session, full=False)
    world.did.clear()
    assert down(world.session, full=False, wipe=False).startswith("5 changed")
    assert world.did == ["stop a b", "stop b", "stop a"]
    world.did.clear()
    assert down(world.session, full=False, wipe=False).startswith("0 changed")
    assert world.did == []


def test_down_of_machines_of_which_one_has_crashed(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    up(world.session, full=False)
    world.provider.up.discard("b")
    world.did.clear()
    down(world.session, full=False, wipe=False)
    assert world.did == ["stop a", "stop a"]  # the playbook limited to a, then the machine
    assert "not running, left alone: b" in capsys.readouterr().out


def test_an_existing_host_that_does_not_answer_may_run_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "file_for", lambda environment: environment.state / "secrets.json")
    up(world.session, full=False)
    existing = dataclasses.replace(world.session.environment, variables={"provider": "existing"})
    session = dataclasses.replace(world.session, environment=existing)
    world.provider.up.discard("b")
    world.did.clear()
    with pytest.raises(OperatorError, match=r"^b did not answer, and services there may run on"):
        down_verb.stop_services(session, False)
    assert world.did == ["stop a"]


def test_existing_hosts_are_checked_before_the_first_line_of_their_log(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "file_for", lambda environment: environment.state / "secrets.json")
    monkeypatch.setattr(history, "note", lambda *event, **_more: world.did.append(event[2]))
    existing = dataclasses.replace(world.session.environment, variables={"provider": "existing"})
    up(dataclasses.replace(world.session, environment=existing), full=False)
    assert [each for each in world.did if each in ("check", "begun", "site", "good")] == [
        "check",
        "begun",
        "site",
        "good",
    ]


def test_an_upgrade_takes_each_host_once(world: World) -> None:
    up(world.session, full=False)
    world.did.clear()
    assert upgrade(world.session, "", reboot=False, dry_run=True).startswith("2 of 2 hosts would change")
    assert world.did == ["upgrade a", "upgrade b"]


def test_machines_that_cannot_be_reached_are_halted_nevertheless(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    up(world.session, full=False)

    def unreachable(*_arguments: Any, **_named: Any) -> int:
        raise OperatorError("a cannot be reached")

    monkeypatch.setattr(ansible, "play", unreachable)
    world.did.clear()
    down(world.session, full=False, wipe=False)
    assert world.did == ["stop b", "stop a"]
    assert "a cannot be reached" in capsys.readouterr().out


def test_wiping_removes_the_machines_and_the_kept_state(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    up(world.session, full=False)
    clear_away, cleared = down_verb.clear_away, []

    def noted(session: Session) -> None:
        cleared.append(bool(lock.descriptors()))
        clear_away(session)

    monkeypatch.setattr(down_verb, "clear_away", noted)
    world.did.clear()
    down(world.session, full=False, wipe=True)
    assert world.did == ["destroy b", "destroy a", "forget"]
    assert not world.session.environment.state.exists()
    assert cleared == [True], "the state was cleared away without the lock"
    assert down(world.session, full=False, wipe=True) == "nothing is there, nothing to do"


@pytest.mark.parametrize(("wipe", "plays"), [(False, ["stop a b"]), (True, ["stop a b", "wipe"])])
def test_existing_hosts_are_taken_down_from_a_machine_that_knows_nothing_of_them(
    world: World, monkeypatch: pytest.MonkeyPatch, wipe: bool, plays: list[str]
) -> None:
    environment = dataclasses.replace(world.session.environment, variables={"provider": "existing"})
    monkeypatch.setattr(secrets, "file_for", lambda _environment: Path("vault.yml"))
    world.provider.up |= {"a", "b"}
    monkeypatch.setattr(world.provider, "stop", lambda _host: False)
    monkeypatch.setattr(world.provider, "destroy", lambda _host: False)
    assert not environment.state.exists()
    down(dataclasses.replace(world.session, environment=environment), full=False, wipe=wipe)
    assert [done for done in world.did if done != "forget"] == plays


def test_reset_wipes_stopped_services_only(world: World) -> None:
    up(world.session, full=False)
    world.did.clear()
    reset(world.session, full=False)
    assert world.did == ["artifacts cp311 cp312 cp313", "reset_check", "stop a b", "wipe", "site", "smoke"]


def test_reset_without_kafka_stops_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    up(world.session, full=False)
    world.did.clear()

    def play(_environment: Environment, playbook: str, *_more: Any, **_named: Any) -> int:
        world.did.append(playbook)
        raise OperatorError("kafka on a: it did not start. When it is fixed: inv up --env demo")

    monkeypatch.setattr(ansible, "play", play)
    with pytest.raises(
        OperatorError, match=r"did not start.* inv up .*Nothing was .*wiped.* inv down --wipe --env demo"
    ):
        reset(world.session, full=False)
    assert world.did[1:] == ["reset_check"]


@pytest.fixture
def watched(world: World) -> World:
    """Make one of the hosts one that watches."""
    hosts = (Host("a", GROUPS | {"monitoring"}), Host("b", frozenset({"spark_worker"})))
    environment = dataclasses.replace(world.session.environment, hosts=hosts)
    return dataclasses.replace(world, session=dataclasses.replace(world.session, environment=environment))


def test_monitoring_starts_after_the_base_and_stops_before_it(watched: World) -> None:
    up(watched.session, full=True)
    assert watched.did[-3:] == ["site", "monitoring", "smoke"]
    watched.did.clear()
    reset(watched.session, full=True)
    stopped_and_wiped = ["monitoring_stop a b", "stop a b", "monitoring_wipe", "wipe"]
    assert watched.did[1:] == ["reset_check", *stopped_and_wiped, "site", "monitoring", "smoke"]
    watched.did.clear()
    down(watched.session, full=True, wipe=False)
    assert watched.did == ["monitoring_stop a b", "stop a b", "stop b", "stop a"]


def test_without_full_monitoring_is_left_alone(watched: World) -> None:
    up(watched.session, full=False)
    reset(watched.session, full=False)
    down(watched.session, full=False, wipe=False)
    assert not [done for done in watched.did if done.startswith("monitoring")]


def test_missing_components_are_named_at_the_end(watched: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def play(_environment: Environment, playbook: str, *_more: Any, **named: Any) -> int:
        watched.did.append(playbook)
        if "monitoring" in named.get("then", ()):
            named["said"].update({"streampulse_missing": {"Grafana": "its repository does not answer"}})
        return 0

    monkeypatch.setattr(ansible, "play", play)
    with pytest.raises(IncompleteError) as caught:
        up(watched.session, full=True)
    assert watched.did[-1] == "smoke", "the rest is checked all the same"
    assert str(caught.value) == (
        "Grafana could not be installed (its repository does not answer); all the rest is up. "
        "To try again: inv up --full --env demo"
    )
    assert caught.value.done.startswith("2 changed · http://")


def test_a_recount_of_kept_events_gets_more_time(watched: World) -> None:
    watched.session.environment.state.mkdir(parents=True)
    reset(watched.session, full=False, keep=("kafka",))
    assert watched.did[-1] == f"smoke {reset_verb.RECOUNT_SECONDS}"
    reset(watched.session, full=False, keep=("kafka", "postgres"))
    assert watched.did[-1] == "smoke"


def test_kept_state_is_passed_to_the_wiping_playbook(watched: World, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.session.environment.state.mkdir(parents=True)
    given = {}

    def play(_environment: Environment, playbook: str, extra: Any, *_more: Any, **_named: Any) -> int:
        given[playbook] = json.loads(extra[-1])
        return 0

    monkeypatch.setattr(ansible, "play", play)
    reset(watched.session, full=True, keep=("kafka", "metrics"))
    wanted = {
        "full": True,
        "streampulse_environment": "demo",
        "streampulse_keep": ["kafka", "metrics"],
        "streampulse_smoke_seconds": SMOKE_SECONDS,
    }
    assert given["wipe"] == given["monitoring_wipe"] == {**wanted, "streampulse_reset": True}
    down_verb.play_each(watched.session, True, "wipe")
    assert given["wipe"] == {**wanted, "streampulse_keep": [], "streampulse_reset": False}


@pytest.mark.parametrize(
    ("full", "keep", "removed", "left"),
    [
        (False, (), ["events", "checkpoints", "rows"], []),
        (False, ("kafka",), ["checkpoints", "rows"], ["events"]),
        (True, (), ["events", "checkpoints", "rows", "Prometheus"], []),
        (True, ("metrics",), ["events", "checkpoints", "rows"], ["Prometheus"]),
        (False, ("kafka", "postgres", "checkpoints"), [], ["events", "checkpoints", "rows"]),
    ],
)
def test_a_plan_lists_removed_and_kept_state(
    watched: World, full: bool, keep: tuple[str, ...], removed: list[str], left: list[str]
) -> None:
    watched.session.environment.state.mkdir(parents=True)
    lines = plan(watched.session, full, keep)
    [gone] = [line for line in lines if line.startswith("  remove")]
    stays = "".join(line for line in lines if line.startswith("  keep"))
    assert ("Kafka's topics t and t.dlq" in gone, "database d" in gone) == ("events" in removed, "rows" in removed)
    assert any(line.startswith("  leave alone other topics") for line in lines)
    for word in ("events", "checkpoints", "rows", "Prometheus"):
        assert (word in gone) is (word in removed)
        assert (word in stays) is (word in left)
    assert watched.did == []
    asked = question(watched.session, full, keep)
    assert all(word in asked for word in removed)
    assert not any(word in asked for word in left)


def test_an_environment_without_state_is_not_reset(world: World) -> None:
    for verb in (reset, plan):
        with pytest.raises(OperatorError, match=r"nothing of demo is there that could be reset: inv up --env demo$"):
            verb(world.session, full=False)
    assert world.did == []


def test_nothing_is_fetched_for_existing_hosts_without_secrets(world: World) -> None:
    environment = dataclasses.replace(world.session.environment, variables={"provider": "existing"})
    with pytest.raises(OperatorError, match="demo has no secrets"):
        up(dataclasses.replace(world.session, environment=environment), full=False)
    assert world.did == []


@pytest.mark.parametrize("verb", [up, functools.partial(down, wipe=False), reset, plan])
def test_full_needs_a_monitoring_host(world: World, verb: Callable[..., Any]) -> None:
    with pytest.raises(OperatorError, match=r"demo has no host in group monitoring: add one to .*hosts\.yml"):
        verb(world.session, full=True)
    assert world.did == []


@pytest.mark.parametrize(
    ("saw", "unproved", "refused"),
    [("proved: 12,000 events", False, False), ("not proved: 1 core", False, True), ("not proved: 1 core", True, False)],
)
def test_a_release_that_was_not_proved_is_deployed_only_when_asked(
    world: World, monkeypatch: pytest.MonkeyPatch, saw: str, unproved: bool, refused: bool
) -> None:
    def play(*_words: Any, watch: Callable[[dict[str, Any]], None], **_named: Any) -> int:
        watch({"event": "ok", "gate": True, "saw": saw})
        return 0

    up(world.session, full=False)
    monkeypatch.setattr(ansible, "play", play)
    release = deploy_verb.Release(bundle.make(world.session.environment, 1), world.session, Path())
    options = deploy_verb.Options(prove=True, unproved=unproved)
    with pytest.raises(OperatorError, match=f"{saw}.*--unproved") if refused else contextlib.nullcontext():
        deploy_verb._prove(release, options, "v-9876543210")
