"""The job's shards on the hosts of the group job: their units, ports, targets, and what doctor looks at."""

import json
from pathlib import Path

import pytest
import yaml
from test_added_hosts import ALONE, VARIABLES, configured, contents

from streampulse_ops.environments import secrets


def test_shards_go_to_the_hosts_in_turn_each_with_ports_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VARIABLES, "streampulse_secrets", secrets.generate())
    monkeypatch.setitem(VARIABLES, "job_shards", 3)
    kept = configured(tmp_path, {**ALONE, "job": ["one", "second"]})
    files = contents(kept)

    units = "/etc/systemd/system/streampulse-job"
    assert "Wants=streampulse-job@0.service streampulse-job@2.service\n" in files[f"{units}.service"]
    assert "ExecStart=/usr/bin/sleep infinity\n" in files[f"{units}.service"]
    shard = files[f"{units}@.service"]
    assert "Environment=STREAMPULSE_JOB_SHARD=%i\n" in shard
    assert "--properties-file /etc/spark/job@%i.conf " in shard
    assert "PartOf=streampulse-job.service\n" in shard
    assert "[Install]" not in shard
    for number in (0, 2):
        properties = dict(line.split(" ", 1) for line in files[f"/etc/spark/job@{number}.conf"].splitlines()[1:])
        assert properties["spark.driver.port"] == str(7100 + number)
        assert properties["spark.driver.blockManager.port"] == str(7200 + number)
        assert properties["spark.cores.max"] == "1"
    assert "/etc/spark/job@1.conf" not in files, "it is the other host's"
    assert "STREAMPULSE_JOB_SHARDS='3'\n" in files["/etc/streampulse/job.env"]
    assert "STREAMPULSE_JOB_METRICS_PORT='9200'\n" in files["/etc/streampulse/job.env"]
    # The host's unit restarts all of its shards only where there are others.
    assert kept["job"]["watch"] == [f"{units}.service"]

    listed = {each["name"]: each for each in json.loads(files["/etc/streampulse/services.json"])}
    assert listed["job"]["listens"] == []
    assert [port for _, port in listed["job@2"]["listens"]] == [7102, 7202, 9202]
    targets = next(
        job["static_configs"]
        for job in yaml.safe_load(files["/etc/prometheus/streampulse/prometheus.yml"])["scrape_configs"]
        if job["job_name"] == "job"
    )
    assert targets == [
        {"targets": [f"{address}:{9200 + number}"], "labels": {"host": host, "shard": str(number)}}
        for number, (host, address) in enumerate([("one", "10.0.0.3"), ("second", "10.0.0.6"), ("one", "10.0.0.3")])
    ]


def test_one_driver_is_the_unit_that_it_always_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIABLES, "streampulse_secrets", secrets.generate())
    files = contents(configured(tmp_path, ALONE))
    assert "--properties-file /etc/spark/job.conf " in files["/etc/systemd/system/streampulse-job.service"]
    assert "SHARD" not in files["/etc/streampulse/job.env"]
    assert not [path for path in files if "job@" in path]
