"""``streampulse silence``: silence as few alerts as needed during maintenance."""

import argparse
import datetime
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from streampulse.core.errors import OperatorError, UsageError
from streampulse.host.slo.report import DEAD_MAN
from streampulse.host.slo.server import Alertmanager, NotFound, monitoring

#: Maximum duration. A longer need is a decision to change a rule.
LONGEST_SECONDS: Final = 30 * 86400
EXAMPLES: Final = "30m, 2h, 1h30m, 1d"
_DURATION: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_SIZES: Final = (86400, 3600, 60, 1)
#: Minimum length of an id's prefix. A shorter one easily matches another silence.
_SHORTEST_IDENTITY: Final = 4
#: Hosts are asked one after the other.
_SAME_SECONDS: Final = 60
#: Every alert that notifies people. The dead man's switch is excluded: its receiver alarms when it is silent.
EVERYTHING: Final = {"name": "severity", "value": "page|ticket", "isRegex": True, "isEqual": True}


@dataclass(frozen=True)
class Silence:
    """One silence: its matchers, start and end in seconds since the epoch, author and comment."""

    identity: str
    about: str
    state: str
    begins: float
    ends: float
    author: str
    reason: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``streampulse silence``."""
    parser.add_argument("--for", dest="duration", metavar="TIME", help=f"how long: {EXAMPLES}")
    parser.add_argument("--reason", metavar="TEXT", help="reason, for colleagues")
    parser.add_argument("--author", metavar="NAME", help="who")
    parser.add_argument("--alert", metavar="NAME", help="only this alert")
    parser.add_argument("--service", metavar="NAME", help="only alerts of this service")
    parser.add_argument("--host", metavar="NAME", help="only alerts of this host")
    parser.add_argument("--all", action="store_true", help=f"every alert but {DEAD_MAN}")
    parser.add_argument("--expire", metavar="ID", help="end this silence now; the first characters are enough")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")


def run(arguments: argparse.Namespace) -> int:
    """Create, list or end silences.

    :raises UsageError: the options contradict each other.
    :raises OperatorError: Alertmanager does not answer, or did not do what it was asked for.
    """
    wanted = None
    if arguments.expire is None and (arguments.duration or arguments.reason or selecting(arguments)):
        wanted = (
            seconds_of(arguments.duration),
            matchers(arguments.alert, arguments.service, arguments.host, everything=arguments.all),
            why(arguments.reason),
        )
    alertmanager = Alertmanager(monitoring())
    answer: dict[str, Any]
    if arguments.expire is not None:
        answer = {"ended": asdict(expire(alertmanager, arguments.expire, dry_run=arguments.dry_run))}
    elif wanted is not None:
        answer = make(alertmanager, *wanted, author=arguments.author or "root", dry_run=arguments.dry_run)
    else:
        answer = {"silences": [asdict(silence) for silence in standing(alertmanager.silences())]}
    if arguments.json:
        sys.stdout.write(json.dumps(answer) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in said(answer))
    return 0


def selecting(arguments: argparse.Namespace) -> bool:
    """Return whether the options select alerts."""
    return bool(arguments.alert or arguments.service or arguments.host or arguments.all)


def seconds_of(text: str | None, option: str = "--for") -> int:
    """Return a duration in seconds.

    :param option: the option that has it, for the messages.
    :raises UsageError: it is not a duration, or too long for maintenance.
    """
    if not text:
        raise UsageError(f"how long? Write {option} with one of {EXAMPLES}, or the like")
    found = _DURATION.fullmatch(text.strip().lower().replace(" ", ""))
    if found is None or not any(found.groups()):
        raise UsageError(f"{option} {text} is not a duration: write numbers with d, h, m or s, such as {EXAMPLES}")
    seconds = sum(int(number or 0) * size for number, size in zip(found.groups(), _SIZES, strict=True))
    if seconds <= 0:
        raise UsageError(f"{option} {text} is no time at all: write {EXAMPLES}, or the like")
    if seconds > LONGEST_SECONDS:
        raise UsageError(
            f"{option} {text} is more than 30 days, which is no maintenance any more: change the rule instead"
        )
    return seconds


def why(reason: str | None) -> str:
    """Return the reason in one line.

    :raises UsageError: it is missing.
    """
    text = " ".join((reason or "").split())
    if not text:
        raise UsageError("why? Write --reason 'new disks in kafka-1', so that colleagues know why nothing rings")
    return text


def matchers(alert: str | None, service: str | None, host: str | None, *, everything: bool) -> list[dict[str, Any]]:
    """Return a silence's matchers in Alertmanager's form.

    :raises UsageError: nothing is selected, or everything and a part.
    """
    named = {"alertname": alert, "service": service, "host": host}
    chosen = [
        {"name": name, "value": value, "isRegex": False, "isEqual": True} for name, value in named.items() if value
    ]
    if everything and chosen:
        raise UsageError("--all and --alert, --service or --host: which of the two?")
    if everything:
        return [EVERYTHING]
    if not chosen:
        raise UsageError("silent about what? --alert NAME, --service NAME, --host NAME, several of them, or --all")
    if alert == DEAD_MAN:
        raise UsageError(f"{DEAD_MAN} says that alerts arrive at all: its receiver alarms when it is silent")
    return chosen


def make(
    alertmanager: Alertmanager,
    seconds: int,
    wanted: Sequence[Mapping[str, Any]],
    reason: str,
    *,
    author: str,
    dry_run: bool,
) -> dict[str, Any]:
    """Create a silence, read it back, and return it with the firing alerts that it matches.

    :param dry_run: only return the silence that would be created.
    :raises OperatorError: Alertmanager does not answer, or holds a different silence.
    """
    begins = datetime.datetime.now(datetime.UTC)
    ends = begins + datetime.timedelta(seconds=seconds)
    document = {
        "matchers": [dict(matcher) for matcher in wanted],
        "startsAt": begins.isoformat(),
        "endsAt": ends.isoformat(),
        "createdBy": author,
        "comment": reason,
    }
    firing = sorted({_name(item["labels"]) for item in alertmanager.alerts() if fits(wanted, item["labels"])})
    if dry_run:
        silence = Silence("", about(wanted), "not made", begins.timestamp(), ends.timestamp(), author, reason)
        return {"made": asdict(silence), "firing": firing, "dry_run": True}
    identity = alertmanager.make_silence(document)
    try:
        kept = alertmanager.silence(identity)
    except NotFound:
        raise OperatorError(f"Alertmanager took the silence {identity} and does not have it: inv silence") from None
    silence = read(kept)
    as_asked = (_plain(kept["matchers"]), silence.author, silence.reason) == (_plain(wanted), author, reason)
    if not as_asked or silence.state == "expired" or abs(silence.ends - ends.timestamp()) > 1:
        raise OperatorError(f"Alertmanager has the silence {identity} otherwise than asked for: inv silence")
    return {"made": asdict(silence), "firing": firing, "dry_run": False}


def expire(alertmanager: Alertmanager, text: str, *, dry_run: bool) -> Silence:
    """End a silence, read it back, and return it.

    :param text: its id, or a prefix of it.
    :raises OperatorError: no silence or several match, or Alertmanager did not end it.
    """
    found = chosen(standing(alertmanager.silences()), text)
    if dry_run:
        return found
    alertmanager.end_silence(found.identity)
    ended = read(alertmanager.silence(found.identity))
    if ended.state != "expired":
        raise OperatorError(f"Alertmanager did not end the silence {found.identity}: inv logs alertmanager")
    return ended


def chosen(known: Sequence[Silence], text: str) -> Silence:
    """Return the one silence whose id has this prefix.

    :raises OperatorError: no silence or several match.
    """
    found = [silence for silence in known if silence.identity.startswith(text.strip().lower())]
    if len(text.strip()) < _SHORTEST_IDENTITY or len(found) != 1:
        listed = ", ".join(short(silence.identity) for silence in known) or "none"
        what = "is more than one" if len(found) > 1 else "is not a silence that stands"
        raise OperatorError(f"{text or 'an empty text'} {what}. There are: {listed}. See: inv silence")
    return found[0]


def together(one: Silence, other: Silence) -> bool:
    """Return whether two silences of two Alertmanagers come from one command."""
    same = (one.about, one.author, one.reason) == (other.about, other.author, other.reason)
    return same and abs(one.ends - other.ends) < _SAME_SECONDS


def standing(found: Iterable[Mapping[str, Any]]) -> list[Silence]:
    """Return the silences that have not ended, the earliest end first."""
    silences = [read(item) for item in found]
    return sorted((silence for silence in silences if silence.state != "expired"), key=lambda each: each.ends)


def read(item: Mapping[str, Any]) -> Silence:
    """Parse a silence from Alertmanager's API."""
    return Silence(
        str(item["id"]),
        about(item["matchers"]),
        str(item["status"]["state"]),
        _seconds(str(item["startsAt"])),
        _seconds(str(item["endsAt"])),
        str(item.get("createdBy", "")),
        " ".join(str(item.get("comment", "")).split()),
    )


def about(wanted: Sequence[Mapping[str, Any]]) -> str:
    """Return a silence's matchers in words."""
    if _plain(wanted) == _plain([EVERYTHING]):
        return f"every alert but {DEAD_MAN}"
    words = {"alertname": "alert"}
    parts = []
    for matcher in wanted:
        equal = matcher.get("isEqual", True)
        sign = {(True, False): " ", (False, False): " not ", (True, True): " like ", (False, True): " not like "}
        name = str(matcher["name"])
        parts.append(f"{words.get(name, name)}{sign[equal, bool(matcher.get('isRegex'))]}{matcher['value']}")
    return ", ".join(parts)


def fits(wanted: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> bool:
    """Return whether a silence matches an alert."""
    for matcher in wanted:
        value = labels.get(str(matcher["name"]), "")
        pattern = str(matcher["value"]) if matcher.get("isRegex") else re.escape(str(matcher["value"]))
        if bool(re.fullmatch(pattern, value)) != bool(matcher.get("isEqual", True)):
            return False
    return True


def short(identity: str) -> str:
    """Return the short form of an id."""
    return identity.partition("-")[0]


def said(answer: Mapping[str, Any]) -> list[str]:
    """Return a result as lines."""
    if "ended" in answer:
        ended = Silence(**answer["ended"])
        verb = "is ended" if ended.state == "expired" else "would be ended"
        return [f"{short(ended.identity)} {verb}: {ended.about}"]
    if "made" in answer:
        made = Silence(**answer["made"])
        head = "would be silent" if answer["dry_run"] else f"{short(made.identity)} is silent"
        lines = [f"{head} about {made.about} until {_clock(made.ends)} ({made.reason}, {made.author})"]
        firing = answer["firing"]
        lines.append(f"of what fires now: {', '.join(firing) if firing else 'nothing'}")
        return lines
    silences = [Silence(**item) for item in answer["silences"]]
    return [
        f"{short(silence.identity)} {silence.state} until {_clock(silence.ends)}: {silence.about} "
        f"({silence.reason}, {silence.author})"
        for silence in silences
    ] or ["no silences"]


def _clock(seconds: float) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M} UTC"


def _seconds(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


def _plain(wanted: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, bool, bool]]:
    return sorted(
        (str(each["name"]), str(each["value"]), bool(each.get("isRegex")), bool(each.get("isEqual", True)))
        for each in wanted
    )


def _name(labels: Mapping[str, str]) -> str:
    host = labels.get("host")
    return labels.get("alertname", "") + (f" on {host}" if host else "")
