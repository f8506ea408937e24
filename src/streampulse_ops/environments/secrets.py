"""Secrets of an environment: made once, never shown, readable by their owner only."""

from __future__ import annotations

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
from streampulse_ops.environments.environment import Environment

NAMES = (
    "kafka_cluster_id",
    "postgres_writer_password",
    "postgres_reader_password",
    # Reads how PostgreSQL is doing, and no events.
    "postgres_exporter_password",
    # Lets Prometheus, Alertmanager, their exporters and people in, outside local environments.
    "monitoring_password",
    # Grafana's first administrator, and what Grafana encrypts with what it stores of others.
    "grafana_admin_password",
    "grafana_secret_key",
    # Lets its bearer read the API, and signs the cookies of those who logged in with it.
    "api_key",
    "api_cookie_secret",
    # The probe's own: what everybody else asks for does not count against it.
    "api_probe_key",
)


def generate() -> dict[str, str]:
    """Return a fresh set of secrets."""
    made = {name: secrets.token_urlsafe(24) for name in NAMES}
    # Kafka's form of an identity: 16 bytes in URL-safe base64 without padding, and not beginning with a hyphen.
    identity = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    made["kafka_cluster_id"] = "S" + identity[1:]
    return made


def file_for(environment: Environment) -> Path:
    """Return the file of variables with the environment's secrets, making them where the machines are ours too.

    :raises OperatorError: an environment of existing hosts has none; the text names the commands.
    """
    if not environment.ours:
        return _vault(environment)
    file = environment.state / "secrets.json"
    known = json.loads(file.read_text(encoding="utf-8"))["streampulse_secrets"] if file.exists() else {}
    # An environment that an older release made lacks what has been added since.
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
            f"{environment.name} has no secrets: inv env secrets {environment.name} | "
            f"ansible-vault encrypt --output {shlex.quote(str(file))}"
        )
    if not file.read_text(encoding="utf-8").startswith("$ANSIBLE_VAULT"):
        raise OperatorError(f"{file} is not encrypted: ansible-vault encrypt {shlex.quote(str(file))}")
    if not os.environ.get("ANSIBLE_VAULT_PASSWORD_FILE"):
        raise OperatorError(
            f"{file} is encrypted and nothing says with what: export ANSIBLE_VAULT_PASSWORD_FILE=FILE, then try again"
        )
    return file


def as_yaml() -> str:
    """Return a fresh set of secrets as the variables file that goes into a vault."""
    return yaml.safe_dump({"streampulse_secrets": generate()}, explicit_start=True)
