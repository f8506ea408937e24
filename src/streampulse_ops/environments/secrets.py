"""Secrets of an environment: made once, readable by their owner only, or encrypted in a vault."""

import base64
import json
import os
import secrets
import shlex
import uuid
from pathlib import Path

import yaml

from streampulse.core.errors import OperatorError
from streampulse_ops.cli.ownership import give_to_invoker
from streampulse_ops.command import CommandError, run
from streampulse_ops.environments import inventory
from streampulse_ops.environments.environment import Environment

#: The variable of Ansible that names the file with the key of a vault.
VAULT_VARIABLE = "ANSIBLE_VAULT_PASSWORD_FILE"
NAMES = (
    "kafka_cluster_id",
    "postgres_writer_password",
    "postgres_reader_password",
    # Of the role that reads PostgreSQL's statistics and no events.
    "postgres_exporter_password",
    # For Prometheus, Alertmanager, their exporters and people, outside local environments.
    "monitoring_password",
    # Of Grafana's first administrator, and the key that Grafana encrypts stored passwords with.
    "grafana_admin_password",
    "grafana_secret_key",
    # The key that clients of the API send, and the secret that signs the cookies of the page.
    "api_key",
    "api_cookie_secret",
    # The probe's own key, so that other clients do not use up its rate limit.
    "api_probe_key",
)


def generate() -> dict[str, str]:
    """Return a fresh set of secrets."""
    made = {name: secrets.token_urlsafe(24) for name in NAMES}
    # Kafka's form of an identity: 16 bytes in URL-safe base64 without padding, not beginning with a hyphen.
    identity = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    made["kafka_cluster_id"] = "S" + identity[1:]
    return made


def file_for(environment: Environment) -> Path:
    """Return the file of variables with the environment's secrets; it is made for machines that the project makes.

    :raises OperatorError: an environment of existing hosts has no secrets; the text names the command.
    """
    if not environment.ours:
        return _vault(environment)
    file = environment.state / "secrets.json"
    known = json.loads(file.read_text(encoding="utf-8"))["streampulse_secrets"] if file.exists() else {}
    # An environment of an older release lacks secrets that were added since.
    if not set(NAMES) <= set(known):
        temporary = file.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
            json.dump({"streampulse_secrets": generate() | known}, handle)
        give_to_invoker(temporary)
        temporary.replace(file)
    return file


def _vault(environment: Environment) -> Path:
    file = environment.folder / "vault.yml"
    if not file.exists():
        raise OperatorError(
            f"{environment.name} has no secrets: export {VAULT_VARIABLE}=FILE, then "
            f"inv env secrets {environment.name} --write"
        )
    if not file.read_bytes().startswith(b"$ANSIBLE_VAULT"):
        program = shlex.quote(inventory.program("ansible-vault"))
        raise OperatorError(f"{file} is not encrypted: {program} encrypt {shlex.quote(str(file))}")
    _require_password(file, "is encrypted")
    try:
        run([inventory.program("ansible-vault"), "view", str(file)], environment=inventory.configuration())
    except CommandError as error:
        raise OperatorError(
            f"the password in {os.environ[VAULT_VARIABLE]} does not open {file} ({error}): export "
            f"{VAULT_VARIABLE}=FILE with the file of the right password"
        ) from None
    return file


def write_vault(environment: Environment) -> Path:
    """Write fresh secrets, encrypted, into the vault of an environment of existing hosts, and return the vault's file.

    :raises OperatorError: there is a vault already, no password file is named, or the vault cannot be encrypted.
    """
    file = environment.folder / "vault.yml"
    if environment.ours:
        raise OperatorError(f"{environment.name} needs no vault: inv up --env {environment.name} makes its secrets")
    if file.exists():
        program = shlex.quote(inventory.program("ansible-vault"))
        raise OperatorError(f"{file} exists, and its secrets may be in use: {program} edit {shlex.quote(str(file))}")
    _require_password(file, "is written encrypted")
    command = [inventory.program("ansible-vault"), "encrypt", "--output", str(file), "-"]
    try:
        run(command, stdin=as_yaml(), environment=inventory.configuration())
    except CommandError as error:
        raise OperatorError(f"{file} was not written ({error}): put that right, then try again") from None
    return file


def _require_password(file: Path, what: str) -> None:
    """Check that a file with the vault's password is named.

    :raises OperatorError: no file is named.
    """
    if not os.environ.get(VAULT_VARIABLE):
        raise OperatorError(f"{file} {what} and nothing says with what: export {VAULT_VARIABLE}=FILE, then try again")


def as_yaml() -> str:
    """Return a fresh set of secrets as the content of a vault."""
    return yaml.safe_dump({"streampulse_secrets": generate()}, explicit_start=True)
