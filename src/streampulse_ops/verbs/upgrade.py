"""``inv upgrade``: Debian's packages of every host brought up to date, one host at a time, each behind gates."""

import json
from typing import Final

from streampulse_ops import ansible
from streampulse_ops.environments.session import Session, changing
from streampulse_ops.releases import history
from streampulse_ops.verbs import silence
from streampulse_ops.verbs.deploy import variables

#: The order by groups: what has replicas before what everything waits for. Hosts without any of them come last.
ORDER: Final = ("kafka", "spark_worker", "api", "edge", "job", "spark_master", "postgres", "generator", "monitoring")
TASK: Final = "inv upgrade"
#: How long a host's alerts are kept quiet.
QUIET: Final = "15m"


def upgrade(session: Session, host: str, reboot: bool, dry_run: bool) -> str:
    """Upgrade the hosts' packages, reboot each host that got some or waits for it, and return the closing words.

    :param host: only this host; empty for all.
    :param reboot: reboot the other hosts, too.
    :param dry_run: only count the hosts that would change.
    :raises OperatorError: a host cannot be spared, reached or upgraded, or a service does not work after it.
    """
    environment = session.environment
    listed = [*(each for group in ORDER for each in environment.in_group(group)), *environment.hosts]
    hosts = [environment.host(host)] if host else list({each.name: each for each in listed}.values())
    for each in hosts:
        session.require_running(each)
    changed = 0
    session.screen.line(session.headline())
    with changing(session, TASK):
        monitored = history.look(session).monitored
    for each in hosts:
        with changing(session, TASK, rebooting=each.name):
            if monitored and not dry_run:
                wish = silence.Wish(duration=QUIET, reason=TASK, host=each.name)
                silence.run(session, wish, as_json=False)
            changed += bool(
                ansible.play(
                    environment,
                    "upgrade",
                    [*variables(session, monitored), json.dumps({"upgrade_reboot": reboot})],
                    session.screen,
                    session.verbose,
                    hosts=[each],
                    name=each.name,
                    check=dry_run,
                )
            )
    return f"{changed} of {len(hosts)} hosts {'would change; nothing was changed' if dry_run else 'changed'}"
