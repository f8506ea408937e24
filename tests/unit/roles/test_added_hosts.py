"""A host that is added restarts nothing on the others: the roles' real files, with and without it."""

from pathlib import Path
from typing import Any

import yaml
from ansible_runs import ANSIBLE, shown

from streampulse_ops import paths
from streampulse_ops.environments import secrets

ROLES = sorted(folder.name for folder in (ANSIBLE / "roles").iterdir())
GROUPS = ("kafka", "spark_master", "spark_worker", "postgres", "api", "generator", "monitoring")
SET = {"version": "1", "digest": "d" * 64, "id": "d" * 12}
VARIABLES = {
    "full": True,
    "base_facts": {"release": "trixie", "machine": "x86_64", "packages": [], "artifacts": [], "container": True},
    "streampulse_artifacts": {
        **dict.fromkeys(("kafka", "jmx", "spark", "release"), SET), "wheels": {"cp313": SET},
    },
    # Results of tasks that run before the configuration.
    "__edge_ipv6": {"stat": {"exists": True}},
    "grafana_there": True,
}  # fmt: skip
#: The edge is named: by default an added host of the API would become one.
ALONE = {name: ["one"] for name in (*GROUPS, "edge")}
Files = dict[str, dict[str, Any]]


def configured(folder: Path, groups: dict[str, list[str]]) -> Files:
    """Return the content of each role's files and the paths that restart its service, on the host ``one``.

    The roles are the repository's own; their tasks are replaced by one that keeps what ``streampulse_files`` gets.
    """
    folder = folder / "ansible"
    for role in ROLES:
        source, made = ANSIBLE / "roles" / role, folder / "roles" / role
        (made / "tasks").mkdir(parents=True)
        for part in ("defaults", "files", "templates", "vars"):
            if (source / part).exists():
                (made / part).symlink_to(source / part)
        written = []
        for file in (source / "tasks").glob("*.yml"):
            for task in yaml.safe_load(file.read_text()) or []:
                arguments = task.get("streampulse_files") or {}
                written += [arguments[key] for key in ("files", "secret_files") if key in arguments]
        watch = f"{{{{ lookup('ansible.builtin.vars', '_{role}_watch', default=[]) }}}}"
        kept = {f"kept_{role}": {"files": written, "watch": watch}}
        (made / "tasks/main.yml").write_text(yaml.safe_dump([{"name": "Keep", "ansible.builtin.set_fact": kept}]))
    for name in ("systemd", "prometheus", "grafana", "docs", "sql"):
        (folder.parent / name).symlink_to(paths.repository() / name)
    hosts = {
        name: {"hosts": {host: {"private_address": f"10.0.0.{len(host)}"} for host in members}}
        for name, members in groups.items()
    }
    # A broker joins without a vote.
    hosts["kafka"]["hosts"].get("second", {})["kafka_node_id"] = "4"
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"vars": {"provider": "existing"}, "children": hosts}}))
    tasks = [{"ansible.builtin.include_role": {"name": role}, "when": "inventory_hostname == 'one'"} for role in ROLES]
    expression = "{" + ", ".join(f"'{role}': kept_{role} | default({{}})" for role in ROLES) + "}"
    sources = ["-i", str(folder / "hosts.yml"), "-i", str(ANSIBLE / "ports")]
    found: Files = shown(folder, sources, expression, play={"tasks": tasks}, variables=VARIABLES)["one"]
    return found


def contents(found: Files) -> dict[str, str]:
    """Return each file's content by path."""
    listed = [entry for kept in found.values() for files in kept["files"] for entry in files]
    return {entry["path"]: entry["content"] for entry in listed}


def test_an_added_host_changes_only_files_that_services_read_again(tmp_path: Path) -> None:
    VARIABLES["streampulse_secrets"] = secrets.generate()
    before = configured(tmp_path / "before", ALONE)
    added = {name: ["one", "second"] for name in ("kafka", "spark_worker", "generator", "api")}
    after = configured(tmp_path / "after", {**ALONE, **added})
    watched = {path for kept in before.values() for path in kept["watch"]}
    assert watched == {path for kept in after.values() for path in kept["watch"]}
    old, new = contents(before), contents(after)
    changed = {path for path in old.keys() | new.keys() if old.get(path) != new.get(path)}
    # The probe's own settings name the hosts of the API.
    assert changed & watched == {"/etc/streampulse/probe.env"}
    # The comparison sees the added host: Prometheus scrapes it.
    assert "/etc/prometheus/streampulse/prometheus.yml" in changed
