"""Asserts that every service could be set up on this host, and that none could read another's secrets."""

import grp
import pwd
import socket
import stat
import subprocess
from pathlib import Path

ETC = Path("/etc/streampulse")
SERVICES = ("kafka", "spark-master", "spark-worker", "streampulse-job", "streampulse-generator", "streampulse-api")

for user in SERVICES:
    entry = pwd.getpwnam(user)
    assert entry.pw_shell.endswith("nologin"), f"{user} can log in with {entry.pw_shell}"
    assert entry.pw_uid < 1000, f"{user} is not a system user"
assert len({pwd.getpwnam(user).pw_uid for user in SERVICES}) == len(SERVICES), "two services share a user"

for name, group in (("postgres-writer.env", "streampulse-job"), ("postgres-reader.env", "streampulse-api")):
    state = (ETC / name).stat()
    assert stat.S_IMODE(state.st_mode) == 0o640, f"{name} has mode {stat.S_IMODE(state.st_mode):o}"
    assert grp.getgrgid(state.st_gid).gr_name == group, f"{name} belongs to {grp.getgrgid(state.st_gid).gr_name}"
for other in sorted(set(SERVICES) - {"streampulse-job"}):
    read = subprocess.run(
        ["runuser", "-u", other, "--", "cat", str(ETC / "postgres-writer.env")], check=False, capture_output=True
    )
    assert read.returncode != 0, f"{other} can read the writer's password"

name = socket.gethostname()
assert not socket.gethostbyname(name).startswith("127."), f"{name} is {socket.gethostbyname(name)}: Spark needs its own"

sets = sorted(Path("/var/cache/streampulse/artifacts").glob("*/*/.complete"))
assert {entry.parts[-3] for entry in sets} >= {"kafka", "connector", "spark", "release"}, f"only {sets} arrived"

# What journald itself says it goes by.
said = subprocess.run(
    ["journalctl", "--output=cat", "--boot", "_TRANSPORT=driver", "MESSAGE_ID=ec387f577b844b8fa948f33cad9a75e6"],
    check=True, capture_output=True, text=True,
).stdout  # fmt: skip
persistent = [line for line in said.splitlines() if line.startswith("System Journal (/var/log/journal/")]
assert persistent, f"no journal on the disk: {said}"
assert "max 1G" in persistent[-1], f"the journal's bound is not 1 GiB: {persistent[-1]}"

for program in ("java", "rsync", "psql"):
    found = subprocess.run(["sh", "-c", f"command -v {program}"], check=False, capture_output=True, text=True)
    assert found.returncode == 0, f"{program} is not installed"
subprocess.run(["sh", "-n", "/usr/local/bin/streampulse"], check=True)
