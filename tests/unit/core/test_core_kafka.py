"""Clients of Kafka that find no broker."""

import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import psutil
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaTimeoutError

from streampulse.core import kafka


@pytest.mark.parametrize("client", [KafkaAdminClient, KafkaConsumer, KafkaProducer])
def test_attempts_that_fail_leave_no_thread_and_no_connection_behind(
    client: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "_FIRST_ATTEMPT_SECONDS", 0.1)
    with ExitStack() as opened:
        # They take connections and do not answer.
        hanging = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        servers = ",".join(f"127.0.0.1:{each.getsockname()[1]}" for each in hanging)

        threads, files = threading.active_count(), psutil.Process().num_fds()
        with pytest.raises(KafkaTimeoutError, match=f"no broker of {servers} answers"):
            kafka.connected(client, 0.7, bootstrap_servers=servers)
        assert threading.active_count() <= threads
        assert psutil.Process().num_fds() <= files
