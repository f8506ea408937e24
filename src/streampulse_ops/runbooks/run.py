"""Walk the steps of a runbook: show each, run it on its hosts, judge its result, and write a transcript."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from streampulse.core.errors import OperatorError, UsageError
from streampulse_ops import paths
from streampulse_ops.cli.console import confirm, took
from streampulse_ops.cli.entry import INCOMPLETE
from streampulse_ops.cli.ownership import give_to_invoker
from streampulse_ops.command import program_environment
from streampulse_ops.environments import masking
from streampulse_ops.environments.environment import Host
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts.ssh import Remote
from streampulse_ops.runbooks.page import ANY_HOST, CONTROL, FOLDER, Runbook, Step

#: Seconds between two attempts of a step with ``retry``.
PAUSE_SECONDS: Final = 2.0


@dataclass(frozen=True)
class Options:
    """The options of ``inv runbook run``.

    :param host: the host that the alert names. A step of a group that has not this host runs on the group's hosts.
    :param first: the step to begin with.
    :param only: the one step to run; 0: all.
    """

    host: str = ""
    first: int = 1
    only: int = 0
    apply: bool = False
    yes: bool = False


class Transcript:
    """The file that records a run, with secrets masked."""

    def __init__(self, session: Session, book: Runbook) -> None:
        """Make the file.

        :raises OperatorError: the environment's secrets, which are to be masked, cannot be read.
        """
        self._masks = masking.of(session.environment)
        folder = session.environment.state / "runbooks"
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / f"{book.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.log"
        self.file.touch(mode=0o600)
        give_to_invoker(folder, self.file)

    def write(self, text: str) -> None:
        """Append a text with its time."""
        with self.file.open("a", encoding="utf-8") as handle:
            handle.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {self._masks.apply(text)}\n")


class Walk:
    """One run of a page in an environment."""

    def __init__(self, session: Session, book: Runbook, options: Options) -> None:
        """Check the options and begin the transcript.

        :raises UsageError: a step does not exist.
        :raises OperatorError: the host does not exist, or the secrets cannot be read.
        """
        for number in (options.first, options.only):
            if not 0 <= number <= len(book.steps):
                raise UsageError(f"{book.name} has the steps 1 to {len(book.steps)}: inv runbook show {book.name}")
        names = [host.name for host in session.environment.hosts]
        if options.host and options.host not in names:
            raise OperatorError(f"{options.host} is not a host of {session.name}. There are: {', '.join(names)}")
        self.session, self.book, self.options = session, book, options
        self.transcript = Transcript(session, book)
        self.done = self.skipped = self.unexpected = 0

    def run(self) -> str:
        """Walk the steps and return the closing words.

        :raises OperatorError: a result was unexpected and the page names no step that goes on from there; or steps that
            would repair what is wrong were not run.
        """
        number = self.options.only or self.options.first or 1
        self.transcript.write(f"runbook {self.book.name} in {self.session.name}, from step {number}")
        while number <= len(self.book.steps):
            step = self.book.steps[number - 1]
            number = self._step(step)
            if self.options.only:
                break
        words = f"{self.done} steps as expected, {self.unexpected} not, {self.skipped} not run"
        words += f"; transcript: {self.transcript.file}"
        if self.unexpected and self.skipped and not self.options.apply:
            command = self._again(self.options.first or 1, apply=True)
            raise OperatorError(f"nothing was changed: {command} runs the steps that change something ({words})")
        return words

    def _step(self, step: Step) -> int:
        """Run one step on its hosts and return the number of the next step."""
        hosts = self._hosts(step)
        places = ", ".join(host.name if host else "control machine" for host in hosts) or f"no host of {step.host}"
        kind = "changes something" if step.changes else "looks"
        self._say(f"step {step.number} of {len(self.book.steps)} · {step.section} · {places} · {kind}")
        for line in [*step.text.splitlines(), *(f"    $ {each}" for each in step.script.splitlines())]:
            self._say(f"  {line}")
        if not hosts or (step.changes and not self.options.apply):
            self.skipped += 1
            self._say("  not run: no host" if not hosts else "  not run: it changes something (--apply)")
            return step.number + 1
        if step.changes:
            question = f"Step {step.number} of {self.book.name} changes something on {places}."
            confirm(question, self.options.yes, self._again(step.number, apply=True) + " --yes")
        for host in hosts:
            began = time.monotonic()
            wrong = self._attempt(step, host)
            name = host.name if host else "control machine"
            self._say(f"  {name}: {wrong or 'as expected'} ({took(time.monotonic() - began)})")
            if wrong:
                self.unexpected += 1
                return self._otherwise(step, name, wrong)
        self.done += 1
        if not step.following or self.options.only:
            return step.number + 1
        self._say(f"  the page {'ends here' if step.following == 'end' else f'goes on at step {step.following}'}")
        return len(self.book.steps) + 1 if step.following == "end" else int(step.following)

    def _otherwise(self, step: Step, name: str, wrong: str) -> int:
        """Return the step at which the page goes on after an unexpected result.

        :raises OperatorError: it names none; the text says what the page says next.
        """
        if step.otherwise.isdigit() and not self.options.only:
            self._say(f"  the page goes on at step {step.otherwise}")
            return int(step.otherwise)
        following = step.number + 1
        if step.otherwise and not step.otherwise.isdigit():
            follow = f"the page goes on with {step.otherwise}: inv runbook run {step.otherwise}{self._flags()}"
        else:
            said = self.book.after[step.number]
            more = self._again(following) if following <= len(self.book.steps) else f"{FOLDER}/{self.book.name}.md"
            follow = f"the page says next: {said}\n  Go on: {more}" if said else f"Go on: {more}"
        self.transcript.write(follow)
        raise OperatorError(
            f"step {step.number} ({FOLDER}/{self.book.name}.md:{step.line}) on {name}: {wrong}. Transcript: "
            f"{self.transcript.file}\n  {follow}"
        )

    def _again(self, number: int, apply: bool = False) -> str:
        flags = self._flags(apply or self.options.apply)
        return f"inv runbook run {self.book.name}{flags}" + (f" --from {number}" if number > 1 else "")

    def _flags(self, apply: bool = False) -> str:
        host = f" --host {self.options.host}" if self.options.host else ""
        return f"{self.session.flag}{host}{' --apply' * apply}"

    def _hosts(self, step: Step) -> list[Host | None]:
        """Return the hosts of a step; None is the control machine.

        :raises OperatorError: the step is about the host that the alert names, and there are several.
        """
        environment = self.session.environment
        if step.host == CONTROL:
            return [None]
        hosts = list(environment.hosts) if step.host == ANY_HOST else list(environment.in_group(step.host))
        named: list[Host | None] = [host for host in hosts if host.name == self.options.host]
        if named:
            return named
        if step.host == ANY_HOST and len(hosts) > 1:
            raise OperatorError(
                f"step {step.number} is about the host that the alert names: add --host and one of "
                f"{', '.join(host.name for host in hosts)}"
            )
        return list(hosts)

    def _attempt(self, step: Step, host: Host | None) -> str:
        """Run a step until its result is as expected or its time for retries is over; return what is wrong."""
        until = time.monotonic() + step.retry
        while True:
            wrong = self._once(step, host)
            if not wrong or time.monotonic() + PAUSE_SECONDS > until:
                return wrong
            time.sleep(PAUSE_SECONDS)

    def _once(self, step: Step, host: Host | None) -> str:
        try:
            code, output = self._there(step, host) if host else self._here(step)
        except OperatorError as error:
            return str(error)
        self.transcript.write(f"{host.name if host else CONTROL} exit code {code}\n{output}")
        if step.expect is not None and not step.expect.search(output):
            return f"no line of the output matches {step.expect.pattern}"
        # A question such as `systemctl is-active` has a code for each answer, and a task has one for a missing optional
        # part.
        if code != 0 and (step.expect is None or (step.changes and (host or code != INCOMPLETE))):
            return f"exit code {code}"
        return ""

    def _there(self, step: Step, host: Host) -> tuple[int, str]:
        with Remote(self.session.environment, host) as remote:
            code, output, errors = remote.run(["sh", "-ec", step.script], timeout=step.timeout, live=True)
        return code, output + errors

    def _here(self, step: Step) -> tuple[int, str]:
        process = subprocess.Popen(  # noqa: S603 - a block of a page of this checkout
            ["/bin/sh", "-ec", step.script],
            cwd=paths.repository(),
            env=program_environment({"ENV": self.session.name, "HOST": self.options.host}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        late = threading.Event()

        def end() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGTERM)

        timer = threading.Timer(step.timeout, end)
        timer.start()
        lines = []
        try:
            for line in process.stdout or ():
                sys.stdout.write(line)
                lines.append(line)
            code = process.wait()
        except KeyboardInterrupt:
            os.killpg(process.pid, signal.SIGTERM)
            raise
        finally:
            timer.cancel()
        if late.is_set():
            raise OperatorError(f"it did not end within {step.timeout} s")
        return code, "".join(lines)

    def _say(self, text: str) -> None:
        self.session.screen.line(text)
        self.transcript.write(text)
