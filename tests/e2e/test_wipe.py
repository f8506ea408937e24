"""``down --wipe`` leaves nothing on this host. The last module, because it removes the machine of the others."""

import subprocess

import pytest
from stack import DEBIAN_13, STATE, Stack

pytestmark = [pytest.mark.machines, pytest.mark.parametrize("stack", [DEBIAN_13], indirect=True, scope="session")]


@pytest.fixture(scope="module", autouse=True)
def running(stack: Stack) -> None:
    if not stack.machine_pids():
        stack.inv_ok("up", seconds=900)


def test_wipe_leaves_nothing(stack: Stack) -> None:
    address = stack.address
    stack.inv_ok("down", "--wipe", "--yes")
    stack.inv_ok("down", "--wipe", "--yes")
    assert not stack.machine_pids()
    namespaces = subprocess.run(["ip", "netns"], check=True, capture_output=True, text=True).stdout
    assert f"{stack.name}.{stack.host}" not in namespaces
    links = subprocess.run(["ip", "-o", "addr"], check=True, capture_output=True, text=True).stdout
    assert address.rsplit(".", 1)[0] + "." not in links
    with open("/proc/self/mounts") as mounts:  # noqa: PTH123 - a file of the kernel
        assert f"{STATE / stack.name}/" not in mounts.read()
    rules = subprocess.run(["iptables-save"], check=True, capture_output=True, text=True).stdout
    assert address.rsplit(".", 1)[0] not in rules
    assert not [path for path in (STATE / stack.name).rglob("*") if path.is_file() and path.name != "lock"]
