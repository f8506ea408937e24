"""The log of deploys that every host keeps, the bundles beside it, and what a host runs.

The log is one line of JSON for each event. ``begun``: a deploy began to change hosts. ``good``: its release passed
every gate and the smoke test. ``failed``: a gate or the smoke test failed. ``stopped``: another task failed. ``back``:
the release before runs again.
"""

import base64
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from streampulse.core.errors import OperatorError
from streampulse_ops import services
from streampulse_ops.cli.ownership import author
from streampulse_ops.environments.environment import Host
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts.ssh import Remote
from streampulse_ops.releases import bundle
from streampulse_ops.releases.bundle import Bundle

FOLDER = "/var/lib/streampulse/releases"
LOG = f"{FOLDER}/log.jsonl"
MARK = "====="
Result = TypeVar("Result")


@dataclass(frozen=True)
class Look:
    """What the hosts say about releases."""

    #: Events of all logs, each once, in the order of time.
    events: Sequence[Mapping[str, Any]]
    #: Hosts that have each bundle, by the release's name.
    bundles: Mapping[str, Sequence[Host]]
    #: Names of the hosts with a running service of the base stack.
    serving: Sequence[str]
    #: Whether a service of monitoring runs.
    monitored: bool

    @property
    def running(self) -> str:
        """The release that the hosts run, or ran when they were stopped; empty if the log knows none."""
        return next(
            (str(event["release"]) for event in reversed(self.events) if event["event"] in ("good", "back")), ""
        )

    @property
    def rollback(self) -> str:
        """The release that a rollback brings, empty if there is none: the one before the release that runs.

        While a deploy of another release is unfinished, it is the release that runs.
        """
        if self.unfinished and self.running:
            return self.running
        stack: list[str] = []
        for event in self.events:
            if event["event"] in ("good", "back"):
                name = str(event["release"])
                digests = [bundle.name_digest(each) for each in stack]
                if bundle.name_digest(name) in digests:
                    del stack[digests.index(bundle.name_digest(name)) :]
                stack.append(name)
        return stack[-2] if len(stack) > 1 else ""

    @property
    def unfinished(self) -> Mapping[str, Any] | None:
        """The last event, if it is not the end of a deploy."""
        last = self.events[-1] if self.events else None
        return last if last and last["event"] in ("begun", "failed", "stopped") else None

    @property
    def kafka(self) -> str:
        """Kafka's version that formatted the cluster; empty if the log knows none."""
        good = (event for event in self.events if event["event"] == "good" and event.get("manifest"))
        return next((str(event["manifest"]["kafka_metadata"]) for event in good), "")

    @property
    def oldest_schema(self) -> int:
        """The schema that a release must serve at least; of deploys that failed as well, whose migrations stay."""
        return max((int((event.get("manifest") or {}).get("oldest_schema", 0)) for event in self.events), default=0)

    def manifest(self, name: str) -> Mapping[str, Any] | None:
        """Return the manifest of a release from the log."""
        found = (event["manifest"] for event in self.events if event.get("manifest") and event["release"] == name)
        return next(found, None)

    def failed(self, digest: str) -> str:
        """Return why a release failed when it was deployed last; empty if it did not."""
        for event in reversed(self.events):
            if bundle.name_digest(str(event["release"])) == digest and event["event"] in ("good", "failed"):
                return str(event["reason"]) if event["event"] == "failed" else ""
        return ""


def on_each(session: Session, work: Callable[[Host, Remote], Result]) -> list[Result]:
    """Do something on every host at the same time, and return the results in the inventory's order."""

    def one(host: Host) -> Result:
        with Remote(session.environment, host) as remote:
            return work(host, remote)

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, session.environment.hosts))


def look(session: Session) -> Look:
    """Read the logs, the lists of bundles and the states of services from all hosts.

    :raises OperatorError: a host cannot be reached.
    """

    def one(host: Host, remote: Remote) -> tuple[Host, list[str], list[str], list[bool]]:
        def states(full: bool) -> str:
            asked = f"echo {MARK}; "
            for service in services.on_host(host):
                if service.full is full:
                    # A packaged unit without the role's drop-in is somebody else's.
                    ours = f"test -e /etc/systemd/system/{service.unit}.d/streampulse.conf && " * service.packaged
                    asked += f"{ours}systemctl is-active {service.unit}; "
            return asked

        script = f"exec 2>/dev/null; cat {LOG}; echo {MARK}; ls {FOLDER}; {states(False)}{states(True)}true"
        code, output, errors = remote.run(["sh", "-c", script], timeout=30)
        if code != 0:
            raise OperatorError(
                f"{host.name} does not say what it runs ({errors.strip() or code}): inv ssh {host.name}"
            )
        log, listing, *active = output.split(f"{MARK}\n")
        names = [name.removesuffix(".tar.gz") for name in listing.split() if name.endswith(".tar.gz")]
        return host, log.splitlines(), names, ["active" in states.split() for states in active]

    events: dict[str, dict[str, Any]] = {}
    bundles: dict[str, list[Host]] = {}
    serving, monitored = [], False
    for host, lines, names, active in on_each(session, one):
        for line in lines:
            event = _event(host, line)
            events.setdefault(f"{event['at']} {event['deploy']} {event['event']}", event)
        for name in names:
            bundles.setdefault(name, []).append(host)
        if active[0]:
            serving.append(host.name)
        monitored |= active[1]
    return Look([events[key] for key in sorted(events)], bundles, serving, monitored)


def _event(host: Host, line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
        return {**event, "at": str(event["at"]), "deploy": event["deploy"], "release": event["release"]}
    except (ValueError, KeyError, TypeError):
        raise OperatorError(f"{host.name} has a damaged line in {LOG}: remove it with inv ssh {host.name}") from None


def note(session: Session, deploy: str, event: str, release: str, **more: object) -> None:
    """Append an event to the log of every host, and remove the oldest bundles beyond the last five there."""
    line = json.dumps(
        {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "deploy": deploy,
            "event": event,
            "release": release,
            "by": author(),
            "hosts": [host.name for host in session.environment.hosts],
            **more,
        }
    )
    script = (
        f"set -e; umask 077; mkdir -p {FOLDER}; cd {FOLDER}; printf '%s\\n' {shlex.quote(line)} >> {LOG}; sync {LOG}; "
        f"ls -t | grep '[.]tar[.]gz$' | tail -n +{bundle.KEPT + 1} | xargs -r rm -f --"
    )

    def one(host: Host, remote: Remote) -> None:
        code, output, errors = remote.run(["sh", "-c", script], timeout=30)
        if code != 0:
            raise OperatorError(
                f"{host.name} did not keep the log {LOG}: {(errors or output).strip()}; inv ssh {host.name}"
            )

    on_each(session, one)


def find(session: Session, seen: Look, name: str) -> Bundle | None:
    """Return a release's bundle from this machine, else from a host, else None."""
    found = bundle.stored(session.environment, name)
    if found or name not in seen.bundles:
        return found
    with Remote(session.environment, seen.bundles[name][0]) as remote:
        code, output, _ = remote.run(["base64", f"{FOLDER}/{name}.tar.gz"], timeout=60)
    return bundle.opened(bundle.keep(session.environment, name, base64.b64decode(output))) if code == 0 else None
