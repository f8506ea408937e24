"""The log-in of the agent in Kafka's JVM."""

import hashlib
import itertools
from pathlib import Path

import yaml
from ansible_runs import ANSIBLE, shown


def test_a_hash_with_leading_zeros_is_written_as_the_agent_writes_it(tmp_path: Path) -> None:
    hashes = ((f"p{n}", hashlib.sha256(f"salt:p{n}".encode()).hexdigest()) for n in itertools.count())
    password, digest = next((password, digest) for password, digest in hashes if digest.startswith("0"))
    (tmp_path / "hosts.yml").write_text("all: {hosts: {one: }}")
    template = ANSIBLE / "roles/kafka/templates/jmx.yml.j2"
    variables = {
        "streampulse_monitoring_auth": True,
        "_kafka_agent_salt": "salt",
        "streampulse_secrets": {"monitoring_password": password},
    }
    written = shown(
        tmp_path,
        ["-i", str(tmp_path / "hosts.yml")],
        f"lookup('ansible.builtin.template', '{template}')",
        variables=variables,
    )["one"]
    log_in = yaml.safe_load(written)["httpServer"]["authentication"]["basic"]
    # MessageDigestAuthenticator of jmx_exporter 1.0.1: new BigInteger(1, digest).toString(16)
    assert log_in["passwordHash"] == f"{int(digest, 16):x}"
