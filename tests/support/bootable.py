"""Checks of this host for tests of all kinds: whether it can boot machines."""

import os
import sys

import pytest


def why_no_machines() -> str | None:
    """Return why machines cannot be booted here, None if they can."""
    if sys.platform != "linux":
        return "machines are booted with systemd-nspawn, which needs Linux"
    if os.geteuid() != 0:
        return "booting machines needs root: run it with sudo"
    try:
        # A container without these rights cannot make a network namespace, so it cannot boot a machine.
        child = os.fork()
        if child == 0:
            try:
                _unshare()
            except OSError:
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
    except OSError as error:
        return f"no process could be started: {error}"
    return None if status == 0 else "this container may not make namespaces"


def _unshare() -> None:
    import ctypes

    clone_newns, clone_newnet = 0x00020000, 0x40000000
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(clone_newns | clone_newnet) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


@pytest.fixture(scope="session")
def bootable() -> None:
    """Skip, or with CI=true fail, if machines cannot be booted."""
    reason = why_no_machines()
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must run the tests that boot machines, and cannot: {reason}")
    pytest.skip(reason)
