"""Ansible callback: writes events as lines of JSON into a file, which the tasks sum up."""

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: streampulse_progress
type: notification
short_description: Writes each event of a play as a line of JSON
description:
  - Writes to the file that the environment variable STREAMPULSE_PROGRESS names, and does nothing without it.
  - A line has event (task, ok, changed, skipped, failed, unreachable or stats) and, where they apply, part, task,
    host, seconds and msg. Part is the role's name, or the play's for a task outside any role. The last line, stats,
    has in said what the tasks have set with set_stats. A result has paths (what streampulse_files changed), watch (the
    paths whose change restarts the unit of streampulse_service), unit and reason. The result of a task with the tag
    gate has gate, and in saw the last line of its output, of each item where it has a loop.
requirements:
  - enabled in the configuration
"""

# Tag of the tasks that decide whether a deploy may go on.
GATE = "gate"
# The play of check.yml.
CHECKS = "Check what the inventory asks for"


class CallbackModule(CallbackBase):  # type: ignore[misc] # ansible has no types
    """Writes the lines."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "streampulse_progress"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._file = os.environ.get("STREAMPULSE_PROGRESS", "")
        self.disabled = not self._file
        self._play = ""
        self._part = ""
        self._task = ""
        self._begun = 0.0
        self._parent = os.getppid()

    def _write(self, event: str, **more: Any) -> None:
        line = {"event": event, "part": self._part, "task": self._task, **more}
        with Path(self._file).open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")

    def _result(self, event: str, result: Any, **more: Any) -> None:
        host = result._host.get_name()
        said, task = result._result, result._task
        if task.action.rpartition(".")[2] == "streampulse_service":
            given = (said.get("invocation") or {}).get("module_args") or {}
            more |= {"unit": given.get("name", ""), "watch": given.get("watch") or [], "reason": said.get("reason", "")}
        if said.get("changed_paths"):
            more["paths"] = said["changed_paths"]
        if GATE in task.tags:
            outputs = (str(each.get("stdout") or "").strip().splitlines() for each in said.get("results") or [said])
            more |= {"gate": True, "saw": "; ".join(lines[-1] for lines in outputs if lines)}
        self._write(event, host=host, seconds=round(time.monotonic() - self._begun, 3), **more)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Remember the play's name."""
        self._play = play.get_name()

    def v2_playbook_on_task_start(self, task: Any, **_more: Any) -> None:
        """Note which part the task belongs to."""
        self._begin(task)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        """Note which part the handler belongs to."""
        self._begin(task)

    def _begin(self, task: Any) -> None:
        if os.getppid() != self._parent:
            # The task of `inv` was killed, and the hosts' locks are free for another one.
            os._exit(1)
        # The checks of all roles before anything is touched are one part.
        checks = self._play == CHECKS
        self._part = "preflight" if checks else task._role.get_name() if task._role else self._play
        self._task = task.get_name().rpartition(" : ")[2]
        self._begun = time.monotonic()
        self._write("task")

    def v2_runner_on_ok(self, result: Any) -> None:
        """Write whether the task changed something."""
        self._result("changed" if result._result.get("changed") else "ok", result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        """Write that the task did not apply."""
        self._result("skipped", result)

    def v2_runner_on_failed(self, result: Any, **_more: Any) -> None:
        """Write why the task failed."""
        self._result("failed", result, msg=_reason(result._result))

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Write why the host was not reached."""
        self._result("unreachable", result, msg=_reason(result._result))

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Write the totals."""
        hosts = {host: stats.summarize(host) for host in stats.processed}
        # The values of set_stats for the whole run, not for one host.
        self._write("stats", hosts=hosts, said=stats.custom.get("_run", {}))


def _reason(result: dict[str, Any]) -> str:
    """Return the message of a failure for the operator, without values that no_log hides."""
    if result.get("_ansible_no_log") or "censored" in result:
        return "the details are hidden because they hold secrets"
    failed = [item for item in result.get("results") or [] if isinstance(item, dict) and item.get("failed")]
    if failed:
        return "; and: ".join(_reason(item) for item in failed[:10])
    message = str(result.get("msg") or "").strip()
    details = str(result.get("stderr") or result.get("module_stderr") or "").strip() or str(result.get("stdout") or "")
    if message in ("", "non-zero return code", "MODULE FAILURE") and details.strip():
        message = " ".join(details.strip().splitlines()[-3:])
    return message or "no reason given"
