"""Addresses, networks, and the headers of trusted proxies."""

import ipaddress
from functools import lru_cache
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware, _TrustedHosts

from streampulse.core.settings import split


class Networks:
    """A list of networks.

    :param text: networks separated by commas.
    """

    def __init__(self, text: str) -> None:
        self._networks = [ipaddress.ip_network(word) for word in split(text)]
        self._known = lru_cache(1024)(self._look)

    def __contains__(self, address: object) -> bool:
        return self._known(str(address))

    def _look(self, text: str) -> bool:
        address = _address(text)
        return address is not None and any(
            address.version == network.version and address in network for network in self._networks
        )


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def client(scope: Scope) -> str:
    """Return the client's address, or ``-`` if it is unknown."""
    found = scope.get("client")
    return str(found[0]) if found else "-"


def household(text: str) -> str:
    """Return the text that rate limits count an address under: for IPv6 its /64, which one customer has."""
    address = _address(text)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address) if address is not None else text


class _Proxies(_TrustedHosts):
    """Trusted proxies. A server on an IPv6 socket sees an IPv4 proxy as ``::ffff:10.0.0.1``."""

    def __contains__(self, host: str | None) -> bool:
        return super().__contains__(str(_address(host or "") or host))


class TrustedProxies(ProxyHeadersMiddleware):
    """Takes the client's address and scheme from the headers of trusted proxies.

    uvicorn's middleware ignores a scheme in capitals or in a list, and keeps the proxy's own address if the proxy does
    not name the client. The first would lose the Secure attribute of cookies; the second would let the client read what
    only private networks may, so such a client becomes unknown.
    """

    def __init__(self, app: ASGIApp, trusted_hosts: list[str]) -> None:
        super().__init__(app)  # type: ignore[arg-type]  # uvicorn's own types for ASGI
        self.trusted_hosts = _Proxies(trusted_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:  # type: ignore[override]
        """Serve one request."""
        if scope["type"] == "http" and client(scope) in self.trusted_hosts:
            given = dict(scope["headers"])
            headers = [(name, value) for name, value in scope["headers"] if name != b"x-forwarded-proto"]
            scheme = given.get(b"x-forwarded-proto", b"").split(b",")[0].strip().lower()
            headers.append((b"x-forwarded-proto", scheme))
            if not given.get(b"x-forwarded-for", b"-" if b"forwarded" not in given else b"").strip():
                headers = [header for header in headers if header[0] != b"x-forwarded-for"]
                headers.append((b"x-forwarded-for", b"unknown"))
            scope = {**scope, "headers": headers}
        return await super().__call__(scope, receive, send)  # type: ignore[arg-type]
