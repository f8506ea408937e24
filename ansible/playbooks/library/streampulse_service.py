#!/usr/bin/python3
"""Ansible module: a systemd unit that runs, is enabled, and runs with what is on the disk now."""

from __future__ import annotations

import datetime
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: streampulse_service
short_description: A unit that runs with the configuration that is on the disk
description:
  - Reloads systemd when a unit file changed, enables the unit, starts it, and restarts it when one of the watched
    paths is newer than its main process. So a run that was interrupted between writing a file and restarting the
    service is completed by the next one, which a handler alone would have forgotten.
  - Starting waits for the unit's own readiness (C(Type=notify) or C(ExecStartPost=)). When it fails, the message holds
    the unit's journal.
options:
  name: {description: Name of the unit., type: str, required: true}
  state:
    description: Wanted state. C(absent) stops the unit and has it not started at boot; its file stays.
    type: str
    choices: [started, stopped, absent]
    default: started
  watch:
    description: Files and links the running process was started from.
    type: list
    elements: path
    default: []
  wait:
    description: Wait until the unit is ready. Without, systemd is told to start it and nothing more is known.
    type: bool
    default: true
  lines: {description: Lines of the journal shown on failure., type: int, default: 30}
"""

RETURN = r"""
reason: {description: Why the unit was started or restarted, type: str, returned: changed}
"""

PROPERTIES = "LoadState,ActiveState,UnitFileState,NeedDaemonReload,ExecMainStartTimestamp"


class Unit:
    """One systemd unit."""

    def __init__(self, module: AnsibleModule, name: str) -> None:
        self.module = module
        self.name = name
        self.read()

    def read(self) -> None:
        """Ask systemd for the unit's state."""
        _, out, _ = self.module.run_command(
            ["systemctl", "show", "--timestamp=us+utc", f"--property={PROPERTIES}", self.name], check_rc=True
        )
        self.state = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)

    @property
    def active(self) -> bool:
        """Whether the unit runs and is ready."""
        return self.state["ActiveState"] in ("active", "reloading")

    def started_at(self) -> float:
        """Return when the main process started, in seconds since the epoch; 0 when it never did."""
        text = self.state.get("ExecMainStartTimestamp", "")
        if not text or text == "n/a":
            return 0.0
        return datetime.datetime.strptime(f"{text}+0000", "%a %Y-%m-%d %H:%M:%S.%f UTC%z").timestamp()

    def newer(self, watch: list[str]) -> list[str]:
        """Return the watched paths that changed after the main process had started."""
        started = self.started_at()
        return [
            path
            for path in watch
            if (Path(path).is_symlink() or Path(path).exists()) and Path(path).lstat().st_mtime > started
        ]

    def run(self, verb: str, lines: int, wait: bool = True) -> None:
        """Run a verb of systemctl on the unit; on failure end with the journal."""
        code, _, err = self.module.run_command(["systemctl", *(() if wait else ("--no-block",)), verb, self.name])
        if code == 0:
            return
        _, journal, _ = self.module.run_command(
            ["journalctl", "--no-pager", "--output=cat", f"--lines={lines}", f"--unit={self.name}"]
        )
        reason = err.strip().splitlines()[0] if err.strip() else f"systemctl ended with {code}"
        self.module.fail_json(
            msg=f"{self.name} did not {verb}: {reason}\nThe last lines of its journal:\n{journal.rstrip()}"
        )


def stop(module: AnsibleModule, unit: Unit, for_good: bool) -> None:
    """Stop the unit, for good: also at the next boot, and end the module."""
    running = unit.state["LoadState"] != "not-found" and unit.state["ActiveState"] not in ("inactive", "failed")
    enabled = for_good and unit.state["UnitFileState"] == "enabled"
    if running and not module.check_mode:
        unit.run("stop", module.params["lines"])
    if enabled and not module.check_mode:
        unit.run("disable", module.params["lines"])
    module.exit_json(changed=running or enabled, reason="it was running" if running else "")


def start(module: AnsibleModule, unit: Unit) -> None:
    """Start the unit, or restart it when it is older than what it was started from, and end the module."""
    missing = unit.state["LoadState"] == "not-found"
    if not module.check_mode and (missing or unit.state["NeedDaemonReload"] == "yes"):
        module.run_command(["systemctl", "daemon-reload"], check_rc=True)
        unit.read()
        missing = unit.state["LoadState"] == "not-found"
    if missing and not module.check_mode:
        module.fail_json(msg=f"{unit.name} is not known to systemd: run inv up, which installs it")
    if missing:
        module.exit_json(changed=True, reason="it is not installed yet")
    # A unit that is starting by itself, after boot say, may have read what has changed since; before its main process
    # has started it has read nothing.
    starting = unit.state["ActiveState"] == "activating"
    newer = unit.newer(module.params["watch"]) if unit.active or (starting and unit.started_at()) else []
    verb, reason, wait = "", "", module.params["wait"]
    if newer:
        verb, reason = "restart", f"{', '.join(newer)} changed after it had started"
    elif starting:
        # Waiting until it is ready changes nothing.
        if wait and not module.check_mode:
            unit.run("start", module.params["lines"])
    elif not unit.active:
        verb, reason = "start", f"it was {unit.state['ActiveState']}"
    enable = unit.state["UnitFileState"] == "disabled"
    for step in ["enable"] * enable + [verb] * bool(verb):
        if not module.check_mode:
            unit.run(step, module.params["lines"], wait or step == "enable")
    module.exit_json(changed=enable or bool(verb), reason=reason)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["started", "stopped", "absent"], "default": "started"},
            "watch": {"type": "list", "elements": "path", "default": []},
            "wait": {"type": "bool", "default": True},
            "lines": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    unit = Unit(module, module.params["name"])
    if module.params["state"] == "started":
        start(module, unit)
    else:
        stop(module, unit, for_good=module.params["state"] == "absent")


if __name__ == "__main__":
    main()
