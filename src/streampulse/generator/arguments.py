"""Options that the steady generator and the backlog share: the size of the world and the shares of faults."""

import argparse
from collections.abc import Sequence
from typing import Final, TypeVar

from pydantic import ValidationError

from streampulse.core.errors import OperatorError
from streampulse.core.settings import WorldSettings
from streampulse.generator.faults import Shares

SettingsType = TypeVar("SettingsType", bound=WorldSettings)

_SHARES: Final = (
    ("duplicates", "sent a second time"),
    ("disorder", "held back by up to two minutes"),
    ("late", "followed by one that is too late to count"),
    ("garbage", "followed by a record that is not a valid event"),
)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options; each overrides its STREAMPULSE_GENERATOR_ variable."""
    parser.add_argument("--streams", type=int, help="number of streams")
    parser.add_argument("--users", type=int, help="number of users")
    parser.add_argument("--seed", type=int, help="seed of the random numbers (default: a new one)")
    parser.add_argument(
        "--skew", type=float, metavar="S", help="the n-th most popular stream has 1/n^S of the first one's audience"
    )
    for name, what in _SHARES:
        parser.add_argument(f"--{name}", type=float, metavar="SHARE", help=f"share of the events, 0 to 1, {what}")


def settings(args: argparse.Namespace, kind: type[SettingsType], more: Sequence[str] = ()) -> SettingsType:
    """Return the settings; given arguments override the environment.

    :param kind: the settings class, which reads the environment.
    :param more: option names beside those of :func:`add`.
    :raises OperatorError: an argument is out of range.
    """
    names = (*more, "streams", "users", "seed", "skew", *(name for name, _ in _SHARES))
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    try:
        # Keyword arguments of the class take precedence over the environment.
        return kind(**given)
    except ValidationError as error:
        wrong = [f"--{item['loc'][0]} {item['input']}: {item['msg'].lower()}" for item in error.errors()]
        raise OperatorError("; ".join(wrong) + f" (see `streampulse {args.command} --help`)") from None


def shares(settings: WorldSettings) -> Shares:
    """Return the fault shares from the settings."""
    return Shares(settings.duplicates, settings.disorder, settings.late, settings.garbage)
