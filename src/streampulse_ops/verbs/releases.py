"""``inv releases``: the deploys of an environment, from the log that its hosts keep."""

import json
from typing import Any

from streampulse_ops.environments.session import Session
from streampulse_ops.releases import history
from streampulse_ops.releases.history import Look


def show(session: Session, as_json: bool) -> str:
    """Print one line for each deploy, the newest last, and return the closing words.

    :raises OperatorError: a host cannot be reached, or its log is damaged.
    """
    for host in session.environment.hosts if session.ours else ():
        session.require_running(host)
    seen = history.look(session)
    deploys = rows(seen)
    if as_json:
        print(json.dumps(deploys, indent=2))  # noqa: T201 - for programs
    for row in deploys if not as_json else ():
        result = f"{row['result']}: {row['reason']}" if row["reason"] else row["result"]
        session.screen.line(
            f"  {row['at'][:19]}Z  {row['release']:<40}  {row['by']:<20}  {', '.join(row['hosts'])}  {result}"
        )
    if not seen.running:
        return f"no release was deployed on {session.name}: inv deploy --env {session.name}"
    return f"{seen.running} runs · back to the one before: inv rollback{session.flag}"


def rows(seen: Look) -> list[dict[str, Any]]:
    """Return one row for each deploy, in the order of time."""
    found: dict[str, dict[str, Any]] = {}
    for event in seen.events:
        begun = {name: event[name] for name in ("at", "release", "by", "hosts")}
        row = found.setdefault(str(event["deploy"]), {**begun, "result": "interrupted", "reason": ""})
        if event["event"] == "back":
            row["result"] += f", {event['release']} runs again"
        elif event["event"] != "begun":
            row["result"] = str(event["event"])
            row["reason"] = str(event.get("reason", ""))
    return list(found.values())
