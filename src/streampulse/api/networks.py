"""Who is asking: addresses, networks, and what a trusted proxy says."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from starlette.types import Scope

from streampulse.core.settings import split


class Networks:
    """A list of networks, as settings have it.

    :param text: networks separated by commas.
    """

    def __init__(self, text: str) -> None:
        self._networks = [ipaddress.ip_network(word) for word in split(text)]
        self._known = lru_cache(1024)(self._look)

    def __bool__(self) -> bool:
        return bool(self._networks)

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
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def client(scope: Scope) -> str:
    """Return the address of who is asking, or ``-`` where there is none."""
    found = scope.get("client")
    return str(found[0]) if found else "-"


def household(text: str) -> str:
    """Return what stands for an address in a rate limit: of IPv6 its /64, which is one customer's."""
    address = _address(text)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address) if address is not None else text


def _host(hop: str) -> str:
    """Return a hop without its port, which some proxies add: ``192.0.2.1:4711``, ``[2001:db8::1]:4711``."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    host, colon, port = hop.rpartition(":")
    return host if colon and ":" not in host and port.isdigit() else hop


def forwarded(scope: Scope, proxies: Networks) -> None:
    """Put into a request's scope what a trusted proxy says of the client: its address and its scheme."""
    if client(scope) not in proxies:
        return
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    hops = [_host(hop.strip()) for hop in headers.get(b"x-forwarded-for", "").split(",") if hop.strip()]
    if b"forwarded" in headers or b"x-forwarded-for" in headers:
        # Whom it does not name as we read it is unknown, and not the proxy itself, which may ask for what is private.
        scope["client"] = None
    # The last hop that is no proxy of ours: what stands before it, anybody may have written.
    while hops:
        hop = hops.pop()
        if _address(hop) is None:
            scope["client"] = None
            break
        scope["client"] = (hop, 0)
        if hop not in proxies:
            break
    if headers.get(b"x-forwarded-proto", "").strip() == "https":
        scope["scheme"] = "https"
