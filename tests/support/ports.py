"""Ports for the tests' servers."""

import itertools
import os
import random
import socket

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
# Below the kernel's range for outgoing connections. Each of pytest's workers has a thousand of its own, which it goes
# through in a circle: nobody else gets a port before its server listens, or while its server is down for a moment.
_FIRST = 20_000 + 1_000 * (_WORKER % 12)
_SKIPPED = random.SystemRandom().randrange(1_000)
_PORTS = itertools.cycle(_FIRST + (_SKIPPED + n) % 1_000 for n in range(1_000))


def free_port() -> int:
    """Return a free TCP port of 127.0.0.1."""
    while True:
        port = next(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
