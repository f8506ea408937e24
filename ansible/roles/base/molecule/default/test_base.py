"""Every service can be set up on this host, and none can read another's secrets."""

import grp
import pwd
import socket
import stat
from pathlib import Path

import pytest
from asking import can_read, run

ETC = Path("/etc/streampulse")
SERVICES = ("kafka", "spark-master", "spark-worker", "streampulse-job", "streampulse-generator", "streampulse-api")
OWNERS = {"postgres-writer.env": "streampulse-job", "postgres-reader.env": "streampulse-api"}


def test_every_service_has_a_system_user_of_its_own() -> None:
    entries = [pwd.getpwnam(user) for user in SERVICES]
    assert all(entry.pw_shell.endswith("nologin") and entry.pw_uid < 1000 for entry in entries), entries
    assert len({entry.pw_uid for entry in entries}) == len(SERVICES), "two services share a user"


@pytest.mark.parametrize("name", OWNERS)
def test_a_password_is_for_the_group_of_its_service(name: str) -> None:
    state = (ETC / name).stat()
    assert (stat.S_IMODE(state.st_mode), grp.getgrgid(state.st_gid).gr_name) == (0o640, OWNERS[name])


@pytest.mark.parametrize("user", sorted(set(SERVICES) - {"streampulse-job"}))
def test_no_other_service_reads_the_writers_password(user: str) -> None:
    assert not can_read(user, str(ETC / "postgres-writer.env"))


def test_the_hosts_name_is_not_loopback() -> None:
    # Spark announces the address that the name resolves to.
    assert not socket.gethostbyname(socket.gethostname()).startswith("127.")


def test_every_set_of_artifacts_arrived_whole() -> None:
    sets = sorted(Path("/var/cache/streampulse/artifacts").glob("*/*/.complete"))
    assert {entry.parts[-3] for entry in sets} >= {"kafka", "spark", "release"}, sets


def test_the_journal_is_on_the_disk_and_bounded() -> None:
    # journald's effective settings.
    message = "MESSAGE_ID=ec387f577b844b8fa948f33cad9a75e6"
    said = run("journalctl", "--output=cat", "--boot", "_TRANSPORT=driver", message)
    persistent = [line for line in said.splitlines() if line.startswith("System Journal (/var/log/journal/")]
    assert persistent, said
    assert "max 1G" in persistent[-1], persistent[-1]


@pytest.mark.parametrize("program", ["java", "rsync", "psql"])
def test_a_program_is_installed(program: str) -> None:
    run("sh", "-c", f"command -v {program}")


def test_the_hosts_own_command_is_shell() -> None:
    run("sh", "-n", "/usr/local/bin/streampulse")
