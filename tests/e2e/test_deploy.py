"""Releases on three hosts that exist already: deployed under load, taken back by themselves, and rolled back."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest
from stack import ROOT, STATE, Done, Stack

from streampulse_ops import paths

pytestmark = pytest.mark.machines

#: The groups of the hosts. Spark's master, and with it the job, is on `counting`; PostgreSQL on `storing`.
THREE = """\
    kafka: {hosts: {counting: }}
    spark_master: {hosts: {counting: }}
    spark_worker: {hosts: {counting: }}
    postgres: {hosts: {storing: }}
    api: {hosts: {storing: }}
    generator: {hosts: {watching: }}
"""
SEVEN = """\
    kafka: {hosts: {broker-1: , broker-2: , broker-3: }}
    spark_master: {hosts: {counting: }}
    spark_worker: {hosts: {counting: , working: }}
    postgres: {hosts: {storing: }}
    api: {hosts: {watching: }}
    generator: {hosts: {watching: }}
    monitoring: {hosts: {watching: }}
"""
#: CI takes three hosts. Seven, with faults of hosts and with scaling, are for machines with time.
MANY = "STREAMPULSE_SEVEN_HOSTS" in os.environ
GROUPS = SEVEN if MANY else THREE
HOSTS = tuple(dict.fromkeys(re.findall(r"[\w-]+(?=: [,}])", GROUPS)))
API = "watching" if MANY else "storing"
MACHINES = """\
---
all:
  vars: {{provider: nspawn, machine_os: debian13, nspawn_subnet: 10.79.6.0/24}}
  children: {{machines: {{hosts: {{{hosts}}}}}}}
"""
INVENTORY = """\
---
all:
  vars:
    provider: existing
    ansible_user: deploy
    ansible_become: true
    ansible_ssh_private_key_file: {state}/id_ed25519
    ansible_ssh_common_args: -F {folder}/ssh_config -o UserKnownHostsFile={folder}/known_hosts
    host_pythons: [cp313]
    edge_requests_per_minute: 60000
    edge_burst: 2000
    release_proof_events: 1000
    api_settings: {{rate_limit_per_minute: 1000000}}
    job_settings: {{trigger_interval_ms: 1500}}
    generator_settings: {{rate: 300, duplicates: 0.05, disorder: 0.05, late: 0.01, garbage: 0.01}}
  hosts: {{{hosts}}}
  children:
{groups}"""
USER = (
    "useradd --create-home --shell /bin/bash deploy && echo 'deploy ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/deploy"
    " && install -d -o deploy -m 0700 ~deploy/.ssh"
    " && install -o deploy -m 0600 ~/.ssh/authorized_keys ~deploy/.ssh/authorized_keys"
)
#: The password that sudo asks for on `storing`.
PASSWORD = "it's a $word"  # noqa: S105 - of a test's machine
STRICT = (
    f"echo {shlex.quote('deploy:' + PASSWORD)} | chpasswd && echo 'deploy ALL=(ALL) ALL' > /etc/sudoers.d/deploy && "
    "install -d /etc/systemd/system/ssh.service.d && printf '[Service]\\nUMask=0027\\n'"
    " > /etc/systemd/system/ssh.service.d/umask.conf && systemctl daemon-reload && systemctl restart ssh"
    " && ln -sf /usr/share/zoneinfo/Asia/Kathmandu /etc/localtime && apt-get -qq update"
    " && apt-get -qq install --yes --no-install-recommends locales && localedef -i de_DE -f UTF-8 de_DE.UTF-8"
    " && echo LANG=de_DE.UTF-8 > /etc/default/locale"
)


@dataclass(frozen=True)
class Staging:
    """Three machines as hosts that the project did not make."""

    folder: Path
    addresses: dict[str, str]

    def write(self, groups: str) -> None:
        """Write the inventory."""
        addresses = {**self.addresses, "watching": "behind-storing"}
        more = {
            "storing": f", ansible_become_password: {json.dumps(PASSWORD)}",
            "watching": f", private_address: {self.addresses['watching']}",
        }
        hosts = ", ".join(f"{name}: {{ansible_host: {to}{more.get(name, '')}}}" for name, to in addresses.items())
        text = INVENTORY.format(state=STATE / "depm", folder=self.folder, hosts=hosts, groups=groups)
        (self.folder / "dep/hosts.yml").write_text(text)

    def environment(self, **more: str) -> dict[str, str]:
        return {
            **os.environ,
            "NO_COLOR": "1",
            "STREAMPULSE_INVENTORIES": str(self.folder),
            "XDG_STATE_HOME": str(self.folder / "state"),
            "ANSIBLE_VAULT_PASSWORD_FILE": str(self.folder / "password"),
            **more,
        }

    def started(self, *words: str, checkout: Path = ROOT) -> subprocess.Popen[str]:
        """Start a task of a checkout, which shares this checkout's virtual environment."""
        program = [str(ROOT / ".venv/bin/python"), "-m", "streampulse_ops.cli.program", "--search-root", str(checkout)]
        return subprocess.Popen(
            [*program, *words, "--env", "dep"],
            env=self.environment(PYTHONPATH=str(checkout / "src")),
            cwd=checkout,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def inv(self, *words: str, checkout: Path = ROOT) -> Done:
        began = time.monotonic()
        with self.started(*words, checkout=checkout) as process:
            out, errors = process.communicate(timeout=900)
        took = time.monotonic() - began
        print(f"$ inv {' '.join(words)} -> {process.returncode} after {took:.1f} s\n{out}{errors}")  # noqa: T201
        return Done(process.returncode, out, errors)

    def ok(self, *words: str, checkout: Path = ROOT) -> str:
        done = self.inv(*words, checkout=checkout)
        # 3: Grafana's packages were not found, everything else is there.
        assert done.code in ([0, 3] if MANY else [0]), done.text
        return done.out

    def key(self) -> str:
        """Return the API's key, as a host has it."""
        text = self.ssh(API, "cat /etc/streampulse/api-keys.env")
        return re.search(r"STREAMPULSE_API_KEYS=['\"]?([\w-]+)", text)[1]  # type: ignore[index]

    def ssh(self, host: str, command: str, seconds: float = 60) -> str:
        state = STATE / "depm"
        login = ["ssh", "-i", str(state / "id_ed25519"), "-o", f"UserKnownHostsFile={state / 'known_hosts'}"]
        words = [*login, f"root@{self.addresses[host]}", command]
        return str(subprocess.run(words, check=True, capture_output=True, text=True, timeout=seconds).stdout)


@dataclass
class Asker:
    """Asks the API 200 times a second and keeps the answers that are not 200."""

    url: str
    key: str
    asked: int = 0
    failed: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Asker:
        self._threads = [threading.Thread(target=self._ask) for _ in range(8)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        headers = {"Authorization": f"Bearer {self.key}"}
        with httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False) as client:
            due = time.monotonic()
            while not self._over.is_set():
                try:
                    answer = client.get("/state?limit=5")
                    reason = "" if answer.status_code == httpx.codes.OK else f"{answer.status_code} {answer.text[:80]}"
                except httpx.HTTPError as error:
                    reason = repr(error)
                self.asked += 1
                if reason:
                    self.failed.append(f"{time.strftime('%T')} {reason}")
                due = max(due + len(self._threads) / 200, time.monotonic() - 1)
                time.sleep(max(due - time.monotonic(), 0))


def sign(staging: Staging, host: str) -> None:
    """Let an authority sign a host's key, and know that host by the authority alone."""
    authority, key = staging.folder / "authority", staging.folder / "host.pub"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", authority], check=True)
    key.write_text(staging.ssh(host, "cat /etc/ssh/ssh_host_ed25519_key.pub"))
    signed = f"-q -s {authority} -h -I {host} -n {staging.addresses[host]} {key}"
    subprocess.run(["ssh-keygen", *signed.split()], check=True)
    certificate = (staging.folder / "host-cert.pub").read_text().strip()
    staging.ssh(
        host,
        f"echo '{certificate}' > /etc/ssh/host-cert.pub"
        " && echo 'HostCertificate /etc/ssh/host-cert.pub' > /etc/ssh/sshd_config.d/certificate.conf"
        " && systemctl restart ssh",
    )
    known = (STATE / "depm/known_hosts").read_text().splitlines()
    others = [line for line in known if not line.startswith(f"{staging.addresses[host]} ")]
    assert 0 < len(others) < len(known)
    text = [*others, f"@cert-authority * {authority.with_suffix('.pub').read_text().strip()}", ""]
    (staging.folder / "known_hosts").write_text("\n".join(text))


@pytest.fixture(scope="module")
def staging(bootable: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staging]:  # noqa: ARG001
    folder = tmp_path_factory.mktemp("deploy")
    for name in ("depm", "dep"):
        (folder / name).mkdir()
    (folder / "depm/hosts.yml").write_text(MACHINES.format(hosts=", ".join(f"dep-{name}: " for name in HOSTS)))
    machines = Stack("depm", folder)
    made = [sys.executable, "-m", "streampulse_ops.machines"]
    machines.inv("down", "--wipe", "--yes")
    subprocess.run([*made, "up", "--env", "depm"], env=machines.environment(), check=True)
    hosts = json.loads((STATE / "depm/inventory.json").read_text())["all"]["hosts"]
    addresses = {name: str(hosts[f"dep-{name}"]["ansible_host"]) for name in HOSTS}
    staging = Staging(folder, addresses)
    (folder / "ssh_config").write_text(
        f"Host behind-storing\n HostName {addresses['watching']}\n Port 2222\n"
        f" ProxyCommand ssh -F none -i {STATE}/depm/id_ed25519 -o UserKnownHostsFile={folder}/known_hosts"
        f" -W %h:%p deploy@{addresses['storing']}\n"
    )
    staging.write(GROUPS)
    (folder / "password").write_text("of the vault\n")
    program = [str(ROOT / "inv"), "env", "secrets", "dep", "--write"]
    subprocess.run(program, env=staging.environment(), check=True)
    for name in HOSTS:
        staging.ssh(name, USER)
    # Files get the modes that they need, whatever a host's sshd or sudo gives.
    staging.ssh("storing", STRICT)
    staging.ssh("watching", "printf 'Port 22\\nPort 2222\\n' > /etc/ssh/sshd_config.d/ports.conf")
    # Codecs of Kafka's client load native code from there.
    staging.ssh("counting", "mount -t tmpfs -o noexec,nosuid,nodev tmpfs /tmp")
    # A minimal image lacks apt's bindings for Python.
    staging.ssh("watching", "dpkg --purge python3-apt")
    sign(staging, "watching")
    yield staging
    shutil.rmtree(paths.cache_home() / "releases/dep", ignore_errors=True)
    machines.inv("down", "--wipe", "--yes")


def changed(tmp_path: Path, file: str, old: str, new: str) -> Path:
    """Return a copy of the checkout in which a text of one file is another."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in ("ansible", "docs", "grafana", "prometheus", "requirements", "sql", "src", "systemd"):
        shutil.copytree(ROOT / name, copy / name)
    for name in ("artifacts.lock.yml", "artifacts.yml", "pyproject.toml", "tasks.py"):
        shutil.copyfile(ROOT / name, copy / name)
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new, 1))
    return copy


def running(staging: Staging) -> str:
    """Return the name of the release that runs."""
    return re.search(r"releases in .* · (\S+) runs", staging.ok("releases"))[1]  # type: ignore[index]


def test_a_first_deploy_starts_everything_from_nothing(staging: Staging) -> None:
    assert "no release was deployed" in staging.ok("releases")
    assert "everything starts together" in staging.ok("deploy", "--dry-run")
    said = staging.ok("deploy", *["--full"] * MANY)
    assert re.search(r"smoke +\d+ events sent, 1 row exact, API agrees", said)
    # A wrong umask once made these folders unreadable.
    staging.ssh("counting", "find /opt/* -type d -exec chmod o= {} +")
    staging.ok("deploy")
    assert staging.ssh("counting", "find /opt/* -type d ! -perm -o=x") == ""
    assert "0 changed" in staging.ok("deploy")
    # Every host was locked, and is no more.
    assert [staging.ssh(host, "stat --format=%s /run/streampulse.lock") for host in HOSTS] == ["0\n"] * len(HOSTS)


#: A broker without a vote, a worker and an API join on hosts that have other services.
GROWN = (
    SEVEN.replace("broker-3: }", "broker-3: , storing: {kafka_node_id: 4}}")
    .replace("working: }", "working: , storing: }")
    .replace("api: {hosts: {watching: }", "api: {hosts: {watching: , working: }")
    if MANY
    else THREE.replace("kafka: {hosts: {counting: }", "kafka: {hosts: {counting: , watching: {kafka_node_id: 4}}")
    .replace("spark_worker: {hosts: {counting: }", "spark_worker: {hosts: {counting: , watching: }")
    .replace("api: {hosts: {storing: }", "api: {hosts: {storing: , watching: }")
)
NEW = "storing" if MANY else "watching"
BROKER = "broker-1" if MANY else "counting"
SPREAD = "/usr/local/lib/streampulse/kafka-topics --spread --timeout 240"
UNREGISTER = (
    "java -cp '/opt/kafka/current/libs/*' org.apache.kafka.tools.ClusterTool unregister --id 4"
    " --bootstrap-server $(hostname -I | cut -d' ' -f1):9092"
)


def processes(staging: Staging) -> dict[tuple[str, str], str]:
    """Return the main process of each running service, by host and unit."""
    found = {}
    for host in HOSTS:
        shown = staging.ssh(
            host, "systemctl show --property=MainPID,Id 'kafka*' 'spark-*' 'streampulse-*' 'postgresql@*'"
        )
        for block in shown.split("\n\n"):
            values = dict(line.split("=", 1) for line in block.split())
            if values.get("MainPID", "0") != "0":
                found[host, values["Id"]] = values["MainPID"]
    return found


def test_hosts_join_and_leave_while_the_others_run_on(staging: Staging) -> None:
    before = processes(staging)
    # Each API trusts the edge of every other one.
    steady = {
        each: pid
        for each, pid in before.items()
        if each[1] not in ("streampulse-api.service", "streampulse-probe.service")
    }
    staging.write(GROWN)
    staging.ok("deploy")
    after = processes(staging)
    assert steady.items() <= after.items()
    assert {(NEW, "kafka.service"), (NEW, "spark-worker.service")} <= after.keys() - before.keys()
    assert re.search(r"stream.events-\d+: .* to .*4", staging.ssh(BROKER, SPREAD, 300))
    assert "all equal" in staging.ok("verify")

    staging.ssh(BROKER, f"{SPREAD} --without 4", 300)
    staging.write(GROUPS)
    staging.ok("deploy")
    staging.ssh(BROKER, UNREGISTER)
    left = processes(staging)
    assert steady.items() <= left.items()
    assert not {(NEW, "kafka.service"), (NEW, "spark-worker.service")} & left.keys()
    assert "no fault" in staging.ok("doctor")
    staging.ok("status")
    assert staging.ok("logs", "postgres", "--lines", "1")
    assert "all equal" in staging.ok("verify")


def test_a_host_is_upgraded_and_rebooted(staging: Staging) -> None:
    before = staging.ssh("watching", "systemctl show --property=UserspaceTimestampMonotonic")
    assert "1 of 1 hosts changed" in staging.ok("upgrade", "--reboot", "--host", "watching")
    assert staging.ssh("watching", "systemctl show --property=UserspaceTimestampMonotonic") != before


@pytest.fixture(scope="module")
def second(staging: Staging, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Deploy a second release under load and return the names of the first and of the second."""
    first = running(staging)
    checkout = changed(
        tmp_path_factory.mktemp("second"), "src/streampulse/__init__.py", '"""Real', '"""The second. Real'
    )
    with Asker(f"http://{staging.addresses[API]}:8000", staging.key()) as asker:
        said = staging.ok("deploy", "--prove", checkout=checkout)
        time.sleep(2)
    print(f"{asker.asked} requests, {len(asker.failed)} failed: {asker.failed[:5]}")  # noqa: T201
    for gate in ("proof on counting: proved: ", "spark-worker on counting: ", "job on counting: ", f"api on {API}: "):
        assert re.search(rf"gate +{gate}", said), said
    assert asker.asked > 1000
    # The API has one host: requests wait while it restarts.
    assert asker.failed == []
    return first, running(staging)


def test_a_second_release_under_load_counts_right(staging: Staging, second: tuple[str, str]) -> None:
    assert second[0] != second[1]
    assert "all equal" in staging.ok("verify")


@pytest.mark.parametrize(
    ("file", "old", "new", "service"),
    [
        ("src/streampulse/job/__main__.py", 'sys.exit(main(["job"]))', 'sys.exit("a planted fault")', "job"),
        (
            "src/streampulse/api/queries.py",
            "SELECT stream_id, active_viewers, updated_at FROM stream_state WHERE",
            "SELECT stream_id, active_viewers + 1 AS active_viewers, updated_at FROM stream_state WHERE",
            "api",
        ),
    ],
    ids=["a job that cannot start", "an API that answers wrongly"],
)
def test_a_release_that_fails_its_gate_is_taken_back(
    staging: Staging, second: tuple[str, str], tmp_path: Path, file: str, old: str, new: str, service: str
) -> None:
    checkout = changed(tmp_path, file, old, new)
    failed = staging.inv("deploy", checkout=checkout)
    assert failed.code == 1
    assert f"{second[1]} runs again" in failed.text
    assert f"inv logs {service}" in failed.text
    assert running(staging) == second[1]
    again = staging.inv("deploy", checkout=checkout)
    assert (again.code, "--force" in again.text) == (1, True)
    staging.ok("smoke")


def test_a_release_that_miscounts_is_refused_before_a_service_changes(
    staging: Staging, second: tuple[str, str], tmp_path: Path
) -> None:
    fault = changed(tmp_path, "src/streampulse/job/counting/engine.py", "by_type[code] += 1", "by_type[code] += 2")
    before = staging.ssh("counting", "systemctl show --property=MainPID 'streampulse-*'")
    refused = staging.inv("deploy", "--prove", checkout=fault)
    assert refused.code == 1
    assert re.search(r"no service was changed: it counts otherwise .*differs: ", refused.text, re.DOTALL)
    assert staging.ssh("counting", "systemctl show --property=MainPID 'streampulse-*'") == before
    assert running(staging) == second[1]
    assert "it counts otherwise" in staging.inv("deploy", checkout=fault).text


def test_a_rollback_brings_the_release_before_from_a_hosts_bundle(staging: Staging, second: tuple[str, str]) -> None:
    shutil.rmtree(paths.cache_home() / "releases/dep")
    staging.ok("rollback")
    assert running(staging) == second[0]
    assert "0 changed" in staging.ok("deploy")
    assert "all equal" in staging.ok("verify")
    table = staging.ok("releases")
    assert table.count(" failed, ") == 3


#: Where the control process is killed: Ansible's log, and a text in it. CI takes the first.
KILLS = {"in the migration": ("site", "Bring the schema to this release")}
if MANY:
    KILLS |= {
        "on the way back": ("back", "TASK [job : "),
        "after the proof": ("prove", "PLAY RECAP"),
        "after the brokers' gate": ("site", "TASK [spark : "),
        "after the workers' gate": ("site", "TASK [job : "),
        "after the job's gate": ("site", "TASK [api : "),
        "after the API's gate": ("site", "TASK [edge : "),
        "in the smoke test": ("site", "PLAY RECAP"),
    }


@pytest.mark.parametrize("where", KILLS)
def test_a_deploy_whose_control_process_was_killed_is_completed_by_the_next(
    staging: Staging, tmp_path: Path, where: str
) -> None:
    checkout = changed(tmp_path, "src/streampulse/__init__.py", '"""Real', f'"""Killed {where}. Real')
    (checkout / "sql/9000.slow.sql").write_text(f"SELECT pg_sleep(4); -- {where}\n")
    job = checkout / "src/streampulse/job/__main__.py"
    good = job.read_text()
    if where == "on the way back":
        job.write_text(good.replace('sys.exit(main(["job"]))', 'sys.exit("a planted fault")'))
    name, text = KILLS[where]
    log = staging.folder / f"state/streampulse/dep/logs/{name}.log"
    log.unlink(missing_ok=True)
    with staging.started("deploy", *["--prove"] * (name == "prove"), checkout=checkout) as process:
        while not (log.exists() and text in log.read_text()):
            assert process.poll() is None, f"{where} was not reached"
            time.sleep(0.1)
        time.sleep(1)
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for each in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
    job.write_text(good)
    said = staging.ok("deploy", checkout=checkout)
    assert where != "on the way back" or "was interrupted and is completed" in said
    assert "0 changed" in staging.ok("deploy", checkout=checkout)
    assert "all equal" in staging.ok("verify")


many = pytest.mark.skipif(not MANY, reason="it needs more hosts: STREAMPULSE_SEVEN_HOSTS=1")


def gap(staging: Staging, until: float) -> float:
    """Return the longest time between two commits from now until a time of the monotonic clock, in seconds."""
    longest = 0.0
    age = "SELECT extract(epoch FROM clock_timestamp() - max(committed_at)) FROM batch_ledger"
    while time.monotonic() < until:
        seen = staging.ssh("storing", f"runuser -u postgres -- psql -XAt streampulse -c '{age}'")
        longest = max(longest, float(seen))
        time.sleep(1)
    return longest


@many
@pytest.mark.parametrize("host", ["broker-2", "working", "watching"])
def test_a_host_that_loses_its_power_costs_no_number(staging: Staging, second: tuple[str, str], host: str) -> None:  # noqa: ARG001
    with contextlib.suppress(subprocess.CalledProcessError):
        staging.ssh(host, "systemctl --no-block poweroff --force --force")
    print(f"longest time without a commit: {gap(staging, time.monotonic() + 60):.0f} s")  # noqa: T201
    made = [sys.executable, "-m", "streampulse_ops.machines", "up", "--env", "depm"]
    subprocess.run(made, env=Stack("depm", staging.folder).environment(), check=True)
    staging.ok("deploy")
    assert "all equal" in staging.ok("verify")


@many
@pytest.mark.parametrize(
    ("one", "others"),
    [
        ("broker-1", [host for host in HOSTS if host != "broker-1"]),
        ("broker-1", ["counting"]),
        ("counting", ["storing"]),
    ],
    ids=["a broker and all others", "a broker and the driver", "the driver and PostgreSQL"],
)
def test_hosts_that_lose_each_other_for_a_minute_cost_no_number(
    staging: Staging,
    second: tuple[str, str],  # noqa: ARG001
    one: str,
    others: list[str],
) -> None:
    inside = ["ip", "netns", "exec", f"depm.dep-{one}", "iptables", "--wait"]
    rule = ["INPUT", "--source", ",".join(staging.addresses[each] for each in others), "--jump", "DROP"]
    subprocess.run([*inside, "--insert", *rule], check=True)
    try:
        longest = gap(staging, time.monotonic() + 60)
    finally:
        subprocess.run([*inside, "--delete", *rule], check=True)
    over = time.monotonic()
    while gap(staging, time.monotonic() + 1) > 5:
        assert time.monotonic() < over + 120, "nothing is committed"
    after = time.monotonic() - over
    print(f"longest time without a commit: {longest:.0f} s, committing again after {after:.0f} s")  # noqa: T201
    assert "all equal" in staging.ok("verify")


@many
def test_three_brokers_are_stopped_reset_and_wiped(staging: Staging, second: tuple[str, str]) -> None:  # noqa: ARG001
    began = time.monotonic()
    staging.ok("stop", "kafka")
    print(f"three brokers stopped in {time.monotonic() - began:.0f} s")  # noqa: T201
    staging.ok("start", "kafka")
    assert "all equal" in staging.ok("verify")
    staging.ok("reset", "--yes")
    assert "all equal" in staging.ok("verify")
    staging.ok("down", "--full", "--wipe", "--yes")
    staging.ok("up")
    staging.ok("status")
