"""Runbooks as programs: what is run, judged, stopped at, and written down."""

import json
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import sessions
from sessions import FakeRemote

from streampulse.core.errors import OperatorError, UsageError
from streampulse_ops.environments import secrets
from streampulse_ops.environments.session import Session
from streampulse_ops.runbooks import page, run
from streampulse_ops.runbooks.run import Options, Walk

HEAD = """---
kind: procedure
severity: ticket
last_updated: 2026-02-03
alerts: []
---
# Title

## Symptoms

## Diagnosis

"""
TAIL = """
## Resolution

{}

## Prevention

## Related Monitoring
"""


class Shell(FakeRemote):
    """Runs the commands here, and notes on which host."""

    asked: list[str]

    def run(self, words: list[str], *, timeout: float | None = None, **_more: Any) -> tuple[int, str, str]:
        Shell.asked.append(self.host.name)
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise OperatorError(f"`{shlex.join(words)}` did not end within {timeout} s") from None
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(run, "Remote", Shell)
    monkeypatch.setattr(Shell, "asked", [], raising=False)
    made = sessions.session(tmp_path, provider="vagrant", a="kafka", b="kafka", c="spark_master")
    made.environment.state.mkdir(parents=True)
    return made


def walk(session: Session, look: str, repair: str = "", **options: Any) -> Walk:
    file = session.environment.folder / page.FOLDER / "some-page.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(HEAD + look + TAIL.format(repair), encoding="utf-8")
    return Walk(session, page.read(file), Options(**options))


def step(script: str, words: str = "host=kafka changes=no") -> str:
    return f"```sh {words}\n{script}\n```\n"


def test_a_step_runs_on_every_host_of_its_group_or_on_the_one_that_is_named(session: Session) -> None:
    assert walk(session, step("true")).run().startswith("1 steps as expected, 0 not, 0 not run")
    assert Shell.asked == ["a", "b"]
    walk(session, step("true", "host=all changes=no"), host="b").run()
    assert Shell.asked == ["a", "b", "b"]
    walk(session, step("true", "host=spark_master changes=no"), host="b").run()
    assert Shell.asked.pop() == "c"
    with pytest.raises(OperatorError, match="add --host and one of a, b, c"):
        walk(session, step("true", "host=all changes=no")).run()


def test_the_control_machine_runs_its_steps_for_the_environment(session: Session) -> None:
    walk(session, step('test "$ENV $HOST" = "demo b"', "host=control changes=no"), host="b").run()
    assert Shell.asked == []
    with pytest.raises(OperatorError, match="did not end within 1 s"):
        walk(session, step("sleep 60", "host=control changes=no timeout=1")).run()


def test_it_stops_at_the_first_unexpected_result_and_says_what_the_page_says_next(session: Session) -> None:
    look = step("echo dead", 'host=kafka changes=no expect="^active$"') + "\nThe disk is full.\n\n" + step("true")
    with pytest.raises(OperatorError) as caught:
        walk(session, look).run()
    text = str(caught.value)
    assert "step 1 (docs/runbooks/some-page.md:13) on a: no line of the output matches ^active$" in text
    assert "the page says next: The disk is full." in text
    assert "Go on: inv runbook run some-page --env demo --from 2" in text
    assert Shell.asked == ["a"]
    assert walk(session, look, first=2).run().startswith("1 steps as expected")


def test_a_question_may_have_any_exit_code_and_a_command_must_succeed(session: Session) -> None:
    walk(session, step("echo inactive; exit 3", 'host=kafka changes=no expect="^inactive$"')).run()
    with pytest.raises(OperatorError, match="on a: exit code 3"):
        walk(session, step("exit 3")).run()


def test_a_task_that_leaves_out_an_optional_part_is_as_expected(session: Session) -> None:
    script, words = "echo up in 1 s; exit 3", 'changes=yes expect="up in"'
    walk(session, step(script, f"host=control {words}"), apply=True, yes=True).run()
    with pytest.raises(OperatorError, match="on a: exit code 3"):
        walk(session, step(script, f"host=kafka {words}"), apply=True, yes=True).run()


def test_else_goes_on_at_a_step_or_names_a_page(session: Session, tmp_path: Path) -> None:
    look = step("false", "host=kafka changes=no else=3") + step("touch never")
    done = walk(session, look, step(f"touch {tmp_path}/repaired", "host=kafka changes=yes"), apply=True, yes=True).run()
    assert (tmp_path / "repaired").exists()
    assert done.startswith("1 steps as expected, 1 not, 0 not run")
    with pytest.raises(OperatorError, match="the page goes on with kafka-down: inv runbook run kafka-down --env demo"):
        walk(session, step("false", "host=kafka changes=no else=kafka-down")).run()


def test_then_goes_on_at_a_step_or_ends_the_run(session: Session) -> None:
    words = "host=control changes=no then="
    look = step("true", f"{words}3") + step("false") + step("true", f"{words}end") + step("false")
    assert walk(session, look).run().startswith("2 steps as expected, 0 not, 0 not run")


def test_what_changes_something_needs_apply_and_an_answer(session: Session, tmp_path: Path) -> None:
    change = step(f"touch {tmp_path}/changed", "host=kafka changes=yes")
    assert walk(session, step("true"), change).run().startswith("1 steps as expected, 0 not, 1 not run")
    with pytest.raises(OperatorError, match="nothing was changed: inv runbook run some-page --env demo --apply"):
        walk(session, step("false", "host=kafka changes=no else=2"), change).run()
    with pytest.raises(OperatorError, match="--apply --from 2 --yes"):
        walk(session, step("true"), change, apply=True).run()
    assert not (tmp_path / "changed").exists()


def test_a_step_is_repeated_until_it_is_as_expected(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "PAUSE_SECONDS", 0.05)
    script = f"echo x >> {tmp_path}/n; test $(wc -l < {tmp_path}/n) -ge 3"
    walk(session, step(script, "host=kafka changes=no retry=20"), host="a").run()
    assert Shell.asked == ["a"] * 3
    began = time.monotonic()
    with pytest.raises(OperatorError, match="exit code 1"):
        walk(session, step("false", "host=kafka changes=no retry=1")).run()
    assert time.monotonic() - began < 10


def test_the_transcript_has_hosts_and_output_and_no_secret(session: Session) -> None:
    secrets.file_for(session.environment)
    secret = json.loads((session.environment.state / "secrets.json").read_text())["streampulse_secrets"]["api_key"]
    one = walk(session, step(f"echo key is {secret}; echo PGPASSWORD=hunter2abc; echo fine"))
    one.run()
    text = one.transcript.file.read_text()
    assert one.transcript.file.stat().st_mode & 0o077 == 0
    assert secret not in text
    assert "hunter2abc" not in text
    assert "a exit code 0\nkey is ***\nPGPASSWORD=***\nfine" in text
    assert "step 1 of 1 · Diagnosis · a, b · looks" in text


def test_a_step_or_a_host_that_does_not_exist_is_refused(session: Session) -> None:
    with pytest.raises(UsageError, match="has the steps 1 to 1"):
        walk(session, step("true"), first=2)
    with pytest.raises(OperatorError, match="d is not a host of demo"):
        walk(session, step("true"), host="d")
