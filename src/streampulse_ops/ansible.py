"""Run playbooks: a few lines on the terminal, Ansible's own output in a log."""

import contextlib
import importlib.util
import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import psutil

from streampulse.core.errors import OperatorError
from streampulse_ops.cli.console import NAME_WIDTH, Screen, took
from streampulse_ops.cli.ending import Terminated
from streampulse_ops.cli.ownership import give_to_invoker
from streampulse_ops.command import program_environment
from streampulse_ops.environments import inventory, lock
from streampulse_ops.environments.environment import Environment, Host
from streampulse_ops.machines import tools

TOOLS = {"rsync": "rsync", "ssh": "openssh-client"}
POLL_SECONDS = 0.05
ENDING_SECONDS = 10.0
WORKERS_SECONDS = 2.0
# Playbooks that run on each host independently, also after failures on other hosts.
STOPPING = ("stop", "monitoring_stop")
# Environment variable with the file of a run's events, for the callback plugin.
PROGRESS = "STREAMPULSE_PROGRESS"
#: Text between the reasons of a task that failed in several items of its loop.
BETWEEN = "; and: "
# Variable files, or JSON texts.
Extra = Sequence[Path | str]


class PlaybookError(OperatorError):
    """A playbook failed; ``failures`` are the events of the tasks that failed."""

    def __init__(self, text: str, failures: Sequence[dict[str, Any]]) -> None:
        super().__init__(text)
        self.failures = failures


@dataclass
class Progress:
    """Sums Ansible's events up for the progress lines."""

    screen: Screen
    only: str = ""
    #: The role whose tasks run, and the number of its changes.
    current: str = ""
    in_current: int = 0
    begun: float = field(default_factory=time.monotonic)
    changed: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    said: dict[str, Any] = field(default_factory=dict)
    watch: Callable[[dict[str, Any]], None] | None = None

    def take(self, event: dict[str, Any]) -> None:
        """Take in one event and show the resulting line."""
        name = self.only or part_name(str(event.get("part", "")))
        kind = event["event"]
        if self.watch:
            self.watch(event)
        if kind == "task":
            self._enter(name)
            if self.screen.console.is_terminal:
                self.screen.now(name, str(event["task"]))
        elif kind == "changed":
            self.changed += 1
            self.in_current += 1
        elif kind in ("failed", "unreachable"):
            self.failures.append(event)
        elif kind == "stats":
            self.said.update(event.get("said") or {})
        if event.get("gate") and event.get("saw"):
            self.screen.line(f"  {'gate':<{NAME_WIDTH}}{name} on {event['host']}: {event['saw']}")

    def _enter(self, name: str) -> None:
        """Show the previous role's result when another role begins."""
        if name == self.current:
            return
        self.leave()
        self.current, self.in_current, self.begun = name, 0, time.monotonic()

    def leave(self) -> None:
        """Print the line of the part that has ended, if any."""
        if self.current:
            text = f"{self.in_current} changed" if self.in_current else "as it should be"
            self.screen.part(self.current, text, time.monotonic() - self.begun)
        self.current = ""


def part_name(role: str) -> str:
    """Return the display name of a role or a play."""
    return role.rpartition(".")[2].replace("_", "-").lower()


def playbook_command(environment: Environment, playbooks: Sequence[str], extra: Extra) -> list[str]:
    """Return the command line of playbooks."""
    command = [inventory.program("ansible-playbook"), *inventory.sources(environment)]
    for item in extra:
        command += ["-e", f"@{item}" if isinstance(item, Path) else item]
    return [*command, *(f"playbooks/{each}.yml" for each in playbooks)]


def playbook_environment(playbook: str, progress: Path, root: Path | None = None) -> dict[str, str]:
    """Return the environment of a playbook's run."""
    made = {
        # Services are stopped on as many hosts as possible. Every other playbook ends at the first host that fails: the
        # rest would become a cluster without it.
        "ANSIBLE_ANY_ERRORS_FATAL": "false" if playbook in STOPPING else "true",
        **inventory.configuration(root),
        "ANSIBLE_CALLBACKS_ENABLED": "streampulse_progress",
        PROGRESS: str(progress),
    }
    found = importlib.util.find_spec("ansible_mitogen")
    if found and found.submodule_search_locations:
        # On an unchanged host five times faster than plain SSH with pipelining (docs/decisions).
        made["ANSIBLE_STRATEGY_PLUGINS"] = str(Path(found.submodule_search_locations[0]) / "plugins" / "strategy")
        made["ANSIBLE_STRATEGY"] = "mitogen_linear"
        # Suppresses ansible-core's notice about the end of strategy plugins: our version is pinned.
        made["ANSIBLE_DEPRECATION_WARNINGS"] = "false"
    return made


def play(
    environment: Environment,
    playbook: str,
    extra: Extra,
    screen: Screen,
    verbose: bool,
    *,
    then: Sequence[str] = (),
    hosts: Sequence[Host] = (),
    name: str = "",
    said: dict[str, Any] | None = None,
    check: bool = False,
    watch: Callable[[dict[str, Any]], None] | None = None,
) -> int:
    """Run a playbook and return how many changes it made.

    :param then: further playbooks of the same run, which reaches each host once.
    :param hosts: limit to these hosts; empty for all.
    :param name: show one line with this name instead of one for each role.
    :param said: receives the playbook's ``ansible.builtin.set_stats`` values.
    :param check: change nothing, and report what would change, with the difference of every file.
    :param watch: receives every event of the callback plugin.
    :raises PlaybookError: a task failed or a host could not be reached; the text has the reason and the log's path.
    """
    tools.ensure(TOOLS, "reaching the hosts", screen.line)
    logs = environment.state / "logs"
    logs.mkdir(exist_ok=True)
    log = logs / f"{playbook}{'-plan' * check}.log"
    with tempfile.TemporaryDirectory() as scratch, log.open("w", encoding="utf-8") as kept:
        give_to_invoker(logs, log)
        file = Path(scratch) / "progress"
        file.touch()
        command = playbook_command(environment, [playbook, *then], extra) + ["--check", "--diff"] * check
        if hosts:
            command += ["--limit", ",".join(host.name for host in hosts)]
        progress = Progress(screen, name, watch=watch)
        begun = time.monotonic()
        with (
            subprocess.Popen(  # noqa: S603 - a list made here, no shell
                command,
                cwd=environment.root / "ansible",
                env=program_environment(playbook_environment(playbook, file, environment.root)),
                stdin=subprocess.DEVNULL,
                stdout=None if verbose else kept,
                stderr=None if verbose else subprocess.STDOUT,
                # If this process is killed, the environment stays locked until Ansible has ended.
                pass_fds=lock.descriptors(),
            ) as process,
            file.open(encoding="utf-8") as events,
        ):
            _follow(process, events, progress)
    if process.returncode != 0:
        text = failure(progress, playbook, log, environment, process.returncode, time.monotonic() - begun)
        raise PlaybookError(text, progress.failures)
    progress.leave()
    if said is not None:
        said.update(progress.said)
    return progress.changed


def _follow(process: subprocess.Popen[bytes], events: TextIO, progress: Progress) -> None:
    rest = ""
    try:
        while True:
            ended = process.poll() is not None
            rest += events.read()
            *lines, rest = rest.split("\n")
            for line in lines:
                progress.take(json.loads(line))
            if ended:
                return
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt as error:
        # Ctrl-C reaches Ansible through the terminal; a signal to this process does not. Forward the signal, then wait
        # and hold the lock until the running task has ended.
        if isinstance(error, Terminated):
            process.send_signal(signal.SIGINT)
        try:
            process.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
        _end_workers(events.name)
        raise


def _end_workers(progress: str) -> None:
    """End the remains of an interrupted Ansible.

    Its workers run in sessions of their own. A worker that the signal did not reach, as when a closed terminal sends
    SIGHUP, waits for its ended parent for ever and holds the environment's lock.

    :param progress: this run's own event file, which every process of it has in its environment.
    """
    workers = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it has ended, or belongs to another user
            if process.environ().get(PROGRESS) == progress:
                workers.append(process)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.send_signal(number)
        _, workers = psutil.wait_procs(workers, WORKERS_SECONDS)


def failure(progress: Progress, playbook: str, log: Path, environment: Environment, code: int, seconds: float) -> str:
    """Return the text of a failed run: task, host, reason and log."""
    where = f"The whole output: {log}"
    again = f"inv up --env {environment.name}"
    if not progress.failures:
        last = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
        reason = last[-1] if last else f"exit code {code}"
        return f"{playbook}.yml failed after {took(seconds)}: {reason}. {where}"
    event = progress.failures[-1]
    what = f"{part_name(event['part'])} on {event['host']}: {event['task']}"
    if event["event"] == "unreachable":
        return (
            f"{event['host']} cannot be reached: {event['msg'].strip()}. Look: inv doctor --env {environment.name}. "
            f"{where}"
        )
    return f"{what}: {event['msg'].strip()}. {where}. When it is fixed: {again}"
