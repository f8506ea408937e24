"""``inv drill``: break an environment on purpose, and see that alert, doctor and runbook repair it."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from streampulse.core.errors import OperatorError
from streampulse.host.slo.report import Firing
from streampulse_ops import paths
from streampulse_ops.cli.console import took
from streampulse_ops.cli.entry import INCOMPLETE
from streampulse_ops.command import ended
from streampulse_ops.environments import lock
from streampulse_ops.environments.environment import Host
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts import monitoring
from streampulse_ops.hosts.ssh import Remote
from streampulse_ops.monitoring import findings as catalogue
from streampulse_ops.monitoring.findings import Finding
from streampulse_ops.runbooks import drills, page
from streampulse_ops.runbooks.drills import Drill, Result
from streampulse_ops.runbooks.page import CONTROL
from streampulse_ops.runbooks.run import Options, Walk
from streampulse_ops.verbs import doctor, verify

#: Seconds until what an earlier fault left is over, and until a repaired service has no alert left.
CALM_SECONDS: Final = 300.0
CLEAR_SECONDS: Final = 180.0
#: Seconds that doctor has, after the alert, to name the cause: Spark's master notices a lost worker after a minute.
DOCTOR_SECONDS: Final = 45.0
#: Seconds that a control run waits without the runbook.
CONTROL_SECONDS: Final = 90.0
BREAK_SECONDS: Final = 60.0
PAUSE_SECONDS: Final = 2.0
#: Faults that are over by themselves some minutes after the cause: restarts are counted over ten minutes, and budgets
#: that an outage has burned are told as alerts.
FADING: Final = frozenset({"SP-UNIT-003", "SP-ALERT-001"})


def drill(session: Session, name: str, dry_run: bool, control: bool, record: bool) -> str:
    """Run drills and return the closing words.

    :param name: a drill, several separated by commas, which are broken together, or ``all``, round by round.
    :raises OperatorError: the inventory allows no drills, or a drill failed; the text says where.
    """
    chosen = drills.named(name)
    _check_allowed(session)
    session.screen.line(session.headline())
    ready = []
    for each in chosen:
        lacking = {one.name: drills.lacks(one, session.environment) for one in each}
        for left, lack in lacking.items():
            if lack:
                session.screen.line(f"  {left}: left out, {session.name} lacks {lack}")
        ready.append([one for one in each if not lacking[one.name]])
    ready = [each for each in ready if each]
    if not ready:
        raise OperatorError(f"nothing to break in {session.name}: see above; inv drill all --dry-run lists every drill")
    if dry_run:
        for number, each in enumerate(ready, 1):
            for one in each:
                told = f"; told by {one.alert}, {one.code}" if one.alert else ""
                session.screen.line(f"  round {number}  {one.name}: {one.cause}{told}")
        return "nothing was broken"
    done: list[Result] = []
    session.make_state()
    with lock.held(session.environment.state / "drill.lock", f"inv drill {name}"):
        try:
            for each in ready:
                done += Round(session, each, control).run()
        finally:
            # Only now: the pages are part of the release that `inv up` in a runbook brings to the hosts.
            drills.record(paths.repository() / drills.PROOFS if record else drills.own_file(session.environment), done)
    return f"{len(done)} drills passed, 0 rows differ"


def _check_allowed(session: Session) -> None:
    environment = session.environment
    if session.never_made:
        raise OperatorError(f"{session.name} has no machines: inv up --full --env {session.name}")
    if environment.typed:
        raise OperatorError(f"{session.name} is protected: no drill runs there. inv drill --env with another one")
    if not environment.drills_allowed:
        raise OperatorError(
            f"{session.name} allows no drills: write `drills_allowed: true` under all.vars of {environment.inventory}, "
            "if its services may be broken on purpose"
        )


class Round:
    """Drills that are broken together and repaired one after the other."""

    def __init__(self, session: Session, chosen: Sequence[Drill], control: bool) -> None:
        self.session, self.control = session, control
        self.results = [Result(each, self._host(each)) for each in chosen]
        self._loud_before = ""

    def _host(self, drill: Drill) -> str:
        """Return the host that a drill breaks; empty: none."""
        return next((self.session.environment.require_group(each)[0].name for each in drill.broken), "")

    def run(self) -> list[Result]:
        """Break, wait for the alerts, ask doctor, run the pages, compare; and undo what was broken in any case.

        :raises OperatorError: something was not as it should be; the text names the drill.
        """
        self._say(f"drill {', '.join(each.drill.name for each in self.results)}")
        self._wait(self._calm, CALM_SECONDS, "no alert fires and doctor finds no fault before the drill")
        try:
            began = {}
            for each in self.results:
                self._say(f"  {each.drill.name} on {each.host or self.session.name}: {each.drill.cause}")
                began[each.drill.name] = time.monotonic()
                self._scripts(each.drill.broken)
            self._told(began)
            if any(each.drill.code for each in self.results):
                self._diagnosed()
            if self.control and any(each.drill.alert for each in self.results):
                time.sleep(CONTROL_SECONDS)
                self._still()
            for each in self.results:
                self._repair(each)
        finally:
            self._heal()
        verify.verify(self.session)
        for each in self.results:
            told = f"told after {each.told:.0f} s, " if each.drill.alert else ""
            self._say(f"  {each.drill.name}: {told}recovered after {each.recovered:.0f} s")
        return self.results

    def _told(self, began: Mapping[str, float]) -> None:
        """Wait until every alert has reached Alertmanager and is not kept quiet."""
        waiting = [each for each in self.results if each.drill.alert]
        while waiting:
            firing = self._loud()
            for each in list(waiting):
                since = time.monotonic() - began[each.drill.name]
                if each.drill.alert in firing:
                    each.told = since
                    waiting.remove(each)
                    self._say(f"  {each.drill.alert} is told after {took(since)}")
                elif since > each.drill.within:
                    raise OperatorError(
                        f"{each.drill.name}: {each.drill.alert} was not told within {each.drill.within} s; told: "
                        f"{', '.join(sorted(firing)) or 'nothing'}. A recent outage may keep it quiet: "
                        f"inv status --full{self.session.flag}"
                    )
            time.sleep(PAUSE_SECONDS)

    def _diagnosed(self) -> None:
        """See that doctor names every cause, and one of them before everything else."""
        expected = {each.drill.code for each in self.results if each.drill.code}

        def first() -> bool:
            codes = list(dict.fromkeys(each.code for each in self._faults()))
            self._say(f"  doctor names {', '.join(codes) or 'nothing'}")
            return expected <= set(codes) and codes[0] in expected

        self._wait(first, DOCTOR_SECONDS, f"doctor names {', '.join(sorted(expected))} first")
        # A budget that burns since something is down is told once the outage has lasted.
        more = {each.name for each in self._loud().values() if each.pages and each.service != "slo"}
        more -= {each.drill.alert for each in self.results}
        if more:
            raise OperatorError(f"{', '.join(sorted(more))} pages as well, and should be kept quiet by its cause")

    def _still(self) -> None:
        """See that the alerts still fire, since nothing was repaired."""
        missing = {each.drill.alert for each in self.results if each.drill.alert} - set(self._loud())
        if missing:
            raise OperatorError(f"{', '.join(sorted(missing))} ended without the runbook")
        self._say(f"  control: without the runbook everything still fires after {CONTROL_SECONDS:.0f} s")

    def _repair(self, result: Result) -> None:
        """Run a drill's page and wait until its alert and its code are gone, and at the end of the round all faults."""
        began = time.monotonic()
        book = page.load(paths.repository())[result.drill.name]
        host = result.host if len(self.session.environment.hosts) > 1 else ""
        words = Walk(self.session, book, Options(host, apply=True, yes=True)).run()
        self._say(f"  {book.name}: {words}")
        last = result is self.results[-1]

        def clear() -> bool:
            if result.drill.alert in self._loud():
                return False
            stays = FADING.union(*(each.drill.leaves for each in self.results))
            left = [each for each in self._faults() if each.code not in stays]
            # Another drill of the round, not repaired yet, may have the same code.
            others = {each.drill.code for each in self.results if each is not result and not each.recovered}
            mine = [each for each in left if last or each.code in {result.drill.code} - others]
            if mine:
                self._say(f"  doctor still names {', '.join(dict.fromkeys(each.code for each in mine))}")
            return not mine

        self._wait(clear, CLEAR_SECONDS, f"alerts and doctor are clear after {book.name}")
        result.recovered = time.monotonic() - began
        self._say(f"  {book.name} recovered after {took(result.recovered)}")

    def _heal(self) -> None:
        """Undo what was broken, also after a failure: every drill, even if another one cannot be undone.

        :raises OperatorError: something could not be undone.
        """
        failed = []
        for each in self.results:
            try:
                repaired = bool(each.recovered)
                self._scripts(
                    {where: text for where, text in each.drill.heal.items() if where != CONTROL or not repaired}
                )
            except OperatorError as error:
                failed.append(f"{each.drill.name}: {error}")
        if failed:
            raise OperatorError(f"not undone: {'; '.join(failed)}. inv up --full{self.session.flag} repairs it")

    def _scripts(self, scripts: Mapping[str, str]) -> None:
        """Run scripts, each on the first host of its group or on the control machine.

        :raises OperatorError: a host cannot be reached, or a script failed.
        """
        for group, script in scripts.items():
            if group == CONTROL:
                words = ["/bin/sh", "-euc", script]
                done = ended(words, cwd=paths.repository(), environment={"ENV": self.session.name})
                code, said, where = done.returncode, done.stdout + done.stderr, "the control machine"
                # Everything but an optional part was done.
                code = 0 if code == INCOMPLETE else code
            else:
                host = self.session.environment.require_group(group)[0]
                code, said = self._there(host, script)
                where = host.name
            if code != 0:
                raise OperatorError(f"a script failed on {where} with exit code {code}: {said.strip()[-300:]}")

    def _there(self, host: Host, script: str) -> tuple[int, str]:
        with Remote(self.session.environment, host) as remote:
            code, output, errors = remote.run(["sh", "-euc", script], timeout=BREAK_SECONDS)
        return code, output + errors

    def _loud(self) -> dict[str, Firing]:
        """Return the alerts that people are told, by name."""
        report = monitoring.require(self.session)
        return {each.name: each for each in report.alerts if not each.silenced and not each.inhibited}

    def _faults(self) -> list[Finding]:
        """Return doctor's faults that are not muted, causes first."""
        found = catalogue.explained(doctor.examine(self.session))
        return [each for each in found if not each.ok and not each.muted]

    def _calm(self) -> bool:
        left = [f"{each.code} {each.where}: {each.cause}" for each in self._faults() if each.code not in FADING]
        alerts = {each.drill.alert for each in self.results} & set(self._loud())
        loud = "; ".join([*left, *sorted(alerts)])
        if loud not in ("", self._loud_before):
            self._say(f"  not calm yet: {loud}")
        self._loud_before = loud
        return not loud

    def _wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait for a condition.

        :raises OperatorError: it did not come true in time.
        """
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                raise OperatorError(f"not within {seconds:.0f} s: {what}")
            time.sleep(PAUSE_SECONDS)

    def _say(self, text: str) -> None:
        self.session.screen.line(text)
