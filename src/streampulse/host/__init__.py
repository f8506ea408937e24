"""The ``streampulse`` command: checks and measurements that run on a host."""

from typing import Final

#: How long the smoke test may take, in seconds.
SMOKE_SECONDS: Final = 15
