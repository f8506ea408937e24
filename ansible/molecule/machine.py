"""The machine that Molecule's scenarios run on: boot it with all that a play needs, or remove it.

Run as ``python ansible/molecule/machine.py up|destroy``. Prints ``changed`` when it had to do something.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["STREAMPULSE_INVENTORIES"] = str(Path(__file__).parent / "inventories")

from streampulse.core.errors import OperatorError
from streampulse_ops import artifacts, machines
from streampulse_ops.environments import environment, lock, secrets


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(verb: str) -> int:
    """Do what was asked and return the exit code."""
    env = environment.load("molecule")
    provider = machines.provider_for(env, say)
    env.state.mkdir(parents=True, exist_ok=True)
    with lock.held(env.state / "lock", f"molecule {verb}"):
        if verb == "destroy":
            touched = machines.remove(env, provider)
            for name in ("artifacts.json", "secrets.json"):
                (env.state / name).unlink(missing_ok=True)
        else:
            python = artifacts.PYTHONS[str(env.variables["machine_os"])]
            prepared = artifacts.prepare([python], artifacts.architecture_of(env), say)
            artifacts.write_facts(prepared, env.state / "artifacts.json")
            secrets.file_for(env)
            touched = machines.bring_up(env, provider)
    if touched:
        say("changed")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1]))
    except OperatorError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
