"""Changes the machines of an environment as root, for a task of an ordinary account that holds the environment's lock.

:mod:`streampulse_ops.machines.root` runs it through sudo.
"""

import argparse
import sys

from streampulse.core.errors import OperatorError
from streampulse_ops import machines
from streampulse_ops.cli.ownership import explain, give_to_invoker, set_umask
from streampulse_ops.environments import environment as environments


def say(line: str) -> None:
    """Print a line and flush."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run(verb: str, name: str) -> None:
    """Run the verb, and print a line for each changed machine, as root.TOUCHED matches it.

    :raises OperatorError: it could not be done; the text says why.
    """
    environment = environments.load(name)
    provider = machines.provider_for(environment, say)
    environment.state.mkdir(parents=True, exist_ok=True)
    if environment.state.stat().st_uid == 0:
        give_to_invoker(environment.state)
    if verb == "prepare":
        return
    words = {"up": "up", "down": "stopped", "destroy": "removed"}[verb]
    for host in machines.WORK[verb](environment, provider):
        say(f"{host.name} {words}" + (f" at {provider.address(host)}" if verb == "up" else ""))


def main() -> int:
    """Run the command: 0 done, 1 an explained failure, 2 wrong usage."""
    set_umask()
    parser = argparse.ArgumentParser(prog="python -m streampulse_ops.machines", description=__doc__)
    parser.add_argument("verb", choices=("up", "down", "destroy", "prepare"))
    parser.add_argument("--env", required=True, help="name of the environment")
    arguments = parser.parse_args()
    try:
        run(arguments.verb, arguments.env)
    except OperatorError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"{explain(error)}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: what was half made has been taken back\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
