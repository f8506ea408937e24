"""``inv silence``: silences for maintenance, checked here and made by every monitoring host."""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streampulse.core.errors import OperatorError, UsageError
from streampulse.host.slo import silence
from streampulse_ops import services
from streampulse_ops.cli.ownership import author
from streampulse_ops.environments.environment import Host
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts import command, monitoring
from streampulse_ops.monitoring import rules

#: Subjects of alerts that are no services.
OTHERS = ("host", "slo")


@dataclass(frozen=True)
class Wish:
    """The options as they were typed."""

    duration: str = ""
    reason: str = ""
    alert: str = ""
    service: str = ""
    host: str = ""
    everything: bool = False
    #: The silence to end; None without the option. An empty text is refused: a shell variable may be unset.
    expire: str | None = None
    dry_run: bool = False

    def words(self, session: Session) -> list[str]:
        """Return the arguments of the host's own command.

        :raises UsageError: the options contradict each other, or name an alert or a service that does not exist.
        """
        if self.expire is not None:
            if not self.expire.strip():
                raise UsageError("--expire names no silence: inv silence lists them, then inv silence --expire ID")
            if self != Wish(expire=self.expire, dry_run=self.dry_run):
                raise UsageError("--expire ends a silence; leave the other options out: inv silence --expire ID")
            return ["--expire", self.expire]
        if self == Wish(dry_run=self.dry_run):
            if self.dry_run:
                raise UsageError("--dry-run of what? inv silence --for 30m --reason TEXT --host NAME --dry-run")
            return []
        seconds = silence.seconds_of(self.duration)
        silence.matchers(self.alert, self.service, self.host, everything=self.everything)
        reason = silence.why(self.reason)
        if self.alert:
            known(self.alert, sorted({alert.name for alert in rules.alerts()}), "an alert")
        if self.service:
            known(self.service, [*(each.name for each in services.all_services()), *OTHERS], "a service")
        if self.host:
            # Another environment may have this host, so the usage is right.
            known(
                self.host, [host.name for host in session.environment.hosts], f"a host of {session.name}", OperatorError
            )
        words = ["--for", f"{seconds}s", "--reason", reason, "--author", author()]
        for option, value in (("--alert", self.alert), ("--service", self.service), ("--host", self.host)):
            words += [option, value] if value else []
        return [*words, *(["--all"] if self.everything else [])]


def run(session: Session, wish: Wish, as_json: bool) -> str | None:
    """Make, list or end silences on every monitoring host, print the result, and return the closing words.

    :raises UsageError: the options make no sense.
    :raises OperatorError: it could not be done, or not everywhere; the text says where.
    """
    words = wish.words(session)
    hosts = session.environment.require_group("monitoring")
    more = ["--dry-run"] if wish.dry_run else []
    if wish.expire is not None:
        answers = _end(session, hosts, wish.expire, more)
    else:
        answers = {}
        for host in hosts:
            # When a host refuses, the hosts before it are silent already; the error names the one that is not.
            answers[host.name] = _ask(session, host, [*words, *more])
    if as_json:
        session.screen.console.print_json(json.dumps(answers))
    else:
        for line in lines(answers):
            session.screen.line(f"  {line}")
    return "nothing was changed" if wish.dry_run else None


def lines(answers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the hosts' answers as lines: once when they agree, else each line with its host."""
    said = {name: silence.said(answer) for name, answer in answers.items()}
    # A silence's identity, the first word of its line, differs from host to host.
    shown = {name: [line.partition(" ")[2] for line in each] for name, each in said.items()}
    first = next(iter(said.values()), [])
    if all(each == next(iter(shown.values())) for each in shown.values()):
        return first
    return [f"{name}: {line}" for name, each in said.items() for line in each]


def _end(session: Session, hosts: Sequence[Host], text: str, more: Sequence[str]) -> dict[str, dict[str, Any]]:
    """End the silence with the given identity, and its twins on the other hosts."""
    standing = {host.name: [silence.Silence(**item) for item in _ask(session, host, [])["silences"]] for host in hosts}
    try:
        one = silence.chosen([each for listed in standing.values() for each in listed], text)
    except OperatorError as error:
        raise OperatorError(command.with_environment(str(error), session.name)) from None
    ended = {}
    for host in hosts:
        listed = standing[host.name]
        for each in [one] if one in listed else [each for each in listed if silence.together(each, one)]:
            ended[host.name] = _ask(session, host, ["--expire", each.identity, *more])
    return ended


def _ask(session: Session, host: Host, words: Sequence[str]) -> dict[str, Any]:
    code, output, errors = command.run(
        session, host, ["silence", *words, "--json"], full=True, timeout=monitoring.ANSWER_SECONDS
    )
    if code != 0:
        text = command.with_environment(command.said(code, "", errors), session.name)
        raise UsageError(text) if code == command.WRONG_USAGE else OperatorError(f"{host.name}: {text}")
    try:
        answer = dict(json.loads(output))
        silence.said(answer)
    except (ValueError, KeyError, TypeError):
        raise OperatorError(f"{host.name} does not answer as it should: inv up --full --env {session.name}") from None
    return answer


def known(name: str, names: Iterable[str], what: str, error: type[OperatorError] = UsageError) -> None:
    """Refuse an unknown name: a silence about it would silence nothing.

    :param error: the class of the error; its text has the most similar name, or all names.
    """
    listed = list(names)
    if name not in listed:
        near = difflib.get_close_matches(name, listed, n=1, cutoff=0.5)
        raise error(
            f"{name} is not {what}. " + (f"Did you mean {near[0]}?" if near else f"There are: {', '.join(listed)}")
        )
