"""Ports for the tests' servers."""

import random
import socket


def free_port() -> int:
    """Return a free TCP port of 127.0.0.1.

    It is below the kernel's range for outgoing connections and chosen at random, so that a test of another worker does
    not get it before the caller's server listens.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
