"""``streampulse clock``: whether this host's clock is right enough for a broker, whose stamps decide what is late.

A broker that starts with a wrong clock stamps events with it for good. The command compares the clock with servers of
NTP; where none answers, with the clocks of the deployment's other hosts, by the ``Date`` header of their services.
"""

import argparse
import email.utils
import json
import queue
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import ntplib

from streampulse.core import http
from streampulse.core.errors import OperatorError, one_line

#: A clock that differs by more than this, in seconds, is wrong.
LIMIT_SECONDS: Final = 60.0
_ANSWER_SECONDS: Final = 2.0
#: The leap indicator of a server that is not synchronised itself.
_UNSYNCHRONISED: Final = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``streampulse clock``."""
    parser.add_argument(
        "file",
        type=Path,
        help="JSON: time_servers, a list of NTP servers, and hosts, the URLs of each other host's services",
    )


def run(arguments: argparse.Namespace) -> int:
    """Compare the clock and print the result. Without any answer, that is a warning.

    :raises OperatorError: the clock is wrong, or the file is missing or malformed.
    """
    is_wrong, text = compared(arguments.file)
    if is_wrong:
        raise OperatorError(
            f"this host's clock is wrong: other clocks differ from it ({text}). The broker starts by itself once the "
            "clock is right: timedatectl set-ntp true"
        )
    if text:
        sys.stdout.write(f"the clock is right: {text}\n")
    else:
        sys.stderr.write("warning: this host's clock is not checked: no other clock answers\n")
    return 0


def compared(file: Path) -> tuple[bool, str]:
    """Return whether this host's clock is wrong, and by how much each clock that answers is ahead of it.

    :param file: JSON, as the command takes it.
    :raises OperatorError: it is missing or malformed.
    """
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        servers = {str(each): [str(each)] for each in known["time_servers"]}
        hosts = {str(name): [str(url) for url in urls] for name, urls in known["hosts"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise OperatorError(f"{file} cannot be read ({one_line(error)}): inv up writes it") from None
    found = _differences(servers, _ntp)
    is_wrong = abs(statistics.median(found.values())) > LIMIT_SECONDS if found else False
    if not found:
        found = _differences(hosts, _date)
        is_wrong = 2 * len([each for each in found.values() if abs(each) > LIMIT_SECONDS]) > len(found)
    return is_wrong, ", ".join(f"{name} {seconds:+.1f} s" for name, seconds in sorted(found.items()))


def _differences(clocks: dict[str, list[str]], ask: Callable[[str], float]) -> dict[str, float]:
    """Return how far each clock that answers in time is ahead of this host's, in seconds.

    :param clocks: the addresses at which each clock can be asked; the first answer counts.
    """
    answers: queue.Queue[tuple[str, float | None]] = queue.Queue()

    def first(name: str, addresses: Iterable[str]) -> None:
        for address in addresses:
            try:
                return answers.put((name, ask(address)))
            except (OSError, ValueError, LookupError, TypeError, ntplib.NTPException):
                continue
        return answers.put((name, None))

    # The lookup of a name has no time limit, so a thread may outlast its use.
    for name, addresses in clocks.items():
        threading.Thread(target=first, args=(name, addresses), daemon=True).start()
    found: dict[str, float] = {}
    deadline = time.monotonic() + _ANSWER_SECONDS
    for _ in clocks:
        try:
            name, seconds = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if seconds is not None:
            found[name] = seconds
    return found


def _ntp(server: str) -> float:
    """Return how far a server of NTP is ahead, in seconds (RFC 5905)."""
    name, _, port = server.rpartition(":") if server.count(":") == 1 else (server, "", "ntp")
    answer = ntplib.NTPClient().request(name, version=4, port=port, timeout=_ANSWER_SECONDS)
    if answer.leap == _UNSYNCHRONISED:
        raise ValueError("the server is not synchronised itself")
    return float(answer.offset)


def _date(url: str) -> float:
    """Return how far the ``Date`` of an answer is ahead, in seconds. A ``Date`` has whole seconds (RFC 9110)."""
    begun = time.time()
    answer = http.get(url, seconds=_ANSWER_SECONDS)
    middle = (begun + time.time()) / 2
    return email.utils.parsedate_to_datetime(answer.headers["Date"]).timestamp() + 0.5 - middle
