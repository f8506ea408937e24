"""Requests to own addresses: no proxy, and errors of two kinds."""

import socket

import pytest

from streampulse.core import http


def served(server: socket.socket) -> bytes:
    connection, _ = server.accept()
    with connection:
        return connection.recv(1024)


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(http.NoAnswer):
            # The server takes the connection and does not answer.
            http.get(f"http://127.0.0.1:{port}/path", seconds=0.2)
        assert served(server).startswith(b"GET /path HTTP/1.1\r\n")


@pytest.mark.parametrize("url", ["127.0.0.1:9090", "http://[x", "http://a..b", "ftp://x"])
def test_a_malformed_url_is_a_value_error(url: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        http.get(url, seconds=1)
