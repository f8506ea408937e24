"""Looks at Spark: the master, its workers and the job's application."""

import os
from collections.abc import Iterator

from streampulse.core.errors import OperatorError, one_line
from streampulse.core.settings import JobSettings, load
from streampulse.host.check.host import Finding, Host, fault, fine, look


@look("spark.master", "spark-master")
def spark(host: Host, services: dict[str, str]) -> Iterator[Finding]:
    """Look at the master's workers and the job's application."""
    address = os.environ.get("STREAMPULSE_SPARK_MASTER_UI")
    if not address:
        raise OperatorError("STREAMPULSE_SPARK_MASTER_UI is not set")
    try:
        _, state = host.fetch(f"{address}/json/")
    except OSError as error:
        cause = f"the master does not answer at {address} ({one_line(error)})"
        yield fault("SP-SPARK-001", "spark.master", cause, "inv logs spark-master")
        return
    if state.get("status") != "ALIVE":
        yield fault("SP-SPARK-001", "spark.master", f"the master is {state.get('status')}", "inv logs spark-master")
        return
    workers = state.get("workers", [])
    alive = [each for each in workers if each.get("state") == "ALIVE"]
    # The master lists a replaced worker as dead for a while. Dead workers beside alive ones are no fault.
    if not alive:
        cause = f"no worker is alive, {len(workers)} are known"
        yield fault("SP-SPARK-002", "spark.workers", cause, "inv logs spark-worker")
    else:
        yield fine("spark.workers", f"{len(alive)} alive, {sum(each.get('cores', 0) for each in alive)} cores")
    if "job" not in services:
        return
    running = [each for each in state.get("activeapps", []) if each.get("state") == "RUNNING"]
    wanted = load(JobSettings).shards
    names = ", ".join(str(each.get("id")) for each in running)
    if len(running) == wanted:
        yield fine("spark.job", f"{names} running on {sum(each.get('cores') or 0 for each in running)} cores")
    elif running:
        cause = f"{len(running)} applications are running ({names})" + (f", not {wanted}" if wanted > 1 else "")
        yield fault("SP-SPARK-004", "spark.job", cause, "inv logs job")
    else:
        waiting = ", ".join(f"{each.get('id')} is {each.get('state')}" for each in state.get("activeapps", []))
        cause = f"no application is running{f' ({waiting})' if waiting else ''}"
        yield fault("SP-SPARK-003", "spark.job", cause, "inv logs job")
