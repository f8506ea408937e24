"""Asserts what Grafana was told, that nobody else may read it, and that only who logs in gets an answer."""

import base64
import configparser
import json
import os
import pwd
import re
import stat
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

ETC = Path("/etc/streampulse")


def run(*command: str) -> str:
    """Return what a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def environment() -> dict[str, str]:
    """Return what the unit has in its environment."""
    lines = (ETC / "grafana.env").read_text(encoding="utf-8").splitlines()
    return {line.split("=", 1)[0]: line.split("=", 1)[1].strip("'") for line in lines if not line.startswith("#")}


def get(path: str, user: str = "", password: str = "") -> tuple[int, bytes]:
    """Return the status and the body of an answer."""
    request = urllib.request.Request(f"{url}{path}")
    if user:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


ini = configparser.ConfigParser(interpolation=None)
ini.read_string("[DEFAULT]\n" + (ETC / "grafana/grafana.ini").read_text(encoding="utf-8"))
url = f"http://{ini['server']['http_addr']}:{ini['server']['http_port']}"
secrets = environment()

expected = {
    ("server", "http_port"): "3000",
    ("server", "root_url"): f"{url}/",
    ("paths", "data"): "/var/lib/grafana",
    ("paths", "provisioning"): "/etc/streampulse/grafana/provisioning",
    ("users", "allow_sign_up"): "false",
    ("users", "allow_org_create"): "false",
    ("auth.anonymous", "enabled"): "false",
    ("security", "disable_gravatar"): "true",
    ("security", "cookie_samesite"): "lax",
    ("security", "cookie_secure"): "false",
    ("security", "allow_embedding"): "false",
    ("analytics", "reporting_enabled"): "false",
    ("analytics", "check_for_updates"): "false",
    ("analytics", "check_for_plugin_updates"): "false",
    ("news", "news_feed_enabled"): "false",
    ("snapshots", "external_enabled"): "false",
    ("public_dashboards", "enabled"): "false",
    ("plugins", "plugin_admin_enabled"): "false",
    ("plugins", "preinstall_disabled"): "true",
    ("metrics", "basic_auth_username"): "streampulse",
    ("unified_alerting", "execute_alerts"): "false",
    ("log", "mode"): "console",
}
for (section, key), value in expected.items():
    assert ini.get(section, key) == value, f"{section}.{key} is {ini.get(section, key)}"

# Secrets: only root reads them, and they are nowhere else.
assert stat.S_IMODE((ETC / "grafana.env").stat().st_mode) == 0o600
assert (ETC / "grafana.env").stat().st_uid == 0
assert set(secrets) == {
    "GF_SECURITY_ADMIN_PASSWORD",
    "GF_SECURITY_SECRET_KEY",
    "GF_METRICS_BASIC_AUTH_PASSWORD",
    "STREAMPULSE_GRAFANA_POSTGRES_PASSWORD",
    "STREAMPULSE_GRAFANA_MONITORING_PASSWORD",
}
assert len({secrets["GF_SECURITY_ADMIN_PASSWORD"], secrets["GF_SECURITY_SECRET_KEY"]}) == 2
for file in (ETC / "grafana").rglob("*"):
    if file.is_file():
        text = file.read_text(encoding="utf-8")
        assert not [name for name, secret in secrets.items() if secret in text], f"{file} holds a secret"
        assert "@RUNBOOKS@" not in text, f"{file} has a mark that nobody replaced"

# What is provisioned refers to what there is.
sources = (ETC / "grafana/provisioning/datasources/streampulse.yaml").read_text(encoding="utf-8")
uids = re.findall(r"^ +uid: (\S+)$", sources, re.MULTILINE)
assert uids == ["streampulse-prometheus", "streampulse-alertmanager", "streampulse-postgres"]
boards = {
    board["uid"]: board
    for board in (json.loads(file.read_text(encoding="utf-8")) for file in (ETC / "grafana/dashboards").glob("*.json"))
}
assert len(boards) == 8
for board in boards.values():
    chosen = {
        variable["current"]["value"] for variable in board["templating"]["list"] if variable["type"] == "datasource"
    }
    assert chosen <= set(uids), f"{board['uid']} reads {chosen}"
    runbooks = re.findall(r'"(http[^"]*/user/runbooks/[a-z-]+\.html)', json.dumps(board))
    assert runbooks or board["uid"] == "streampulse-audience", f"{board['uid']} has no link to a runbook"

# Who gets an answer.
admin = ("admin", secrets["GF_SECURITY_ADMIN_PASSWORD"])
assert get("/api/health")[0] == 200
assert get("/api/user")[0] == 401
assert get("/api/user", "admin", "admin")[0] == 401
assert get("/api/dashboards/uid/streampulse-overview")[0] == 401
assert get("/metrics")[0] == 401
assert get("/metrics", "streampulse", secrets["GF_METRICS_BASIC_AUTH_PASSWORD"])[0] == 200
assert get("/api/user", *admin)[0] == 200
for uid in boards:
    assert get(f"/api/dashboards/uid/{uid}", *admin)[0] == 200, uid
assert get("/api/dashboards/uid/streampulse-nothing", *admin)[0] == 404

# Where it listens, as whom it runs, and where it keeps what it stores.
listening = run("ss", "-Hltn", "sport", "=", ":3000").split()
assert [word for word in listening if word.endswith(":3000")] == [f"{ini['server']['http_addr']}:3000"]
pid = int(run("systemctl", "show", "--property=MainPID", "--value", "grafana-server.service"))
assert Path(f"/proc/{pid}").stat().st_uid == pwd.getpwnam("grafana").pw_uid
assert stat.S_IMODE(Path("/var/lib/grafana").stat().st_mode) == 0o750
command = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
assert not [name for name, secret in secrets.items() if secret in command], "a secret is in the list of processes"
run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", "grafana-server.service")

# apt: no source was added, the host's own can be read, and nothing but the role moves Grafana.
lists = [path for path in Path("/etc/apt").rglob("*") if path.suffix in (".list", ".sources")]
assert lists
assert not [path for path in lists if "grafana" in path.read_text(encoding="utf-8")]
run("apt-get", "update", "--error-on=any")
policy = run("apt-cache", "policy", "grafana")
assert re.search(r"^ +\S+ 1001$", policy, re.MULTILINE) or re.search(r"\*\*\* \S+ 1001", policy), policy
assert not Path("/var/cache/streampulse/packages").exists()

# It comes back by itself.
os.kill(pid, 9)
begun, back = time.monotonic(), False
while not back and time.monotonic() - begun < 90:
    time.sleep(0.5)
    try:
        back = get("/api/health")[0] == 200
    except OSError:
        continue
assert back, "Grafana did not come back within 90 s"
