"""An environment for end-to-end tests, driven from outside: by ./inv, by SSH, by HTTP and by Kafka's protocol."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
STATE = Path("/var/lib/streampulse-machines")

# Environments: name, system, network, and whether the machine is made on the layer of the roles' tests. The one of
# Debian 12 has a second machine for the generator, and its alerts go to a receiver of the tests (port PAGER).
DEBIAN_12 = ("e2e12", "debian12", "10.79.1.0/24", False)
DEBIAN_13 = ("e2e", "debian13", "10.79.2.0/24", False)
WATCHED = ("e2e-watched", "debian13", "10.79.4.0/24", True)

PAGER = 18765

INVENTORY = """\
---
all:
  vars:
    provider: nspawn
    machine_os: {machine_os}
    nspawn_subnet: {subnet}
    nspawn_layer: "{layer}"
    drills_allowed: true
    alertmanager_webhook_url: "{pager}"
    # Several of these machines share two processors. Most of the cost of few events is that of their batches.
    job_settings: {{trigger_interval_ms: 1500}}
    generator_settings: {{rate: 60, duplicates: 0.05, disorder: 0.05, late: 0.01, garbage: 0.01}}
  children:
    kafka: {{hosts: {{{host}: }}}}
    spark_master: {{hosts: {{{host}: }}}}
    spark_worker: {{hosts: {{{host}: }}}}
    postgres: {{hosts: {{{host}: }}}}
    api: {{hosts: {{{host}: }}}}
    generator: {{hosts: {{{generator}: }}}}
    monitoring: {{hosts: {{{host}: }}}}
"""


@dataclass(frozen=True)
class Done:
    """The result of a command."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


@dataclass(frozen=True)
class Stack:
    """One environment on one machine."""

    name: str
    inventories: Path

    @classmethod
    def make(cls, name: str, machine_os: str, subnet: str, inventories: Path, layer: str = "") -> "Stack":
        folder = inventories / name
        folder.mkdir(parents=True)
        host = f"sp-{name}"
        apart = (name, machine_os, subnet) == DEBIAN_12[:3]
        text = INVENTORY.format(
            machine_os=machine_os,
            subnet=subnet,
            layer=layer,
            host=host,
            generator=f"{host}-2" if apart else host,
            pager=f"http://{subnet.rpartition('.')[0]}.1:{PAGER}/" if apart else "",
        )
        (folder / "hosts.yml").write_text(text)
        return cls(name, inventories)

    @property
    def host(self) -> str:
        return f"sp-{self.name}"

    def environment(self) -> dict[str, str]:
        return {**os.environ, "STREAMPULSE_INVENTORIES": str(self.inventories), "NO_COLOR": "1"}

    def inv(self, *arguments: str, seconds: float = 600, env: str | None = None) -> Done:
        """Run ./inv with this environment's name."""
        done = subprocess.run(
            [ROOT / "inv", *arguments, "--env", env or self.name],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        print(f"$ inv {' '.join(arguments)} -> {done.returncode}\n{done.stdout}{done.stderr}")  # noqa: T201
        return Done(done.returncode, done.stdout, done.stderr)

    def inv_ok(self, *arguments: str, seconds: float = 600) -> str:
        """Run ./inv, which must succeed, and return its output."""
        done = self.inv(*arguments, seconds=seconds)
        assert done.code == 0, done.text
        return done.out

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start ./inv in a separate process group."""
        return subprocess.Popen(
            [ROOT / "inv", *arguments, "--env", self.name],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def variables(self) -> dict[str, Any]:
        """Return the machine's address and SSH arguments from the provider."""
        document = json.loads((STATE / self.name / "inventory.json").read_text())
        found: dict[str, Any] = _find(document, self.host)
        return found

    @property
    def address(self) -> str:
        return str(self.variables()["ansible_host"])

    def ssh(self, command: str, seconds: float = 60) -> Done:
        """Run a shell command on the machine as root."""
        done = subprocess.run(self._login(command), capture_output=True, text=True, timeout=seconds, check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    def popen(self, command: str) -> subprocess.Popen[bytes]:
        """Start a shell command on the machine as root and drop its output."""
        return subprocess.Popen(self._login(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _login(self, command: str) -> list[str]:
        return [
            "ssh",
            *("-i", str(self.variables()["ansible_ssh_private_key_file"])),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"),
            *("-o", "BatchMode=yes", f"root@{self.address}", command),
        ]

    def ssh_ok(self, command: str, seconds: float = 60) -> str:
        done = self.ssh(command, seconds)
        assert done.code == 0, f"{command}: {done.text}"
        return done.out

    def get(self, path: str) -> Any:
        """Return the API's JSON response, whatever its status."""
        return httpx.get(f"http://{self.address}:8000{path}", timeout=10, trust_env=False).json()

    def totals(self) -> tuple[int, int]:
        """Return the numbers of records read and of events counted, from the ledger."""
        answer = self.ssh_ok(
            "runuser -u postgres -- psql -XAt streampulse -c"
            ' "SELECT (SELECT sum(value::bigint) FROM jsonb_each_text(offsets)),'
            ' (SELECT sum(accepted) FROM batch_ledger) FROM counted_up_to"'
        )
        read, counted = answer.strip().split("|")
        return int(read), int(counted)

    def next_offset(self, partition: int) -> int:
        """Return the job's offset in a partition, from the ledger."""
        answer = self.ssh_ok('runuser -u postgres -- psql -XAt streampulse -c "SELECT offsets FROM counted_up_to"')
        return int(json.loads(answer).get(str(partition), 0))

    def machine_pids(self) -> list[int]:
        """Return the processes of this host that run this environment's machines."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if any(word.startswith(f"--directory={STATE / self.name}/") for word in words) and any(
                word.endswith("systemd-nspawn") for word in words[:4]
            ):
                found.append(int(entry.name))
        return found

    def init_pids(self) -> list[int]:
        """Return the machine's PID 1 as this host sees it: the children of its nspawn."""
        return [
            int(child)
            for pid in self.machine_pids()
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]


def _find(document: Any, host: str) -> Any:
    if isinstance(document, dict):
        if host in document and isinstance(document[host], dict) and "ansible_host" in document[host]:
            return document[host]
        for value in document.values():
            found = _find(value, host)
            if found is not None:
                return found
    return None


def until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait for a condition and return the seconds taken; a time-out names the condition."""
    started = time.monotonic()
    while True:
        try:
            if condition():
                return time.monotonic() - started
        except (OSError, httpx.HTTPError, AssertionError, ValueError) as error:
            what_else = f" ({error})"
        else:
            what_else = ""
        if time.monotonic() - started > seconds:
            raise AssertionError(f"not within {seconds:g} s: {what}{what_else}")
        time.sleep(0.5)


def converged_layer() -> str:
    """Return the name of the roles' tests' layer of this checkout; empty without one."""
    asked = [sys.executable, str(ROOT / "ansible" / "molecule" / "machine.py"), "layer"]
    return str(subprocess.run(asked, check=True, capture_output=True, text=True).stdout).strip()


@pytest.fixture(scope="session")
def stack(
    bootable: None,  # noqa: ARG001 - checks whether machines can be booted
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Stack:
    """Provide an environment that is not up yet.

    Modules that request the same one share its machine, one after the other.
    """
    name, machine_os, subnet, on_layer = request.param
    layer = converged_layer() if on_layer else ""
    made = Stack.make(name, machine_os, subnet, tmp_path_factory.mktemp("inventories"), layer)
    made.inv("down", "--wipe", "--yes")
    return made


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Remove a test's machine unless the next test uses it: pytest would keep it to the end, beside other tests."""
    made = getattr(item, "funcargs", {}).get("stack")
    if isinstance(made, Stack) and (nextitem is None or _machine(item) != _machine(nextitem)):
        made.inv("down", "--wipe", "--yes")


def _machine(item: pytest.Item) -> object:
    """Return the parameter of the fixture ``stack`` of a test."""
    call = getattr(item, "callspec", None)
    return call and call.params.get("stack")
