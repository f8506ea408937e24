"""Where things are: the repository, the caches, and the state of environments."""

import os
from pathlib import Path

from streampulse.core.errors import OperatorError

MACHINES_STATE = Path("/var/lib/streampulse-machines")


def repository() -> Path:
    """Return the root of the checkout that this package is installed from.

    :raises OperatorError: the package was installed without its checkout.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / "ansible").is_dir():
        raise OperatorError("the tasks need a checkout of streampulse: run ./inv in one")
    return root


def _home(variable: str, fallback: str) -> Path:
    given = os.environ.get(variable, "")
    # The specification of these variables says that a relative path is to be ignored.
    return Path(given) if given.startswith("/") else Path.home() / fallback


def cache_home() -> Path:
    """Return the folder of everything that can be made again."""
    return _home("XDG_CACHE_HOME", ".cache") / "streampulse"


def state_home() -> Path:
    """Return the folder of the state of environments whose machines are not made here by nspawn."""
    return _home("XDG_STATE_HOME", ".local/state") / "streampulse"


def inventories() -> Path:
    """Return the folder whose folders are the environments."""
    given = os.environ.get("STREAMPULSE_INVENTORIES")
    return Path(given) if given else repository() / "ansible" / "inventories"
