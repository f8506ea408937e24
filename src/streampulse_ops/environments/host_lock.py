"""The lock on the hosts, against tasks from other control machines.

A process on each host holds it, at the end of an SSH session of its own. The task sends it a heartbeat every 5 s and
gets an answer. The process releases the lock 15 s after the last heartbeat, and at the end of the session. A task that
gets no answer stops before that.
"""

import contextlib
import json
import os
import select
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO

from streampulse.core.errors import OperatorError
from streampulse_ops.command import last_words, program_environment
from streampulse_ops.environments import lock
from streampulse_ops.environments.environment import Environment
from streampulse_ops.hosts import ssh
from streampulse_ops.hosts.reach import LOGIN_SECONDS, NoAnswerError

FILE = "/run/streampulse.lock"
BEAT_SECONDS = 5.0
#: Longest wait for the answer to a heartbeat. With the time between two, it is at most RELEASE_SECONDS.
ANSWER_SECONDS = 10.0
RELEASE_SECONDS = 15
#: Options of an SSH session of its own: a shared connection would outlive the task, or end it.
OWN_SESSION = ("-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "BatchMode=yes")
#: Program of the holding process. Arguments: the file, the text about the holder, seconds without a heartbeat.
PROGRAM = """\
exec 9<>"$1" || exit
flock -n 9 || { echo "held by $(cat "$1")"; exit; }
printf '%s\\n' "$2" >"$1"
echo taken
while read -r -t "$3" _; do echo; done
: >"$1"
"""


@dataclass(frozen=True)
class Command:
    """The command that runs the holding process on a host, and the first line of its input."""

    words: Sequence[str]
    first_line: str = ""


@dataclass
class Locks:
    """The locks that a task holds, by host."""

    environment: str
    #: Why the task must stop; empty while it holds every lock.
    lost: str = ""
    _held: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    def take(self, host: str, command: Command) -> None:
        """Take the lock of one host and begin to send heartbeats.

        :raises OperatorError: another task holds it, or the host did not run the program.
        """
        # The session is not in the terminal's process group: Ctrl-C ends the task first.
        process = subprocess.Popen(  # noqa: S603 - a list made here
            command.words,
            env=program_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._held[host] = process
        stdin, stdout, stderr = _pipes(process)
        stdin.write(command.first_line)
        stdin.flush()
        answer = stdout.readline() if select.select([stdout], [], [], LOGIN_SECONDS)[0] else ""
        if answer.startswith("held by "):
            raise OperatorError(
                f"{lock.described(self.environment, answer.removeprefix('held by '))} It is held on {host}."
            )
        if answer != "taken\n":
            process.kill()
            raise OperatorError(f"the lock on {host} cannot be taken: {last_words(stderr.read(), process.wait())}")
        threading.Thread(target=self._beat, args=(host, process), daemon=True).start()

    def _beat(self, host: str, process: subprocess.Popen[str]) -> None:
        stdin, stdout, _ = _pipes(process)
        while not self._over.wait(BEAT_SECONDS):
            try:
                stdin.write("\n")
                stdin.flush()
                answered = bool(select.select([stdout], [], [], ANSWER_SECONDS)[0] and stdout.readline())
            except OSError:
                answered = False
            if not answered and not self._over.is_set():
                again = "when the host answers, the same command completes what was begun"
                self.lost = f"the lock on {host} was lost, so the task has stopped; {again}"
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def release(self) -> None:
        """Release every lock."""
        self._over.set()
        for process in self._held.values():
            with contextlib.suppress(OSError):
                _pipes(process)[0].close()
        for process in self._held.values():
            try:
                process.wait(BEAT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str], IO[str]]:
    assert process.stdin  # noqa: S101 - all three are pipes
    assert process.stdout  # noqa: S101
    assert process.stderr  # noqa: S101
    return process.stdin, process.stdout, process.stderr


@contextlib.contextmanager
def held(environment: str, commands: Mapping[str, Command]) -> Iterator[None]:
    """Hold the locks of hosts while the body runs.

    :param commands: by host, in the order of the inventory. The first host decides between two tasks.
    :raises OperatorError: another task holds a lock, with its user, machine, task and time; or a lock was lost.
    """
    locks = Locks(environment)
    try:
        first, *others = commands
        locks.take(first, commands[first])
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda host: locks.take(host, commands[host]), others))
        yield
    except KeyboardInterrupt:
        if locks.lost:
            raise OperatorError(locks.lost) from None
        raise
    finally:
        locks.release()


def commands(environment: Environment, task: str) -> tuple[dict[str, Command], list[str]]:
    """Return the command of each host, and the names of the hosts that do not answer.

    :raises OperatorError: a login or sudo is refused.
    """
    holder = json.dumps(lock.holder(task))
    found, silent = dict[str, Command](), list[str]()
    for host in environment.hosts:
        login = ssh.login(environment, host)
        try:
            password = ssh.reached(environment, host).sudo_password
        except NoAnswerError:
            silent.append(host.name)
            continue
        program = ["bash", "-c", PROGRAM, "streampulse-lock", FILE, holder, str(RELEASE_SECONDS)]
        words = shlex.join(login.as_root(program, typed=bool(password)))
        found[host.name] = Command([*login.command(*OWN_SESSION), words], f"{password}\n" if password else "")
    return found, silent
