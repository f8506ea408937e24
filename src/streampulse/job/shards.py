"""Which part of the topic a driver counts.

Partitions are independent, so several drivers count one topic: each the partitions whose number modulo the number of
drivers is its own.
"""

from dataclasses import dataclass
from typing import Final

from streampulse.core.errors import OperatorError

#: Key of the advisory lock of a driver that counts all partitions. Each of several drivers shares it, so that drivers
#: of another number of shards are kept out, and has the key of its own shard alone.
LOCK_KEY: Final = 0x73_70_6A_6F_62  # "spjob"
#: The format of the state of one driver, and that of a shard's: releases before shards must not take it for the whole.
#: Each is read by every release that writes it, and so is :data:`OLDEST_FORMAT`.
FORMAT: Final = 2
SHARD_FORMAT: Final = 3
OLDEST_FORMAT: Final = 1
_TRANSACTIONAL_ID: Final = "streampulse-dead-letters"


@dataclass(frozen=True, slots=True)
class Shard:
    """The shard ``number`` of ``count``; one of one unless told otherwise."""

    number: int = 0
    count: int = 1

    def has(self, partition: int) -> bool:
        """Tell whether a partition is counted by this shard."""
        return partition % self.count == self.number

    def check(self, topic: str, partitions: int) -> None:
        """Check that every shard of a topic has a partition.

        :raises OperatorError: there are more shards than partitions.
        """
        if self.count > partitions:
            raise OperatorError(
                f"job_shards is {self.count}, and {topic} has {partitions} partitions: set job_shards to {partitions}"
                " or less in the inventory, then inv up"
            )

    @property
    def lock_key(self) -> int:
        """The key of the advisory lock that this shard's one driver has alone."""
        return LOCK_KEY if self.count == 1 else LOCK_KEY + 1 + self.number

    @property
    def format(self) -> int:
        """The format in which its state is written."""
        return FORMAT if self.count == 1 else SHARD_FORMAT

    @property
    def name(self) -> str:
        """The name of the driver: that of its unit."""
        return "streampulse-job" if self.count == 1 else f"streampulse-job@{self.number}"

    @property
    def transactional_id(self) -> str:
        """The ``transactional.id`` of the shard's dead letters."""
        return _TRANSACTIONAL_ID if self.count == 1 else f"{_TRANSACTIONAL_ID}-{self.number}"


#: The one driver of all partitions.
ALONE: Final = Shard()
