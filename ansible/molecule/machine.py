"""The machine of Molecule's scenarios: boot it with all that a play needs, test a role on it, keep its disk, remove it.

Run as ``python ansible/molecule/machine.py up|verify ROLE|commit|layer|destroy``. ``up`` and ``destroy`` print
``changed`` when they had to do something. ``verify`` runs the tests of a role on the machine. ``commit`` turns the
machine's disk into a layer. ``layer`` prints the name of that layer, or nothing where none fits this checkout.
"""

import dataclasses
import hashlib
import importlib
import io
import json
import os
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import yaml

os.environ["STREAMPULSE_INVENTORIES"] = str(Path(__file__).parent / "inventories")

from streampulse.core.errors import OperatorError
from streampulse_ops import artifacts, machines, paths, services
from streampulse_ops.environments import environment, lock, secrets
from streampulse_ops.machines import nspawn

#: Sources of a converged disk, beside the image and the artifacts. A role's scenarios leave nothing on it.
SOURCES = ("ansible", "systemd", "prometheus", "grafana", "docs/runbooks", "src/streampulse_ops")

#: pytest and its requirements. All are plain Python, so the machine's own Python runs them.
PYTEST = ("_pytest", "iniconfig", "packaging", "pluggy", "py", "pygments", "pytest")


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def layer_name(image: str, facts: object) -> str:
    """Return the name of the layer of this checkout: the digest of all that a converged disk is made from."""
    root = paths.repository()
    digest = hashlib.sha256(json.dumps([image, facts], sort_keys=True).encode())
    for file in sorted(path for source in SOURCES for path in (root / source).rglob("*")):
        name = file.relative_to(root)
        if file.is_file() and not {"molecule", "__pycache__"} & set(name.parts):
            digest.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return f"converged-{digest.hexdigest()[:16]}"


def verify(env: environment.Environment, role: str) -> int:
    """Run a role's tests on the machine, with pytest of this virtual environment, and return pytest's exit code."""
    folder = Path(__file__).parent
    variables = yaml.safe_load((folder / "vars.yml").read_text(encoding="utf-8"))
    known = json.loads((env.state / "inventory.json").read_text(encoding="utf-8"))["all"]["hosts"][env.hosts[0].name]
    login = ["ssh", "-o", "LogLevel=ERROR", "-i", known["ansible_ssh_private_key_file"]]
    login += [*shlex.split(known["ansible_ssh_common_args"]), f"root@{known['ansible_host']}"]
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for module in PYTEST:
            found = Path(str(importlib.import_module(module).__file__))
            package = found.parent if found.name == "__init__.py" else found
            archive.add(package, package.name, filter=lambda entry: None if "__pycache__" in entry.name else entry)
        for tests in (folder / "on_machine", folder.parent / "roles" / role / "molecule" / "default"):
            for file in tests.glob("*.py"):
                archive.add(file, file.name)
    secret = json.loads((env.state / "secrets.json").read_text(encoding="utf-8"))["streampulse_secrets"]
    units = {each.name.replace("-", "_"): each.unit for each in services.all_services()}
    unit = units.get(role, "spark-classes.service" if role == "spark" else "")
    killed = int(role in variables["scenario_kills"])
    python = "/usr/bin/python3" if role == "base" else "/opt/streampulse/current/venv/bin/python"
    # The folder is in memory, so the tests leave nothing on the disk. A command line would show the password.
    script = (
        "read -r STREAMPULSE_MONITORING_PASSWORD; export STREAMPULSE_MONITORING_PASSWORD;"
        " rm -rf /run/scenario && mkdir -m 0700 /run/scenario && cd /run/scenario && tar -xof - &&"
        f" SCENARIO_UNIT='{unit}' SCENARIO_KILLED={killed} PYTHONDONTWRITEBYTECODE=1"
        f" exec {python} -m pytest -q --tb=short -p no:cacheprovider --rootdir=/run/scenario ."
    )
    sent = f"{secret['monitoring_password']}\n".encode() + held.getvalue()
    return subprocess.run([*login, script], input=sent, check=False).returncode


def destroy(env: environment.Environment) -> None:
    """Remove the machine and its secrets."""
    if machines.remove(env, machines.provider_for(env, say)):
        say("changed")
    for name in ("artifacts.json", "secrets.json", "edge.crt", "edge.key"):
        (env.state / name).unlink(missing_ok=True)


def certify(folder: Path) -> None:
    """Make the certificate of the scenario of the role edge, which signs itself."""
    files = ["-keyout", str(folder / "edge.key"), "-out", str(folder / "edge.crt")]
    if not (folder / "edge.crt").exists():
        kind = [
            "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "365", "-subj", "/CN=molecule",
        ]  # fmt: skip
        subprocess.run(["openssl", "req", "-x509", *kind, *files], check=True, capture_output=True)


def up(env: environment.Environment, prepared: artifacts.Prepared) -> None:
    """Make the machine, and write the variables of a play beside its inventory."""
    artifacts.write_facts(prepared, env.state / "artifacts.json")
    secrets.file_for(env)
    certify(env.state)
    if machines.bring_up(env, machines.provider_for(env, say)):
        say("changed")


def main(verb: str, *roles: str) -> int:
    """Run the verb and return the exit code."""
    env = environment.load("molecule")
    if verb == "verify":
        return verify(env, *roles)
    report = (lambda _line: None) if verb == "layer" else say
    prepared = artifacts.prepare(
        [artifacts.PYTHONS[str(env.variables["machine_os"])]], artifacts.architecture_of(env), report
    )
    own = nspawn.Nspawn(env, say)
    layer = layer_name(own.image.root.name, prepared.facts)
    there = layer in own.layers.names()
    if verb == "layer":
        say(layer if there else "")
        return 0
    env.state.mkdir(parents=True, exist_ok=True)
    with lock.held(env.state / "lock", f"molecule {verb}"):
        if verb == "destroy":
            destroy(env)
        elif verb == "up":
            up(dataclasses.replace(env, variables={**env.variables, "nspawn_layer": layer if there else ""}), prepared)
        elif not there:
            own.commit(env.hosts[0], layer)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except OperatorError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
