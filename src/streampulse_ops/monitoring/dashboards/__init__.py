"""The dashboards for Grafana, as code: one module each, all built from :mod:`.panels`.

Only this package needs Grafana's SDK, which is for development: hosts get the JSON that is committed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

from streampulse_ops.monitoring.dashboards import (
    api,
    audience,
    host,
    kafka,
    overview,
    panels,
    pipeline,
    postgres,
    spark,
)

FOLDER: Final = "grafana/dashboards"

_BUILD: Final[Mapping[str, Callable[[], dashboard.Dashboard]]] = {
    "overview": overview.build,
    "audience": audience.build,
    "pipeline": pipeline.build,
    "kafka": kafka.build,
    "spark": spark.build,
    "postgres": postgres.build,
    "api": api.build,
    "host": host.build,
}


def text(name: str) -> str:
    """Return a dashboard's JSON as it is committed: the same for the same code, to the byte.

    :param name: one of :data:`.panels.DASHBOARDS`.
    """
    return json.dumps(_BUILD[name](), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _file(name: str) -> Callable[[Path], str]:
    return lambda _root: text(name)


#: Path in the checkout of each file, and what makes its text: one dashboard each.
FILES: Final[Mapping[str, Callable[[Path], str]]] = {
    f"{FOLDER}/{panels.uid(name)}.json": _file(name) for name in panels.DASHBOARDS
}
