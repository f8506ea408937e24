"""The list of services."""

import pytest
import yaml

from streampulse.core.errors import OperatorError
from streampulse_ops import paths, services
from streampulse_ops.environments.environment import Host

HOST = Host("h", frozenset({"kafka", "api"}))


def test_services_are_those_of_the_roles() -> None:
    names = [service.name for service in services.all_services()]
    base = ["postgres", "kafka", "spark-master", "spark-worker", "job", "generator", "api", "edge"]
    assert names[: len(base)] == base
    assert {"node-exporter", "postgres-exporter", "alertmanager", "prometheus", "probe"} <= set(names[len(base) :])
    assert [service.name for service in services.all_services() if not service.full] == base
    assert services.named("postgres").unit == "postgresql@*-main.service"
    assert [service.name for service in services.base_on_host(HOST)] == ["kafka", "api"]
    assert [service.name for service in services.on_host(HOST)] == ["kafka", "api", "node-exporter"]
    assert services.on_host(Host("left", frozenset({"all"}))) == []
    with pytest.raises(OperatorError, match=r"kafak is not a service. There are: postgres, kafka"):
        services.named("kafak")


def test_every_service_has_a_role_a_unit_and_ports_that_are_given_out() -> None:
    root = paths.repository()
    given = yaml.safe_load((root / "ansible/ports/defaults.yml").read_text())["all"]["vars"][
        "streampulse_default_ports"
    ]
    listed = [name for service in services.all_services() for name in service.ports]
    # A page that a setting turns on may have a port of its own.
    listed += [page.port for page in services.pages().values() if page.setting and page.port not in listed]
    listed += [name for entry in services.entries() for name in entry.get("shard_ports", ())]
    assert sorted(listed) == sorted(given)
    for service in services.all_services():
        assert (root / "ansible/roles" / service.name.replace("-", "_") / "tasks/main.yml").is_file()
        unit = service.unit.replace("*-main", "")
        assert any((root / "systemd" / f"{unit}{end}").is_file() for end in (".j2", ".conf.j2")), unit
