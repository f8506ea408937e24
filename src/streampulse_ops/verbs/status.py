"""``inv status``: a table of the services on each host: state, since when, CPU, memory, version."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace

from rich.table import Table

from streampulse.core.errors import OperatorError
from streampulse_ops import services
from streampulse_ops.environments.environment import Host
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts import monitoring
from streampulse_ops.hosts.reach import RefusedError
from streampulse_ops.hosts.ssh import Remote
from streampulse_ops.services import Service
from streampulse_ops.verbs import report as reports

# One round trip, for pairs of a unit and the source of its version: a link, or the name of a package. The script prints
# systemd's view of the unit, the proportional memory of its processes, the version, and twice, a second apart, the
# processor time of each process; parse() reads its output. Control groups of version 1 count neither for a unit.
SCRIPT = r"""
export LC_ALL=C.UTF-8 TZ=UTC
# The time, and by process its ticks of processor time. The second field may hold spaces and brackets.
ticks() {
  cut -d ' ' -f 1 /proc/uptime | tr '\n' ' '
  for pid; do cat "/proc/$pid/stat" 2>/dev/null; done |
    awk '{pid = $1; sub(/^.*[)] /, ""); printf "%s:%s ", pid, $12 + $13}'
}
later=
while [ $# -gt 0 ]; do
  unit=$1 version=$2
  shift 2
  # The job's shards, where it has several, come last.
  if [ "$unit" = streampulse-job.service ]; then
    for shard in $(systemctl list-units --all --plain --no-legend 'streampulse-job@*.service' | awk '{print $1}'); do
      set -- "$@" "$shard" "$version"
    done
  fi
  echo "== $unit"
  name=$unit
  case $unit in
    # With a pattern, `show` leaves out units that are not active.
    *'*'*) found=$(systemctl list-units --all --plain --no-legend "$unit" | awk 'NR == 1 {print $1}')
           unit=${found:-$unit} ;;
  esac
  systemctl show "$unit" --property=Id,ActiveState,SubState,ActiveEnterTimestamp,StateChangeTimestamp \
    --property=ControlGroup,MainPID,FragmentPath,DropInPaths
  group=$(systemctl show --property=ControlGroup --value "$unit" | head -n 1)
  kib=0 pids=
  if [ -n "$group" ]; then
    for hierarchy in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
      [ -d "$hierarchy$group" ] || continue
      pids=$(find "$hierarchy$group" -name cgroup.procs -exec cat {} + | tr '\n' ' ')
      for pid in $pids; do
        part=$(awk '/^Pss:/ {print $2}' "/proc/$pid/smaps_rollup" 2>/dev/null)
        kib=$((kib + ${part:-0}))
      done
      break
    done
  fi
  echo "PssKiB=$kib"
  echo "Ticks=$(ticks $pids)"
  later="$later$name $pids
"
  case $version in
    /*) version=$(basename "$(readlink "$version")") ;;
    *) version=$(dpkg-query -W -f '${db:Status-Abbrev} ${Version}\n' "$version" 2>/dev/null |
         awk '$1 == "ii" {sub(/[+-].*/, "", $2); print $2; exit}') ;;
  esac
  echo "Version=$version"
done
sleep 1
printf %s "$later" | while read -r name pids; do
  echo "== $name"
  echo "TicksLater=$(ticks $pids)"
done
"""
#: Of the kernel, for each second.
TICKS = 100

# States of the host, shown for each of its services.
DOWN = "machine is down"
UNKNOWN = "host cannot be asked"
ANSWER_SECONDS = 60.0
# Folder of the project's units and drop-ins. Monitoring without one was not set up by the project.
OURS = "/etc/systemd/system/"


@dataclass(frozen=True)
class Row:
    """One service on one host."""

    service: str
    host: str
    state: str
    since: str
    memory_mib: int
    version: str
    #: The reason why the host could not be asked.
    why: str = ""
    #: Percent of one core, over the second of the look.
    cpu_percent: int = 0

    @property
    def healthy(self) -> bool:
        """Whether the service runs."""
        return self.state == "active (running)"

    @property
    def entry(self) -> Service:
        """The list's entry: a shard is the job."""
        return services.named(self.service.partition("@")[0])


def collect(session: Session) -> list[Row]:
    """Ask every host at the same time, and return a row for each of its services, in the order of starting.

    Monitoring has rows where the host says that it has been set up, so it has none on a host that is down.
    """
    hosts = session.environment.hosts
    with ThreadPoolExecutor(len(hosts)) as pool:
        return [row for rows in pool.map(lambda host: _of_host(session, host), hosts) for row in rows]


def _of_host(session: Session, host: Host) -> list[Row]:
    listed, base = services.on_host(host), services.base_on_host(host)
    try:
        if not listed:
            return []
        if not session.provider.running(host):
            return [Row(service.name, host.name, DOWN, "", 0, "") for service in base]
        return parse(host, listed, _ask(session, host, listed))
    except OperatorError as error:
        # Go on with the other hosts.
        state = error.state if isinstance(error, RefusedError) else UNKNOWN
        return [Row(service.name, host.name, state, "", 0, "", str(error)) for service in base]


def _ask(session: Session, host: Host, listed: list[Service]) -> str:
    with Remote(session.environment, host) as remote:
        code, output, errors = remote.run(
            ["sh", "-c", SCRIPT, "status", *(word for service in listed for word in (service.unit, service.version))],
            timeout=ANSWER_SECONDS,
        )
    if code != 0:
        raise OperatorError(f"{host.name} did not answer the question ({errors.strip()})")
    return output


def parse(host: Host, listed: list[Service], output: str) -> list[Row]:
    """Read the output of SCRIPT."""
    sections: dict[str, dict[str, str]] = {}
    for block in output.split("== ")[1:]:
        title, _, rest = block.partition("\n")
        found = dict(line.partition("=")[::2] for line in rest.splitlines() if "=" in line)
        sections.setdefault(title.strip(), {}).update(found)
    rows = []
    shards = [unit for unit in sections if unit.startswith("streampulse-job@")]
    named = [
        each
        for service in listed
        for each in (
            service,
            *(replace(service, name=f"job@{unit[16:-8]}", unit=unit) for unit in shards if service.name == "job"),
        )
    ]
    for service in named:
        found = sections.get(service.unit, {})
        if service.full and OURS not in found.get("FragmentPath", "") + found.get("DropInPaths", ""):
            continue
        running = found.get("ActiveState") in ("active", "reloading")
        state = f"{found.get('ActiveState', 'not installed')} ({found.get('SubState', '')})"
        if "ActiveState" not in found:
            state = "not installed"
        # A running unit's StateChangeTimestamp also moves on reload.
        since = found.get("ActiveEnterTimestamp" if running else "StateChangeTimestamp", "")
        rows.append(
            Row(
                service.name,
                host.name,
                state,
                # systemd writes the day of the week in front.
                since.partition(" ")[2] or since,
                round(int(found.get("PssKiB", "0")) / 1024),
                found.get("Version", ""),
                cpu_percent=_percent(found.get("Ticks", ""), found.get("TicksLater", "")),
            )
        )
    return rows


def _percent(before: str, after: str) -> int:
    """Return the processor time between two looks in percent of one core, of processes that were there twice."""
    (began, *old), (ended, *new) = (text.split() or ["0"] for text in (before, after))
    then = dict(each.split(":") for each in old)
    ticks = sum(int(count) - int(then[pid]) for pid, count in (each.split(":") for each in new) if pid in then)
    seconds = float(ended) - float(began)
    return round(100 * ticks / TICKS / seconds) if seconds > 0 else 0


def show(session: Session, rows: list[Row], as_json: bool) -> None:
    """Print the table, or the same as JSON.

    :raises OperatorError: something is down; the text names it.
    """
    if as_json:
        session.screen.console.print_json(json.dumps([asdict(row) for row in rows]))
    else:
        session.screen.console.print(table(rows))
    wrong = _down(session, rows)
    if wrong:
        raise OperatorError(wrong)


def show_full(session: Session, rows: list[Row], as_json: bool) -> None:
    """Print the table and the report of the monitoring host, or the same as JSON.

    :raises OperatorError: something is down, an alert pages, or monitoring cannot be asked; the text says which.
    """
    report, unknown = None, ""
    try:
        report = monitoring.require(session)
    except OperatorError as error:
        unknown = str(error)
    if as_json:
        document = {"services": [asdict(row) for row in rows], "monitoring": report.document() if report else None}
        session.screen.console.print_json(json.dumps(document))
    else:
        session.screen.console.print(table(rows))
        if report:
            session.screen.line("")
            session.screen.console.print(reports.shown(report, session.name))
    firing = reports.pages(report) if report else []
    alarm = f"firing: {', '.join(firing)}. Why: inv doctor --env {session.name}" if firing else ""
    wrong = [text for text in (_down(session, rows), alarm, unknown) if text]
    if wrong:
        raise OperatorError(". ".join(wrong))


def _down(session: Session, rows: list[Row]) -> str:
    """Return which services do not run and what to do about it; empty when all do."""
    down = [f"{row.service} on {row.host}" for row in rows if not row.healthy]
    flag = f"--env {session.name}"
    reasons = "".join(f"{why}. " for why in sorted({row.why for row in rows if row.why}))
    full = "--full " * any(row.entry.full for row in rows if not row.healthy)
    start = f"Why: inv doctor {flag}; start: inv up {full}{flag}"
    return f"not running: {', '.join(down)}. {reasons}{start}" if down else ""


def table(rows: list[Row]) -> Table:
    """Return the services as a table."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("service", "state", "since", "cpu", "memory", "version", "host"):
        made.add_column(heading, justify="right" if heading in ("cpu", "memory") else "left", no_wrap=True)
    for row in rows:
        style = None if row.healthy else "red"
        memory = f"{row.memory_mib} MiB" if row.memory_mib else ""
        cpu = f"{row.cpu_percent} %" if row.memory_mib else ""
        made.add_row(row.service, row.state, row.since, cpu, memory, row.version, row.host, style=style)
    total = [f"{sum(row.cpu_percent for row in rows)} %", f"{sum(row.memory_mib for row in rows)} MiB"]
    made.add_row("", "", "", *total, "", "")
    return made
