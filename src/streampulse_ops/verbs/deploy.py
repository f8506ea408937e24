"""``inv deploy`` and ``inv rollback``: a release on its hosts, behind gates; if one fails, the release before again."""

import dataclasses
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streampulse.core.errors import IncompleteError, OperatorError
from streampulse.host import SMOKE_SECONDS
from streampulse_ops import ansible, artifacts, services
from streampulse_ops.cli.console import confirm, took
from streampulse_ops.environments import secrets
from streampulse_ops.environments.session import Session, changing
from streampulse_ops.hosts import command
from streampulse_ops.hosts.reach import NoAnswerError
from streampulse_ops.releases import bundle, history, plan
from streampulse_ops.releases.bundle import Bundle
from streampulse_ops.releases.history import Look
from streampulse_ops.verbs import alert
from streampulse_ops.verbs.smoke import smoke

#: `set_stats` key under which a role reports optional components that it could not install, with the reason.
MISSING = "streampulse_missing"
#: Part of a run that changes nothing.
PREFLIGHT = "preflight"


@dataclass(frozen=True)
class Options:
    """The options of a deploy."""

    full: bool = False
    dry_run: bool = False
    diff: bool = False
    force: bool = False
    yes: bool = False
    prove: bool = False
    unproved: bool = False


@dataclass(frozen=True)
class Release:
    """A release that is ready to be applied: its bundle, the session with its playbooks, the file about artifacts."""

    bundle: Bundle
    session: Session
    facts: Path


def deploy(session: Session, options: Options, to: str = "") -> str:
    """Deploy this checkout, or a release by name, and return the closing words.

    :param to: name of the release; empty for this checkout.
    :raises OperatorError: it was refused or failed; in the latter case the release before runs again.
    """
    if to:
        bundle.check_name(to)
    options = dataclasses.replace(options, prove=options.prove or bool(session.environment.typed))
    return _on_hosts(session, options, "inv deploy", lambda seen: _named(session, seen, to) if to else made(session))


def rollback(session: Session, options: Options, to: str = "") -> str:
    """Deploy the release before the one that runs, or an older one by name, and return the closing words.

    :raises OperatorError: there is none, or it was refused or failed.
    """
    if to:
        bundle.check_name(to)

    def chosen(seen: Look) -> Bundle:
        if not to and not seen.rollback:
            raise OperatorError(
                f"no other release than {seen.running or 'the present one'} was good on {session.name}: "
                f"inv releases{session.flag}"
            )
        return _named(session, seen, to or seen.rollback)

    return _on_hosts(session, options, "inv rollback", chosen)


def _on_hosts(session: Session, options: Options, task: str, choose: Callable[[Look], Bundle]) -> str:
    """Deploy the release that is chosen after a look at the hosts, and return the closing words.

    :raises IncompleteError: optional components could not be installed.
    """
    session.screen.line(session.headline())
    if session.never_made:
        raise OperatorError(f"{session.name} has no machines: inv up --env {session.name}")
    for host in session.environment.hosts if session.ours else ():
        session.require_running(host)
    secrets.file_for(session.environment)
    with changing(session, task):
        seen = history.look(session)
        full = options.full or seen.monitored
        if full:
            session.environment.require_group("monitoring")
        target = prepare(session, choose(seen))
        changed, missing = roll_out(session, target, dataclasses.replace(options, full=full), seen)
    words = "nothing was changed" if options.dry_run else f"{changed} changed · {target.bundle.name}"
    return whole(session, words, missing)


def made(session: Session) -> Bundle:
    """Make the bundle of this checkout.

    :raises OperatorError: the environment is protected and the checkout has changes that are not committed.
    """
    found = bundle.make(session.environment, services.shards(session.environment))
    if session.environment.typed and "-dirty-" in found.name:
        raise OperatorError(f"{session.name} is protected and this checkout has uncommitted changes: git status")
    return found


def _named(session: Session, seen: Look, name: str) -> Bundle:
    """Return a release's bundle.

    :raises OperatorError: neither this machine nor a host has it.
    """
    found = history.find(session, seen, name)
    if not found:
        raise OperatorError(f"neither this machine nor a host has the bundle of {name}: inv releases{session.flag}")
    return found


def prepare(session: Session, chosen: Bundle) -> Release:
    """Unpack a release, and fetch or build the artifacts of the hosts."""
    own = dataclasses.replace(session, environment=chosen.environment(session.environment))
    file = session.environment.state / "artifacts.json"
    with session.screen.step("artifacts") as step:
        pythons, machine = artifacts.pythons_of(own.environment), artifacts.architecture_of(own.environment)
        prepared = artifacts.prepare(pythons, machine, step.note, own.environment.release)
        step.done(prepared.summary())
    artifacts.write_facts(prepared, file)
    return Release(chosen, own, file)


def roll_out(session: Session, target: Release, options: Options, seen: Look) -> tuple[int, dict[str, str]]:
    """Bring a release to its hosts; return the number of changes, and the missing components with the reasons.

    Where the hosts serve, they change one at a time behind gates. Where they run nothing, everything starts together.

    :raises OperatorError: it was refused, or it failed. After a failure on hosts that serve, the release before runs.
    """
    missing: dict[str, str] = {}
    before = seen.running
    # A first start that was interrupted is no service yet. Only a deploy on hosts that serve notes what ran before.
    interrupted = bool(seen.events) and not any("before" in event for event in seen.events)
    rolling = bool(seen.serving) and (bool(before) or not interrupted)
    back = None
    if rolling:
        back = _way_back(session, seen, options)
    _refuse(session, target.bundle, options, seen)
    if rolling:
        planned = _plan(target, options, before, missing)
        same = bundle.name_digest(before) == target.bundle.digest
        if same and not options.dry_run and not planned and not seen.unfinished:
            smoke(session)
            return 0, missing
        _prove(target, options, before)
    elif options.dry_run:
        hosts = ", ".join(host.name for host in session.environment.hosts)
        session.screen.line(f"plan: {target.bundle.name} is installed on {hosts}, and everything starts together")
    if options.dry_run:
        return 0, missing
    if not rolling:
        return start_together(session, target, options.full, first=not seen.events)
    deploy_id = uuid.uuid4().hex
    history.note(session, deploy_id, "begun", target.bundle.name, before=before, manifest=target.bundle.manifest)
    began = time.monotonic()
    try:
        changed = configure(target, options.full, missing, rolling=True)
        smoke(session)
    except OperatorError as error:
        failures = error.failures if isinstance(error, ansible.PlaybookError) else []
        away = isinstance(error, NoAnswerError) or any(event["event"] == "unreachable" for event in failures)
        if away or not back:
            raise
        if failures and all(event["part"] == PREFLIGHT for event in failures):
            history.note(session, deploy_id, "back", before)
            raise
        raise _gone_back(session, target, back, options, deploy_id, error, time.monotonic() - began) from None
    _mark_good(session, deploy_id, target.bundle, options.full)
    return changed, missing


def _refuse(session: Session, wanted: Bundle, options: Options, seen: Look) -> None:
    """Refuse a release that failed here before, or that cannot follow the one that runs.

    :raises OperatorError: it is refused; the text says why.
    """
    reason = seen.failed(wanted.digest)
    if reason and not options.force:
        raise OperatorError(f"{wanted.name} failed here before ({reason}): correct it, or deploy it again with --force")
    reason = bundle.why_not(wanted.manifest, seen.manifest(seen.running), seen.oldest_schema, seen.kafka)
    if reason:
        raise OperatorError(f"{wanted.name} cannot follow {seen.running}: {reason}. inv releases{session.flag}")


def start_together(
    session: Session, target: Release, full: bool, seconds: int = 0, *, first: bool = False
) -> tuple[int, dict[str, str]]:
    """Bring a release to hosts that run nothing; return what :func:`roll_out` returns.

    :param seconds: the longest wait of the smoke test; 0 for its own limit.
    :param first: the hosts have no log of deploys yet.
    """
    deploy_id, missing = uuid.uuid4().hex, dict[str, str]()
    if first and not session.ours:
        # Before the first line of the log: hosts that the checks refuse stay as they were.
        extra: ansible.Extra = [target.facts, *variables(session, full, release=target.bundle)]
        ansible.play(target.session.environment, "check", extra, session.screen, session.verbose)
    history.note(session, deploy_id, "begun", target.bundle.name, manifest=target.bundle.manifest)
    changed = configure(target, full, missing)
    smoke(session, seconds)
    _mark_good(session, deploy_id, target.bundle, full)
    return changed, missing


def _way_back(session: Session, seen: Look, options: Options) -> Release | None:
    """Return the release that runs, to go back to, and complete a way back to it that was interrupted.

    :returns: None if a person agrees to go on without it.
    :raises OperatorError: there is no bundle of it, and nobody agreed.
    """
    found = history.find(session, seen, seen.running) if seen.running else None
    if found:
        back, left = Release(found, session, Path()), seen.unfinished
        if left and left["event"] != "begun" and not (options.dry_run or options.force):
            session.screen.line(f"  the way back from {left['release']} was interrupted and is completed (or: --force)")
            _go_back(session, back, options, str(left["deploy"]))
        return back
    what = f"{seen.running} runs" if seen.running else "a release from before `inv deploy` runs"
    said = f"{what} on {session.name} and there is no bundle of it, so a failed deploy cannot go back."
    if session.ours or options.dry_run:
        session.screen.line(f"  {said}")
    else:
        confirm(said, options.yes, f"inv deploy --yes --env {session.name}")
    return None


def _plan(target: Release, options: Options, before: str, missing: dict[str, str]) -> int:
    """Print the plan and return the number of changes.

    :param missing: gets the components that cannot be installed, with the reasons.
    """
    made, said = plan.Plan(), dict[str, Any]()
    session = target.session
    extra = [target.facts, *variables(session, options.full, release=target.bundle, rolling=True)]
    ansible.play(
        session.environment,
        "site",
        extra,
        session.screen,
        session.verbose or options.diff,
        then=["monitoring"] * options.full,
        name="plan",
        check=True,
        watch=made.take,
        said=said,
    )
    missing.update(_missing(said))
    if made.count or options.dry_run:
        for line in made.lines(before, target.bundle.name):
            session.screen.line(line)
        if options.prove and options.dry_run:
            session.screen.line("  proof: before services change, the release counts beside the running job")
        for line in plan.outages(len(session.environment.in_group("kafka")), made.hosts):
            session.screen.line(line)
    return made.count


def _prove(target: Release, options: Options, before: str) -> None:
    """If it was asked for, have the release count beside the running job, and compare.

    :raises OperatorError: it counts otherwise, and is noted as failed; or it was not proved, and ``unproved`` is off.
    """
    if not options.prove or options.dry_run:
        return
    session, name, saw = target.session, target.bundle.name, list[str]()

    def watch(event: Mapping[str, Any]) -> None:
        if event.get("gate") and event.get("saw"):
            saw.append(str(event["saw"]))

    extra: ansible.Extra = [target.facts, *variables(session, options.full, release=target.bundle)]
    try:
        ansible.play(session.environment, "prove", extra, session.screen, session.verbose, name="proof", watch=watch)
    except ansible.PlaybookError as error:
        if not saw or not saw[-1].startswith("differs: "):
            raise
        deploy_id, reason = uuid.uuid4().hex, f"it counts otherwise than {before or 'the running release'}"
        history.note(session, deploy_id, "begun", name, before=before)
        history.note(session, deploy_id, "failed", name, reason=reason)
        history.note(session, deploy_id, "back", before)
        where = str(error.failures[-1]["msg"]).strip()
        raise OperatorError(f"{name} was refused, and no service was changed: {reason}. {where}") from None
    if not saw[-1].startswith("proved: ") and not options.unproved:
        again = f"inv deploy --unproved --env {session.name}"
        raise OperatorError(f"{name} was {saw[-1]}. No service was changed. To deploy it without a proof: {again}")


def _go_back(session: Session, back: Release, options: Options, deploy_id: str) -> None:
    """Apply the release before, job and API first, check it, and note it.

    :raises OperatorError: that failed too.
    """
    ready = prepare(session, back.bundle)
    began = time.monotonic()
    extra: ansible.Extra = [ready.facts, *variables(session, options.full, release=back.bundle)]
    ansible.play(ready.session.environment, "back", extra, session.screen, session.verbose, name="way back")
    session.screen.line(f"  job and API run {back.bundle.name} again after {took(time.monotonic() - began)}")
    configure(ready, options.full, {})
    smoke(session)
    history.note(session, deploy_id, "back", back.bundle.name)
    if options.full:
        alert.inform(session, "RolledBack", f"{back.bundle.name} runs again: a deploy failed", back.bundle.name)


def _gone_back(
    session: Session,
    target: Release,
    back: Release,
    options: Options,
    deploy_id: str,
    error: OperatorError,
    seconds: float,
) -> OperatorError:
    """Go back after a failure and return the error that says what failed, and what runs now."""
    failures: Sequence[dict[str, Any]] = error.failures if isinstance(error, ansible.PlaybookError) else []
    event = failures[-1] if failures else {}
    part = ansible.part_name(str(event.get("part", "")))
    reason = f"{part} on {event['host']}: {event['msg'].strip()}" if event else str(error)
    # The smoke test is no playbook, and a playbook without a failed task was ended from outside.
    gate = not isinstance(error, ansible.PlaybookError) or bool(event.get("gate") or event.get("unit"))
    short = " ".join(reason.split("\n")[0].split())
    session.screen.line(f"  failed after {took(seconds)}: {short}")
    session.screen.line(f"  going back to {back.bundle.name}")
    began = time.monotonic()
    service = part if part else "job"
    look = f"inv logs {service} --env {session.name}"
    try:
        history.note(session, deploy_id, "failed" if gate else "stopped", target.bundle.name, reason=short)
        _go_back(session, back, options, deploy_id)
    except OperatorError as worse:
        return OperatorError(f"{reason}. The way back to {back.bundle.name} failed too: {worse}. Look: {look}")
    marked = "is marked as failed, and is deployed again only with --force" if gate else "is not marked as failed"
    return OperatorError(
        f"{reason}. {back.bundle.name} runs again after {took(time.monotonic() - began)}, and its smoke test passed. "
        f"{target.bundle.name} {marked}. Journal: {look}"
    )


def _mark_good(session: Session, deploy_id: str, made: Bundle, full: bool) -> None:
    """Write into PostgreSQL and into the hosts' logs that a release passed every gate and the smoke test, and tell it.

    :raises OperatorError: PostgreSQL did not take it.
    """
    code, output, errors = command.on_master(session, ["release", made.name])
    if code != 0:
        raise OperatorError(f"{made.name} could not be marked as good: {command.said(code, output, errors)}")
    history.note(session, deploy_id, "good", made.name, manifest=made.manifest)
    if full:
        alert.inform(session, "Deployed", f"{made.name} was deployed", made.name)


def configure(target: Release, full: bool, missing: dict[str, str], *, rolling: bool = False) -> int:
    """Run the roles over all hosts, and return the number of changes.

    :param missing: gets the components that could not be installed, with the reasons.
    :param rolling: one host at a time, behind gates.
    """
    session = target.session
    options = variables(session, full, release=target.bundle, rolling=rolling)
    extra: ansible.Extra = [target.facts, *options]
    said, then = dict[str, Any](), ["monitoring"] * full
    changed = ansible.play(session.environment, "site", extra, session.screen, session.verbose, then=then, said=said)
    missing.update(_missing(said))
    return changed


def whole(session: Session, words: str, missing: Mapping[str, str]) -> str:
    """Return the closing words.

    :raises IncompleteError: optional components are missing.
    """
    if not missing:
        return words
    what = "; ".join(f"{name} could not be installed ({why})" for name, why in sorted(missing.items()))
    raise IncompleteError(f"{what}; all the rest is up. To try again: inv up --full --env {session.name}", words)


def _missing(said: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(why) for name, why in said.get(MISSING, {}).items()}


def variables(
    session: Session,
    full: bool,
    keep: Sequence[str] | None = None,
    *,
    release: Bundle | None = None,
    rolling: bool = False,
) -> ansible.Extra:
    """Return the variables of every playbook: the secrets, and the options of the task.

    :param keep: the state that ``inv reset`` leaves alone; None for other tasks, whose wiping leaves nothing.
    :param release: the release whose bundle the hosts keep.
    """
    options: dict[str, Any] = {
        "full": full,
        "streampulse_environment": session.name,
        "streampulse_reset": keep is not None,
        "streampulse_keep": list(keep or ()),
        "streampulse_smoke_seconds": SMOKE_SECONDS,
    }
    if release:
        options |= {
            "streampulse_bundle": {"name": release.name, "path": str(release.file)},
            "streampulse_rolling": rolling,
        }
    return [secrets.file_for(session.environment), json.dumps(options)]
