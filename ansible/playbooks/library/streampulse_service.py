#!/usr/bin/python3
"""Ansible module: a systemd unit that runs, is enabled, and uses the files now on disk."""

import datetime
import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: streampulse_service
short_description: A unit that runs with the configuration that is on the disk
description:
  - Reloads systemd when the unit's file changed, or that of a timer's service. Enables the unit, starts it, and
    restarts it when one of the watched paths is newer than its main process. The next run therefore completes one that
    was interrupted between writing a file and restarting the service, which a handler would not.
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
    description: Files and links the running process was started from. A newer one restarts the unit.
    type: list
    elements: path
    default: []
  reload:
    description: Files that the running process reads again on a reload. A newer one reloads the unit.
    type: list
    elements: path
    default: []
  gate:
    description: Command that must succeed before a running unit is restarted. It may wait.
    type: list
    elements: str
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

PROPERTIES = (
    "LoadState,ActiveState,UnitFileState,NeedDaemonReload,"
    "ExecMainStartTimestamp,InactiveExitTimestamp,ActiveEnterTimestamp,StateChangeTimestamp"
)


class Unit:
    """One systemd unit."""

    def __init__(self, module: AnsibleModule, name: str) -> None:
        self.module = module
        self.name = name
        self.read()

    def read(self) -> None:
        """Query systemd for the unit's state."""
        _, out, _ = self.module.run_command(
            ["systemctl", "show", "--timestamp=us+utc", f"--property={PROPERTIES}", self.name], check_rc=True
        )
        self.state = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
        if self.name.endswith(".timer"):
            service = self.name.removesuffix("timer") + "service"
            _, out, _ = self.module.run_command(["systemctl", "show", "--property=NeedDaemonReload", service])
            if out.strip() == "NeedDaemonReload=yes":
                self.state["NeedDaemonReload"] = "yes"

    @property
    def active(self) -> bool:
        """Whether the unit runs and is ready."""
        return self.state["ActiveState"] in ("active", "reloading")

    @property
    def starting(self) -> bool:
        """Whether the unit is starting."""
        return self.state["ActiveState"] == "activating"

    def stamp(self, name: str) -> float:
        """Return one of the unit's timestamps in seconds since the epoch; 0 if systemd has none."""
        text = self.state.get(name, "")
        if not text or text == "n/a":
            return 0.0
        # Without the weekday, which depends on the host's locale.
        return datetime.datetime.strptime(f"{text.partition(' ')[2]}+0000", "%Y-%m-%d %H:%M:%S.%f UTC%z").timestamp()

    def started_at(self) -> float:
        """Return the main process's start, in seconds since the epoch; 0 if it never started."""
        return self.stamp("ExecMainStartTimestamp")

    def begun_at(self) -> float:
        """Return when systemd began to start the unit, in seconds since the epoch; 0 if it never did."""
        return self.stamp("InactiveExitTimestamp")

    def loaded_at(self) -> float:
        """Return the main process's last start or reload, in seconds since the epoch."""
        changed = self.stamp("StateChangeTimestamp")
        return changed if changed > self.stamp("ActiveEnterTimestamp") else self.started_at()

    @staticmethod
    def newer(paths: list[str], instant: float) -> list[str]:
        """Return the paths that changed after an instant, in seconds since the epoch."""
        return [path for path in paths if os.path.lexists(path) and Path(path).lstat().st_mtime > instant]

    def run(self, verb: str, lines: int, wait: bool = True) -> None:
        """Run a systemctl verb on the unit; on failure exit with the journal."""
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
    """Stop and disable the unit, and end the module."""
    running = unit.state["LoadState"] != "not-found" and unit.state["ActiveState"] not in ("inactive", "failed")
    enabled = for_good and unit.state["UnitFileState"] == "enabled"
    if running and not module.check_mode:
        unit.run("stop", module.params["lines"])
        # systemd calls a unit failed that SIGKILL had to end, and this stop was wanted.
        module.run_command(["systemctl", "reset-failed", unit.name])
    if enabled and not module.check_mode:
        unit.run("disable", module.params["lines"])
    module.exit_json(changed=running or enabled, reason="it was running" if running else "")


def start(module: AnsibleModule, unit: Unit) -> None:
    """Start the unit, or restart it if its files are newer, and end the module."""
    missing = unit.state["LoadState"] == "not-found"
    if not module.check_mode and (missing or unit.state["NeedDaemonReload"] == "yes"):
        module.run_command(["systemctl", "daemon-reload"], check_rc=True)
        unit.read()
        missing = unit.state["LoadState"] == "not-found"
    if missing and not module.check_mode:
        module.fail_json(msg=f"{unit.name} is not known to systemd: run inv up, which installs it")
    if missing:
        module.exit_json(changed=True, reason="it is not installed yet")
    verb, reason = needed(module, unit)
    enable = unit.state["UnitFileState"] == "disabled"
    if not module.check_mode:
        if verb == "restart" and unit.active:
            pass_gate(module)
        if enable:
            unit.run("enable", module.params["lines"])
        if verb:
            unit.run(verb, module.params["lines"], module.params["wait"])
        elif unit.starting and module.params["wait"]:
            # A wait for readiness is no change.
            unit.run("start", module.params["lines"])
    module.exit_json(changed=enable or bool(verb), reason=reason)


def needed(module: AnsibleModule, unit: Unit) -> tuple[str, str]:
    """Return the systemctl verb that brings the unit to its state, and the reason; two empty texts for none."""
    # A unit that starts by itself, for example after a boot, may have begun with the earlier configuration, and its
    # command may wait for an address of it that nobody has.
    if unit.active or unit.starting:
        newer = unit.newer(module.params["watch"], unit.started_at() if unit.active else unit.begun_at())
        if newer:
            return "restart", f"{', '.join(newer)} changed after it had started"
    if not unit.active:
        return ("", "") if unit.starting else ("start", f"it was {unit.state['ActiveState']}")
    newer = unit.newer(module.params["reload"], unit.loaded_at())
    return ("reload", f"{', '.join(newer)} changed after it had been read") if newer else ("", "")


def pass_gate(module: AnsibleModule) -> None:
    """Run the restart's gate; if it refuses, fail with its output."""
    if module.params["gate"]:
        code, out, err = module.run_command(module.params["gate"])
        if code != 0:
            module.fail_json(msg=f"{module.params['name']} was not restarted: {(err or out).strip()}")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["started", "stopped", "absent"], "default": "started"},
            "watch": {"type": "list", "elements": "path", "default": []},
            "reload": {"type": "list", "elements": "path", "default": []},
            "gate": {"type": "list", "elements": "str", "default": []},
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
