"""Files of the monitoring roles: hashes, runbook pages, and targets from the inventory."""

import json
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_runs import load, shown

from streampulse_ops import paths
from streampulse_ops.monitoring import rules

ROOT = paths.repository()


FILTERS = {
    name: each
    for file in ("bcrypt", "runbooks")
    for name, each in load(ROOT / f"ansible/plugins/filter/streampulse_{file}.py").FilterModule().filters().items()
}


def test_a_password_has_one_hash_and_the_hash_is_of_that_password() -> None:
    first = FILTERS["streampulse_bcrypt"]("the password of an environment")
    assert FILTERS["streampulse_bcrypt"]("the password of an environment") == first
    assert bcrypt.checkpw(b"the password of an environment", first.encode())
    assert not bcrypt.checkpw(b"another", first.encode())
    other = FILTERS["streampulse_bcrypt"]("another")
    assert other[:29] != first[:29], "two passwords share a salt"


@pytest.mark.parametrize("password", ["", "x" * 73])
def test_a_password_that_cannot_be_hashed_is_refused(password: str) -> None:
    with pytest.raises(AnsibleFilterError, match="inv env secrets NAME"):
        FILTERS["streampulse_bcrypt"](password)


RUNBOOK = """\
---
severity: page
last_updated: 2026-11-25
alerts: [KafkaDown, KafkaSlow]
---
# Kafka is down & out

See [the host](host-down.md#look), [its documents](https://kafka.apache.org/) and [operations](../operations.md#up).

## Diagnosis

```sh host=kafka changes=no expect="active"
systemctl is-active kafka.service <&-
```

| a | b |
|---|---|
| 1 | <script>alert(1)</script> |
"""


def test_a_runbook_is_a_page() -> None:
    page = FILTERS["streampulse_page"](RUNBOOK)
    assert "<title>Kafka is down &amp; out - streampulse</title>" in page
    assert "<h1>Kafka is down &amp; out</h1>" in page
    facts = "severity: page · last updated: 2026-11-25 · alerts: KafkaDown, KafkaSlow"
    assert f'</h1>\n<p class="facts">{facts}</p>' in page
    assert '<a href="host-down.html#look">the host</a>' in page
    assert '<a href="https://kafka.apache.org/">its documents</a>' in page
    # A path that is not served beside it is no link.
    assert "and operations." in page
    assert "systemctl is-active kafka.service &lt;&amp;-" in page
    assert "<td>1</td>" in page
    assert "<script" not in page


def test_a_runbooks_page_has_the_proof_of_its_drill() -> None:
    proof = {"version": "0.2.0", "commit": "abc", "told": 34, "recovered": 41, "rows": 0}
    page = FILTERS["streampulse_page"](RUNBOOK, proof)
    assert "KafkaSlow · proven on 0.2.0: told after 34 s, recovered after 41 s, 0 rows differ</p>" in page


def test_the_index_leads_to_each() -> None:
    page = FILTERS["streampulse_runbook_index"]({"kafka-down": RUNBOOK, "api-down": "# The API is down\n"})
    links = ['<a href="api-down.html">The API is down</a>', '<a href="kafka-down.html">Kafka is down &amp; out</a>']
    assert all(link in page for link in links)
    assert page.index(links[0]) < page.index(links[1])


def test_front_matter_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="front matter"):
        FILTERS["streampulse_page"]("---\n[\n---\n# X\n")


HOSTS = """\
all:
  vars: {provider: %s, ansible_connection: local, streampulse_ports: {prometheus: 19090}}
  hosts: {left: {private_address: 10.0.0.9}}
  children:
    kafka: {hosts: {k1: {private_address: 10.0.0.1}, k2: {private_address: 10.0.0.2}}}
    spark_master: {hosts: {s: {private_address: 10.0.0.3}}}
    spark_worker: {hosts: {s: {}}}
    postgres: {hosts: {s: {}}}
    api: {hosts: {s: {api_listen_address: 10.9.9.9, edge_certificate: PEM}}}
    generator: {hosts: {}}
    monitoring: {hosts: {w1: {private_address: 10.0.0.4}, w2: {private_address: 10.0.0.5}}}
"""
ROLE = str(ROOT / "ansible/roles/prometheus")
WRITTEN = (
    f"{{'config': lookup('ansible.builtin.template', '{ROOT}/prometheus/prometheus.yml.j2'), "
    "'arguments': _prometheus_arguments, 'rules': _prometheus_rule_files}"
)


@pytest.fixture(scope="module", params=["existing", "nspawn"])
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, provider: str) -> Any:
    """Return the role's files for the first monitoring host, for an inventory of several hosts."""
    folder = tmp_path_factory.mktemp("inventory")
    (folder / "hosts.yml").write_text(HOSTS % provider)
    play = {
        "hosts": "w1",
        "vars_files": [f"{ROLE}/defaults/main.yml", f"{ROLE}/vars/main.yml"],
        "vars": {"role_path": ROLE, "full": True, "streampulse_environment": "demo"},
    }
    extra = {"streampulse_secrets": {"monitoring_password": "secret"}, "ansible_python_interpreter": "/usr/bin/python3"}
    sources = ["-i", str(folder / "hosts.yml"), "-i", str(ROOT / "ansible/ports")]
    return shown(folder, sources, WRITTEN, play=play, variables=extra)["w1"]


def test_targets_follow_from_the_inventory(written: Any, provider: str) -> None:
    config = yaml.safe_load(written["config"])
    assert config["global"]["external_labels"] == {"environment": "demo"}
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    seen = {
        name: {target["labels"]["host"]: target["targets"] for target in job["static_configs"]}
        for name, job in jobs.items()
    }
    assert seen["kafka"] == {"k1": ["10.0.0.1:9404"], "k2": ["10.0.0.2:9404"]}
    assert seen["postgres-exporter"] == {"s": ["10.0.0.3:9187"]}
    assert seen["prometheus"] == {"w1": ["10.0.0.4:19090"], "w2": ["10.0.0.5:19090"]}
    # Every host with a group, and no other.
    assert set(seen["node-exporter"]) == {"k1", "k2", "s", "w1", "w2"}
    assert "generator" not in seen
    assert jobs["api"]["metrics_path"] == "/prometheus"
    # The edge has the public port of existing hosts, and TLS where it has a certificate.
    assert seen["api"] == {"s": ["10.9.9.9:8001" if provider == "existing" else "10.9.9.9:8000"]}
    assert seen.get("edge") == ({"s": ["10.0.0.3:8000"]} if provider == "existing" else None)
    if provider == "existing":
        assert jobs["edge"]["static_configs"][0]["labels"] == {"host": "s", "__scheme__": "https"}
    [manager] = config["alerting"]["alertmanagers"]
    assert manager["static_configs"] == [{"targets": ["10.0.0.4:9093", "10.0.0.5:9093"]}]
    # Targets with a password get it from a file; no configuration contains it.
    guarded = {name for name, job in jobs.items() if "basic_auth" in job}
    ours = {"node-exporter", "postgres-exporter", "kafka", "prometheus", "alertmanager"}
    assert guarded & (ours | {"api", "job"}) == (ours if provider == "existing" else set())
    assert ("basic_auth" in manager) is (provider == "existing")
    assert "secret" not in json.dumps(written)
    assert any("web.config.file" in argument for argument in written["arguments"]) is (provider == "existing")


def test_rules_lead_to_pages_that_this_environment_has(written: Any) -> None:
    texts = {Path(file["path"]).name: file["content"] for file in written["rules"]}
    assert texts.keys() == rules.texts().keys()
    assert "http://10.0.0.4:19090/user/runbooks/" in "".join(texts.values())
    assert "http://10.0.0.4:3000/d/" in "".join(texts.values())
    assert not any(mark in text for text in texts.values() for mark in ("@RUNBOOKS@", "@GRAFANA@"))
    assert yaml.safe_load(written["config"])["rule_files"] == [file["path"] for file in written["rules"]]
