"""The ``streampulse`` command: one subcommand for each service and each check on a host."""

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

from streampulse import __version__
from streampulse.core import logs as logfmt
from streampulse.core.errors import OperatorError, SettingsError, UsageError

# Modules are imported on demand: a host has only the libraries of its own roles.
COMMANDS = {
    "generator": ("streampulse.generator.command", "send made-up but plausible events to Kafka"),
    "fill": ("streampulse.generator.fill", "fill the topic with a backlog of made-up events, as fast as it goes"),
    "job": ("streampulse.job.command", "count the events: the streaming job's driver, started by spark-submit"),
    "migrate": ("streampulse.host.migrate", "bring the database's schema to this release's version"),
    "release": ("streampulse.host.release", "mark a release as good, after every gate and the smoke test"),
    "verify": ("streampulse.oracle.command", "recompute every number from the raw topic and compare with the tables"),
    "dlq": ("streampulse.answers.dlq", "count dead letters, show them, and send them again"),
    "exclude": ("streampulse.answers.exclude", "judge one record of the topic, or list the records that were judged"),
    "trace": ("streampulse.answers.trace", "what happened to an event: partition, offset, times, and row or letter"),
    "recount": ("streampulse.recount.command", "count the history again from the oldest record, and swap it in"),
    "shadow": ("streampulse.recount.prove", "count beside the job from a copy of its state, and compare"),
    "smoke": ("streampulse.host.smoke", "send a few events of its own and expect exactly their numbers"),
    "probe": ("streampulse.probe.command", "measure what users notice: an event a minute, and the API's answers"),
    "peek": ("streampulse.host.peek", "print the newest records of a topic"),
    "clock": ("streampulse.host.clock", "compare this host's clock with others, before a broker starts"),
    "check": ("streampulse.host.check.command", "what doctor looks at on this host, as JSON"),
    "measure": ("streampulse.host.measure.command", "what bench measures on this host, as JSON"),
    "slo": ("streampulse.host.slo.command", "promises and budgets, what fires, how far behind, which targets are down"),
    "silence": ("streampulse.host.slo.silence", "have Alertmanager keep quiet during maintenance"),
    "alert": ("streampulse.host.slo.alert", "send one alert to Alertmanager, and see who is notified"),
    "wait": ("streampulse.host.wait", "wait until a service really answers"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code: 0 done, 1 an explained failure, 2 wrong usage.

    :param argv: the arguments without the program's name; the process's own when None.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="streampulse", description="streampulse on this host")
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    # Only the named command is imported, so that `streampulse wait` starts quickly.
    named = next((word for word in arguments if not word.startswith("-")), None)
    for name, (module_name, summary) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if name == named:
            module = importlib.import_module(module_name)
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    parsed = parser.parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except (OperatorError, SettingsError) as error:
        prefix = logfmt.journal_prefix(logging.ERROR, sys.stderr)
        print(f"{prefix}streampulse: {error}", file=sys.stderr)  # noqa: T201 - the command's output
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
