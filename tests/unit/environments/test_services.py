"""The list of services."""

from __future__ import annotations

import pytest

from streampulse.core.errors import OperatorError
from streampulse_ops import services
from streampulse_ops.environments.environment import Host

HOST = Host("h", frozenset({"kafka", "api"}))


def test_services_are_those_of_the_roles() -> None:
    names = [service.name for service in services.all_services()]
    base = ["postgres", "kafka", "spark-master", "spark-worker", "job", "generator", "api"]
    assert names[: len(base)] == base
    assert {"node-exporter", "postgres-exporter", "alertmanager", "prometheus", "probe"} <= set(names[len(base) :])
    assert [service.name for service in services.all_services() if not service.full] == base
    assert services.named("postgres").unit == "postgresql@*-main.service"
    assert [service.name for service in services.base_on_host(HOST)] == ["kafka", "api"]
    assert [service.name for service in services.on_host(HOST)] == ["kafka", "api", "node-exporter"]
    assert services.on_host(Host("left", frozenset({"all"}))) == []
    with pytest.raises(OperatorError, match=r"kafak is not a service. There are: postgres, kafka"):
        services.named("kafak")
