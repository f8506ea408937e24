"""Grafana's settings and secrets are as designed, and only logged-in users get answers."""

import configparser
import json
import pwd
import re
import stat
from pathlib import Path

import pytest
from asking import get, kill, run, settings, show, until

UNIT = "grafana-server.service"
ETC = Path("/etc/streampulse")
INI = configparser.ConfigParser(interpolation=None)
INI.read_string("[DEFAULT]\n" + (ETC / "grafana/grafana.ini").read_text())
URL = f"http://{INI['server']['http_addr']}:{INI['server']['http_port']}"
SECRETS = settings("grafana")
ADMIN = ("admin", SECRETS["GF_SECURITY_ADMIN_PASSWORD"])
SOURCES = ["streampulse-prometheus", "streampulse-alertmanager", "streampulse-postgres"]
BOARDS = {
    board["uid"]: board
    for board in (json.loads(file.read_text()) for file in sorted((ETC / "grafana/dashboards").glob("*.json")))
}
EXPECTED = {
    ("server", "http_port"): "3000",
    ("server", "root_url"): f"{URL}/",
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


@pytest.mark.parametrize(("section", "key"), EXPECTED)
def test_a_setting(section: str, key: str) -> None:
    assert INI.get(section, key) == EXPECTED[section, key]


def test_only_root_reads_its_secrets_and_they_are_nowhere_else() -> None:
    state = (ETC / "grafana.env").stat()
    assert (stat.S_IMODE(state.st_mode), state.st_uid) == (0o600, 0)
    assert set(SECRETS) == {
        "GF_SECURITY_ADMIN_PASSWORD",
        "GF_SECURITY_SECRET_KEY",
        "GF_METRICS_BASIC_AUTH_PASSWORD",
        "STREAMPULSE_GRAFANA_POSTGRES_PASSWORD",
        "STREAMPULSE_GRAFANA_MONITORING_PASSWORD",
    }
    assert SECRETS["GF_SECURITY_ADMIN_PASSWORD"] != SECRETS["GF_SECURITY_SECRET_KEY"]
    for file in (path for path in (ETC / "grafana").rglob("*") if path.is_file()):
        text = file.read_text()
        assert not [name for name, secret in SECRETS.items() if secret in text], file
        assert "@RUNBOOKS@" not in text, file
    command = Path(f"/proc/{show(UNIT, 'MainPID')}/cmdline").read_bytes().decode()
    assert not [name for name, secret in SECRETS.items() if secret in command]


def test_it_has_three_sources_and_eight_dashboards() -> None:
    sources = (ETC / "grafana/provisioning/datasources/streampulse.yaml").read_text()
    assert re.findall(r"^ +uid: (\S+)$", sources, re.MULTILINE) == SOURCES
    assert len(BOARDS) == 8


@pytest.mark.parametrize("uid", BOARDS)
def test_a_dashboard_has_existing_sources_and_is_shown(uid: str) -> None:
    variables = BOARDS[uid]["templating"]["list"]
    assert {each["current"]["value"] for each in variables if each["type"] == "datasource"} <= set(SOURCES)
    runbooks = re.findall(r'"(http[^"]*/user/runbooks/[a-z-]+\.html)', json.dumps(BOARDS[uid]))
    assert runbooks or uid == "streampulse-audience"
    assert get(f"{URL}/api/dashboards/uid/{uid}", *ADMIN)[0] == 200


@pytest.mark.parametrize(
    ("path", "login", "status"),
    [
        ("/api/health", (), 200),
        ("/api/user", (), 401),
        ("/api/user", ("admin", "admin"), 401),
        ("/api/dashboards/uid/streampulse-overview", (), 401),
        ("/metrics", (), 401),
        ("/metrics", ("streampulse", SECRETS["GF_METRICS_BASIC_AUTH_PASSWORD"]), 200),
        ("/api/user", ADMIN, 200),
        ("/api/dashboards/uid/streampulse-nothing", ADMIN, 404),
    ],
    ids=lambda value: value if isinstance(value, str) else str(len(value)) if isinstance(value, tuple) else "",
)
def test_only_logged_in_users_are_answered(path: str, login: tuple[str, ...], status: int) -> None:
    assert get(f"{URL}{path}", *login)[0] == status


def test_it_listens_on_one_address_as_its_own_user() -> None:
    listening = run("ss", "-Hltn", "sport", "=", ":3000").split()
    assert [word for word in listening if word.endswith(":3000")] == [f"{INI['server']['http_addr']}:3000"]
    assert Path(f"/proc/{show(UNIT, 'MainPID')}").stat().st_uid == pwd.getpwnam("grafana").pw_uid
    assert stat.S_IMODE(Path("/var/lib/grafana").stat().st_mode) == 0o750
    run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", UNIT)


def test_apt_has_no_new_source_and_moves_grafana_by_the_role_only() -> None:
    lists = [path for path in Path("/etc/apt").rglob("*") if path.suffix in (".list", ".sources")]
    assert lists
    assert not [path for path in lists if "grafana" in path.read_text()]
    run("apt-get", "update", "--error-on=any")
    policy = run("apt-cache", "policy", "grafana")
    assert re.search(r"^ +\S+ 1001$", policy, re.MULTILINE) or re.search(r"\*\*\* \S+ 1001", policy), policy
    assert not Path("/var/cache/streampulse/packages").exists()


def test_it_comes_back_after_a_kill() -> None:
    kill(UNIT)
    until("Grafana answers", 90, lambda: get(f"{URL}/api/health")[0] == 200)
