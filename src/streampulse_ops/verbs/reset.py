"""``inv reset``: the state of streampulse is wiped, everything starts again, smoke test."""

from collections.abc import Sequence

from streampulse.core.errors import OperatorError, UsageError
from streampulse_ops import ansible
from streampulse_ops.environments import inventory
from streampulse_ops.environments.session import Session, changing
from streampulse_ops.verbs.deploy import made, prepare, start_together, variables
from streampulse_ops.verbs.down import play_each, stop_services
from streampulse_ops.verbs.up import closing, start_machines

#: The values of ``--keep``, each with the state that it keeps.
KEEPABLE = {
    "kafka": "all events (Kafka's topics {topics})",
    "postgres": "all rows of the tables (PostgreSQL's database {database})",
    "checkpoints": "the job's checkpoints",
    "metrics": "what Prometheus and Alertmanager have stored",
}
OTHERS = "other topics, users, ACLs and databases, and what people made in Grafana"
#: The longest wait, in seconds, until all events that were kept in Kafka are counted again.
RECOUNT_SECONDS = 1800


def reset(session: Session, full: bool, keep: Sequence[str] = ()) -> str:
    """Remove topics, checkpoints and tables together, start again, check, and return the closing words.

    :param keep: the state that is left alone, of KEEPABLE.
    :raises IncompleteError: everything is up again but optional components that could not be installed.
    """
    _check(session, full)
    session.screen.line(session.headline())
    with changing(session, "inv reset"):
        release = prepare(session, made(session))
        start_machines(session)
        if "kafka" not in keep:
            _check_kafka(session, full, keep)
        stop_services(session, full)
        play_each(session, full, "wipe", keep=keep)
        # Events that are kept without their tables are counted again before those of the smoke test.
        seconds = RECOUNT_SECONDS if "kafka" in keep and "postgres" not in keep else 0
        _, missing = start_together(session, release, full, seconds)
    return closing(session, f"state is {'as new but for what was kept' if keep else 'new'}", missing)


def plan(session: Session, full: bool, keep: Sequence[str] = ()) -> list[str]:
    """Return the steps of a reset, line by line."""
    _check(session, full)
    hosts = ", ".join(host.name for host in session.environment.hosts)
    stored = _stored(session, full)
    gone = ", ".join(text for name, text in stored.items() if name not in keep)
    left = ", ".join(text for name, text in stored.items() if name in keep)
    return [
        f"reset of {session.name} would, on {hosts}:",
        *(["  stop Prometheus, Alertmanager, the probe and the exporters"] if full else []),
        "  stop the generator, the API, the job, Spark, Kafka and PostgreSQL, in that order",
        f"  remove {gone}" if gone else "  remove nothing that is of lasting value",
        *([f"  keep {left}"] if left else []),
        f"  leave alone {OTHERS}",
        "  start everything again and run the smoke test",
        *([] if full else ["  leave monitoring alone (--full takes it in)"]),
    ]


def question(session: Session, full: bool, keep: Sequence[str] = ()) -> str:
    """Return the question before a reset."""
    gone = [text for word, text in _stored(session, full).items() if word not in keep]
    return f"This removes {', '.join(gone) or 'nothing, and restarts all'} of {session.name}."


def kept(text: str | None) -> tuple[str, ...]:
    """Read ``--keep``.

    :param text: words of KEEPABLE, separated by commas; None without the option.
    :raises UsageError: a word is unknown or missing, or the state cannot be kept without another one.
    """
    if text is not None and not text.strip(" ,"):
        raise UsageError("--keep names nothing; to remove everything, leave it out: inv reset")
    words = tuple(word.strip() for word in (text or "").split(",") if word.strip())
    unknown = [word for word in words if word not in KEEPABLE]
    if unknown:
        raise UsageError(f"{unknown[0]} is nothing that can be kept. There are: {', '.join(KEEPABLE)}")
    for word, needed, why in (
        ("checkpoints", "postgres", "ahead of new tables, they would have events passed over"),
        ("postgres", "kafka", "numbers whose events are gone could never be recomputed"),
    ):
        if word in words and needed not in words:
            # The advice names everything that has to be kept, not only the next word.
            whole = [each for each in ("kafka", "postgres") if each == needed or each not in words]
            raise UsageError(
                f"{word} cannot be kept without {needed}: {why}; inv reset --keep {','.join([*whole, *words])}"
            )
    return words


def _stored(session: Session, full: bool) -> dict[str, str]:
    """Return KEEPABLE with the names of this environment's topics and database."""
    known = inventory.variables(session.environment, session.environment.hosts[0])
    topics = " and ".join(str(known[name]) for name in ("streampulse_topic", "streampulse_dlq_topic"))
    return {
        name: text.format(topics=topics, database=known["streampulse_database"])
        for name, text in KEEPABLE.items()
        if full or name != "metrics"
    }


def _check_kafka(session: Session, full: bool, keep: Sequence[str]) -> None:
    """Start Kafka and check that it can delete its topics.

    :raises OperatorError: it cannot; nothing was stopped or wiped.
    """
    extra = variables(session, full, keep)
    try:
        ansible.play(session.environment, "reset_check", extra, session.screen, session.verbose, name="kafka")
    except OperatorError as error:
        raise OperatorError(
            f"{error}. Nothing was stopped or wiped. To remove all state instead: inv down --wipe{session.flag}"
        ) from None


def _check(session: Session, full: bool) -> None:
    """Check that there is something to reset.

    :raises OperatorError: machines were never made, or ``--full`` is given without a monitoring group.
    """
    if full:
        session.environment.require_group("monitoring")
    if session.never_made:
        raise OperatorError(f"nothing of {session.name} is there that could be reset: inv up{session.flag}")
