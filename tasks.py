"""The tasks of streampulse. The module of a task in src/streampulse_ops/verbs has its name."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

from streampulse.core.errors import OperatorError, UsageError
from streampulse_ops.bench.options import NAMES, PEERS
from streampulse_ops.cli.console import Screen, confirm
from streampulse_ops.cli.entry import timed
from streampulse_ops.cli.ownership import explain

if TYPE_CHECKING:
    from streampulse_ops.environments.session import Session

ENV = "the environment: a folder of ansible/inventories"
FULL = "monitoring as well: Prometheus, Alertmanager, the exporters, Grafana"
VERBOSE = "show Ansible's own output"
JSON = "as JSON, for programs"
YES = "do not ask first"


def _session(env: str, verbose: bool = False) -> Session:
    # Imported when a task runs: `inv --list` and `inv --help` need none of it.
    from streampulse_ops.environments import session

    return session.open_session(env, Screen(), verbose)


@task(help={"env": ENV, "full": FULL, "verbose": VERBOSE})
@timed
def up(_context: Context, env: str = "local", full: bool = False, verbose: bool = False) -> str:
    """Bring everything up: machines, software, configuration, start, smoke test. A second run changes nothing."""
    from streampulse_ops.verbs import up as verb

    return verb.up(_session(env, verbose), full)


def _deploy(env: str, to: str, options: dict[str, bool], verbose: bool, back: bool = False) -> str:
    from streampulse_ops.verbs import deploy as verb

    return (verb.rollback if back else verb.deploy)(_session(env, verbose), verb.Options(**options), to)


DEPLOY = {
    "env": ENV,
    "full": "set monitoring up as well; where it runs, it is always included",
    "dry-run": "print the plan and change nothing",
    "diff": "also print the difference of every file, without secrets",
    "force": "also a release that failed before",
    "yes": "go on where there is no bundle of the running release to go back to",
    "verbose": VERBOSE,
}


@task(
    help={
        **DEPLOY,
        "to": "a release by name, from inv releases; this checkout without",
        "prove": "first count beside the running job, and refuse a release that differs; always on where protected",
        "unproved": "go on where the release could not be proved",
    }
)
@timed
def deploy(
    _context: Context,
    env: str = "local",
    to: str = "",
    full: bool = False,
    dry_run: bool = False,
    diff: bool = False,
    force: bool = False,
    yes: bool = False,
    prove: bool = False,
    unproved: bool = False,
    verbose: bool = False,
) -> str:
    """Bring this checkout to the hosts, one at a time behind gates; if one fails, go back to the release before."""
    options = {"full": full, "dry_run": dry_run, "diff": diff, "force": force, "yes": yes}
    return _deploy(env, to, {**options, "prove": prove, "unproved": unproved}, verbose)


@task(help={**DEPLOY, "to": "a release by name, from inv releases; the one before without"})
@timed
def rollback(
    _context: Context,
    env: str = "local",
    to: str = "",
    full: bool = False,
    dry_run: bool = False,
    diff: bool = False,
    force: bool = False,
    yes: bool = False,
    verbose: bool = False,
) -> str:
    """Deploy an older release from its bundle; refused where that would lose something."""
    options = {"full": full, "dry_run": dry_run, "diff": diff, "force": force, "yes": yes}
    return _deploy(env, to, options, verbose, back=True)


@task(help={"env": ENV, "json": JSON})
@timed
def releases(_context: Context, env: str = "local", json: bool = False) -> str:
    """List the deploys: time, release, person, hosts, good or failed."""
    from streampulse_ops.verbs import releases as verb

    return verb.show(_session(env), json)


SERVICE = {
    "service": "its name, as inv status shows it",
    "env": ENV,
    "host": "only on this host",
    "dry-run": "only say what would be done",
    "verbose": VERBOSE,
}


def _change(action: str, service: str, env: str, verbose: bool, **options: Any) -> str:
    from streampulse_ops.verbs import service as verb

    return verb.change(_session(env, verbose), service, action, **options)


@task(positional=["service"], help=SERVICE)
@timed
def start(
    _context: Context, service: str, env: str = "local", host: str = "", dry_run: bool = False, verbose: bool = False
) -> str:
    """Start a service on its hosts, with the files of the running release, and wait until it is ready."""
    return _change("start", service, env, verbose, host=host, dry_run=dry_run)


@task(positional=["service"], help=SERVICE)
@timed
def stop(
    _context: Context, service: str, env: str = "local", host: str = "", dry_run: bool = False, verbose: bool = False
) -> str:
    """Stop a service on its hosts; its data stays. Alerts on it are for `inv silence`."""
    return _change("stop", service, env, verbose, host=host, dry_run=dry_run)


@task(positional=["service"], help={**SERVICE, "rolling": "one host at a time, each behind its gate"})
@timed
def restart(
    _context: Context,
    service: str,
    env: str = "local",
    host: str = "",
    rolling: bool = False,
    dry_run: bool = False,
    verbose: bool = False,
) -> str:
    """Restart a service on its hosts and wait until it is ready."""
    return _change("restart", service, env, verbose, host=host, rolling=rolling, dry_run=dry_run)


@task(
    help={
        "env": ENV,
        "host": "only this host",
        "reboot": "also hosts that get no newer package and wait for no reboot",
        "dry-run": "only say which hosts would change",
        "verbose": VERBOSE,
    }
)
@timed
def upgrade(
    _context: Context,
    env: str = "local",
    host: str = "",
    reboot: bool = False,
    dry_run: bool = False,
    verbose: bool = False,
) -> str:
    """Bring Debian's packages up to date and reboot, one host at a time, each behind its gates."""
    from streampulse_ops.verbs import upgrade as verb

    return verb.upgrade(_session(env, verbose), host, reboot, dry_run)


@task(
    help={
        "env": ENV,
        "full": FULL,
        "wipe": "remove all state, and the machines that are ours",
        "yes": YES,
        "verbose": VERBOSE,
    }
)
@timed
def down(
    _context: Context,
    env: str = "local",
    full: bool = False,
    wipe: bool = False,
    yes: bool = False,
    verbose: bool = False,
) -> str:
    """Stop the services in reverse order and halt the machines that are ours; the data is kept."""
    from streampulse_ops.verbs import down as verb

    session = _session(env, verbose)
    if wipe:
        command = f"inv down{' --full' * full} --wipe --yes --env {env}"
        what = "events, numbers and machines" if session.ours else "events and numbers"
        confirm(f"This removes all {what} of {env}.", yes, command, session.environment.typed)
    return verb.down(session, full, wipe)


@task(
    help={
        "env": ENV,
        "full": FULL,
        "dry-run": "only say what would be done",
        "keep": "what is left alone, separated by commas: kafka, postgres, checkpoints, metrics",
        "yes": YES,
        "verbose": VERBOSE,
    }
)
@timed
def reset(
    _context: Context,
    env: str = "local",
    full: bool = False,
    dry_run: bool = False,
    keep: str | None = None,
    yes: bool = False,
    verbose: bool = False,
) -> str:
    """Remove events, checkpoints and rows together, start again, smoke test."""
    from streampulse_ops.verbs import reset as verb

    session, left = _session(env, verbose), verb.kept(keep)
    plan = verb.plan(session, full, left)
    if dry_run:
        for line in plan:
            session.screen.line(line)
        return "nothing was changed"
    command = f"inv reset{' --full' * full}{f' --keep {keep}' if left else ''} --yes --env {env}"
    confirm(verb.question(session, full, left), yes, command, session.environment.typed)
    return verb.reset(session, full, left)


@task(help={"env": ENV, "full": "promises and budgets, what fires, lag and freshness as well", "json": JSON})
@timed
def status(_context: Context, env: str = "local", full: bool = False, json: bool = False) -> None:
    """Show each service's state, since when, its CPU, memory and version; exit 1 when one is down or an alert pages."""
    from streampulse_ops.verbs import status as verb

    session = _session(env)
    (verb.show_full if full else verb.show)(session, verb.collect(session), json)


@task(help={"env": ENV, "every": "seconds between two looks", "once": "one look, as it is where there is no terminal"})
@timed
def top(_context: Context, env: str = "local", every: int = 5, once: bool = False) -> None:
    """Show what `status --full` shows, again and again in the same place, until Ctrl-C."""
    from streampulse_ops.verbs import top as verb

    verb.show(_session(env), every, once)


@task(
    help={
        "env": ENV,
        "for_": "how long: 30m, 2h, 1h30m, 1d",
        "reason": "reason, for colleagues",
        "alert": "only this alert",
        "service": "only alerts of this service",
        "host": "only alerts of this host",
        "all_": "every alert but Watchdog",
        "expire": "end this silence now; the first characters of its identity are enough",
        "dry-run": "only say what would be done",
        "json": JSON,
    }
)
@timed
def silence(
    _context: Context,
    env: str = "local",
    for_: str = "",
    reason: str = "",
    alert: str = "",
    service: str = "",
    host: str = "",
    all_: bool = False,
    expire: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> str | None:
    """Keep alerts quiet during maintenance; without options, list the silences that there are."""
    from streampulse_ops.verbs import silence as verb

    return verb.run(_session(env), verb.Wish(for_, reason, alert, service, host, all_, expire, dry_run), json)


@task(
    positional=["action"],
    help={
        "action": "test",
        "severity": "page, ticket or info",
        "env": ENV,
        "dry-run": "only say who would be notified",
    },
)
@timed
def alert(_context: Context, action: str, severity: str = "page", env: str = "local", dry_run: bool = False) -> str:
    """Send one alert of a severity through Alertmanager to its receivers, say what they answer, and end it."""
    from streampulse_ops.verbs import alert as verb

    if action != "test":
        raise UsageError(f"{action} is nothing that can be done with alerts: inv alert test")
    return verb.test(_session(env), severity, dry_run)


@task(
    help={
        "env": ENV,
        "json": JSON,
        "mute": "a code, such as SP-KAFKA-004, that is no fault for a while",
        "for_": "how long it is muted: 12h, 7d",
        "reason": "reason of muting, for colleagues",
        "bundle": "look at this archive of inv support-bundle instead of the hosts",
    }
)
@timed
def doctor(
    _context: Context,
    env: str = "local",
    json: bool = False,
    mute: str = "",
    for_: str = "",
    reason: str = "",
    bundle: str = "",
) -> str:
    """Find faults, each with its code, cause and fix; exit 1 when there is one, 3 when it could not look everywhere."""
    from streampulse_ops.verbs import doctor as verb
    from streampulse_ops.verbs import mutes, support_bundle

    if bundle:
        if mute or for_ or reason:
            raise UsageError("--bundle looks at an archive; leave out --mute, --for and --reason")
        return verb.show(Screen(), support_bundle.findings(Path(bundle), Screen()), json)
    session = _session(env)
    if mute or for_ or reason:
        return mutes.mute(session, mute, for_, reason)
    return verb.show(session.screen, verb.examine(session), json)


@task(
    help={
        "since": "how far back the journals and metrics go: 30m, 2h, 1d",
        "env": ENV,
        "dry-run": "only say what would be collected",
    }
)
@timed
def support_bundle(_context: Context, since: str = "2h", env: str = "local", dry_run: bool = False) -> str:
    """Collect journals, configuration, findings and metrics in one archive, without secrets and host names."""
    from streampulse_ops.verbs import support_bundle as verb

    return verb.make(_session(env), since, dry_run)


@task(
    positional=["action", "name"],
    help={
        "action": "list, show, validate or run",
        "name": "the runbook's name, or an alert's",
        "env": ENV + "; validate looks at its hosts, and show prints its proof, only when it is named",
        "host": "the host that the alert names; without it every host of a step's group",
        "from_": "the step to begin with",
        "step": "only this step",
        "apply": "also run the steps that change something, each after a question",
        "yes": YES,
    },
)
@timed
def runbook(
    _context: Context,
    action: str,
    name: str | None = None,
    env: str = "",
    host: str = "",
    from_: int = 1,
    step: int = 0,
    apply: bool = False,
    yes: bool = False,
) -> str:
    """List, show, check (validate) or run the runbooks; run stops at the first unexpected result."""
    from streampulse_ops.runbooks.run import Options
    from streampulse_ops.verbs import runbook as verb

    if action == "list":
        return verb.listed(Screen())
    if action == "show":
        return verb.show(Screen(), name or "", _session(env) if env else None)
    if action == "validate":
        return verb.check(Screen(), (lambda: _session(env)) if env else None)
    if action != "run":
        raise UsageError(f"{action} is nothing that can be done with a runbook: inv runbook list")
    return verb.run(_session(env or "local"), name or "", Options(host, from_, step, apply, yes))


@task(
    positional=["name"],
    help={
        "name": "a drill; several separated by commas, broken together; or all",
        "env": ENV,
        "dry-run": "only print what would be broken",
        "control": "before the runbook, wait and see that the alert still fires; all does this always",
        "record": "write the proofs into docs/runbooks/proofs.yml, for this repository's own machines",
    },
)
@timed
def drill(
    _context: Context, name: str, env: str = "local", dry_run: bool = False, control: bool = False, record: bool = False
) -> str:
    """Break an environment on purpose: the alert must come, doctor name the cause, and the runbook repair it."""
    from streampulse_ops.verbs import drill as verb

    return verb.drill(_session(env), name, dry_run, control or name == "all", record)


@task(
    positional=["service"],
    help={
        "service": "its name; all of them without",
        "env": ENV,
        "follow": "also what comes",
        "lines": "the newest so many, of all together",
        "since": "nothing older: 10m, today, 09:30, '2026-01-31 09:30', a printed time; UTC",
        "level": "nothing of less weight: err, warning, notice, info",
    },
)
@timed
def logs(
    _context: Context,
    service: str | None = None,
    env: str = "local",
    follow: bool = False,
    lines: int = 100,
    since: str = "",
    level: str = "",
) -> str | None:
    """Print the journal of a service, or of all services of all hosts in the order of time."""
    from streampulse_ops.verbs import logs as verb

    return verb.show(_session(env), service or "", verb.Wish(follow, lines, since, level))


@task(positional=["topic"], help={"topic": "its name; the events' without", "n": "how many records", "env": ENV})
@timed
def peek(_context: Context, topic: str | None = None, n: int = 3, env: str = "local") -> None:
    """Print the newest records of a topic."""
    from streampulse_ops.verbs import peek as verb

    verb.peek(_session(env), topic or "", n)


@task(
    name="open",
    positional=["what"],
    help={
        "what": "api, docs, spark, worker, spark-job, prometheus, alertmanager, grafana",
        "env": ENV,
        "tunnel": "through SSH",
    },
)
@timed
def open_(_context: Context, what: str | None = None, env: str = "local", tunnel: bool = False) -> None:
    """Print the address of a page or a user interface, or open a tunnel to it."""
    from streampulse_ops.verbs import open as verb

    verb.page(_session(env), what or "api", tunnel)


@task(positional=["host"], help={"host": "its name; the first without", "env": ENV})
@timed
def ssh(_context: Context, host: str | None = None, env: str = "local") -> None:
    """Log in to a host."""
    from streampulse_ops.verbs import ssh as verb

    verb.shell(_session(env), host or "")


@task(
    positional=["action"],
    iterable=["set_"],
    help={
        "action": "list, show or replay",
        "where": "conditions: reason=late,stream=my-stream,since=2h; since is a duration or an instant",
        "set_": "replay: change a field first, FIELD=VALUE; may be repeated",
        "n": "show: how many, the newest",
        "dry-run": "replay: only predict what each letter would become",
        "env": ENV,
    },
)
@timed
def dlq(
    _context: Context,
    action: str,
    where: str = "",
    set_: list[str] | None = None,
    n: int = 3,
    dry_run: bool = False,
    env: str = "local",
) -> str | None:
    """Count dead letters (list), print the newest (show), or send them again as predicted (replay)."""
    from streampulse_ops.verbs import dlq as verb

    return verb.run(_session(env), action, where, set_ or [], n, dry_run)


@task(
    positional=["partition", "offset"],
    help={
        "partition": "the record's partition; list: the records that are excluded",
        "offset": "the record's offset",
        "reason": "future (its time is wrong), or unreadable",
        "dry-run": "only say what would be done",
        "env": ENV,
    },
)
@timed
def exclude(
    _context: Context,
    partition: str,
    offset: str | None = None,
    reason: str = "",
    dry_run: bool = False,
    env: str = "local",
) -> str | None:
    """Exclude one record of the topic: at once if it is not counted yet, else with the next recount."""
    from streampulse_ops.verbs import exclude as verb

    return verb.run(_session(env), partition, offset, reason, dry_run)


@task(positional=["query"], help={"query": "what to ask; without it psql opens", "env": ENV})
@timed
def sql(_context: Context, query: str | None = None, env: str = "local") -> None:
    """Ask PostgreSQL as the role that may only read; docs/sql.md has questions."""
    from streampulse_ops.verbs import sql as verb

    verb.run(_session(env), query or "")


@task(
    positional=["event_id"],
    help={
        "event_id": "the event's UUID",
        "stream": "its stream: only that partition is read",
        "since": "it arrived since: a duration (2h) or an instant (2026-01-31T09:30:00Z)",
        "env": ENV,
    },
)
@timed
def trace(_context: Context, event_id: str, stream: str = "", since: str = "", env: str = "local") -> None:
    """Show what happened to an event: when it was stamped and counted, and its row, dead letter or duplicate."""
    from streampulse_ops.verbs import trace as verb

    verb.run(_session(env), event_id, stream, since)


@task(help={"env": ENV})
@timed
def verify(_context: Context, env: str = "local") -> None:
    """Recompute every number from the raw topic and compare."""
    from streampulse_ops.verbs import verify as verb

    verb.verify(_session(env))


@task(help={"env": ENV, "dry-run": "only say what would change", "yes": YES + "; the history is counted once then"})
@timed
def recount(_context: Context, env: str = "local", dry_run: bool = False, yes: bool = False) -> str:
    """Count the history again from the oldest record in Kafka, show what would change, and swap it in."""
    from streampulse_ops.verbs import recount as verb

    return verb.recount(_session(env), dry_run, yes)


@task(help={"env": ENV, "full": "also ask Prometheus whether it reads every target"})
@timed
def smoke(_context: Context, env: str = "local", full: bool = False) -> None:
    """Send a few events of its own, expect exactly their numbers everywhere, and remove them."""
    from streampulse_ops.verbs import smoke as verb

    session = _session(env)
    verb.smoke(session)
    if full:
        verb.targets(session)


@task(help={"env": ENV, "verify": "hash every file again", "relock": "write artifacts.lock.yml from artifacts.yml"})
@timed
def artifacts(_context: Context, env: str = "local", verify: bool = False, relock: bool = False) -> str:
    """Fetch and build the hosts' software, checked against its pins."""
    from streampulse_ops.verbs import artifacts as verb

    return verb.relock(Screen()) if relock else verb.fetch(env, Screen(), verify)


@task(
    positional=["action", "name"],
    help={
        "action": "new, secrets, or check",
        "name": "the environment's name",
        "write": "write the secrets into the vault, encrypted with ANSIBLE_VAULT_PASSWORD_FILE",
    },
)
@timed
def env(_context: Context, action: str, name: str, write: bool = False) -> str | None:
    """Make an environment (new NAME), print or --write fresh secrets (secrets NAME), check its hosts (check NAME)."""
    from streampulse_ops.environments import environment, secrets
    from streampulse_ops.verbs import doctor
    from streampulse_ops.verbs import env as verb

    if action == "new":
        return f"write your hosts into {verb.new(name)}"
    if action == "check":
        session = _session(name)
        session.screen.line(session.headline())
        return doctor.show(session.screen, verb.check(session), as_json=False)
    if action != "secrets":
        raise UsageError(f"{action} is nothing that can be done with an environment: inv env new NAME")
    if write:
        return f"fresh secrets are in {secrets.write_vault(environment.load(name))}"
    environment.load(name)
    print(secrets.as_yaml(), end="")  # noqa: T201 - for a pipe
    # The closing line of other tasks would go into the pipe too.
    raise Exit(code=0)


@task
@timed
def lint(_context: Context) -> str:
    """Run every linter."""
    from streampulse_ops.quality import suite as quality

    return quality.lint(Screen())


@task(
    name="test",
    positional=["only"],
    optional=["changed"],
    help={
        "only": "what pytest gets instead of everything, as one word",
        "changed": "only what a change can have touched: since a commit, else since the branch left upstream or main",
    },
)
def run_tests(_context: Context, only: str | None = None, changed: str | bool | None = None) -> None:
    """Run the linters and every test, as CI does; the last line is the summary."""
    from streampulse_ops.quality import suite as quality

    try:
        code = quality.test(Screen(), shlex.split(only or ""), changed)
    except OperatorError as error:
        raise Exit(f"test: {error}", code=1) from None
    except OSError as error:
        raise Exit(f"test: {explain(error)}", code=1) from None
    raise Exit(code=code)


@task(help={"update": "take another version of one package: NAME=VERSION"})
@timed
def vendor(_context: Context, update: str | None = None) -> str:
    """Fetch the pages' vendored files from the npm registry, checked against their pins."""
    from streampulse_ops.quality import vendor as vendoring

    return vendoring.run(Screen(), update)


@task(help={"check": "change nothing, exit 1 when a file is stale"})
@timed
def docs(_context: Context, check: bool = False) -> str:
    """Write the generated files: reference pages and the JSON of Grafana's dashboards."""
    from streampulse_ops import paths
    from streampulse_ops.docs import pages

    stale = pages.stale(paths.repository())
    if stale and check:
        raise OperatorError(f"stale: {', '.join(stale)}. Make them again: {pages.COMMAND}")
    pages.write(paths.repository(), stale)
    return f"written: {', '.join(stale)}" if stale else "every file is as the code says"


@task(
    help={
        "env": "an environment that is not there yet; it is made, filled and removed",
        "only": f"measurements, separated by commas: {', '.join(NAMES)}; with --peers, peers: {', '.join(PEERS)}",
        "peers": "instead, race the job against other stream processors on this machine, without an environment",
        "out": "folder for bench.json and bench.md",
        "compare": "the bench.json of an earlier run, to show ratios to",
        "keep-machine": "leave the machine there, with its data",
        "seconds": "how long each steady load is measured",
        "rates": "of the latency, in events per second",
        "backlog": "events to catch up with",
        "repeats": "how often the job is started; with --peers, rounds",
        "days": "simulated days after which growth is measured",
    }
)
@timed
def bench(
    _context: Context,
    env: str = "bench",
    only: str = "",
    peers: bool = False,
    out: str = "",
    compare: str = "",
    keep_machine: bool = False,
    seconds: int = 60,
    rates: str = "300,3000,10000",
    backlog: int = 2_000_000,
    repeats: int = 3,
    days: str = "1,7,30",
) -> str:
    """Measure the real stack in an environment of its own and hold it against its limits; exit 1 when one is missed."""
    from streampulse_ops.bench import options, run

    asked = options.Options(
        only=options.names("only", only, PEERS if peers else NAMES),
        rates=options.numbers("rates", rates),
        seconds=options.positive("seconds", seconds),
        backlog=options.positive("backlog", backlog),
        repeats=options.positive("repeats", repeats),
        days=tuple(sorted(options.numbers("days", days))),
        # A relative path starts at the caller's folder, which is Invoke's working directory.
        out=Path(out) if out else None,
        compare=Path(compare) if compare else None,
        keep_machine=keep_machine,
    )
    if peers:
        from streampulse_ops.bench.race.race import race

        return race(Screen(), asked)
    return run.run(_session(env), asked)
