"""The history counted again: a second count from the oldest record in Kafka, beside the job, in a schema of its own.

``schema`` has the tables, ``count`` the counting, ``gaps`` bounds what missing records can have changed, ``letters``
has the dead letters, ``compare`` finds the differences, ``swap`` takes the place of the job's rows and state, and
``command`` is ``streampulse recount``. ``prove`` has a release count in the same way from a copy of the job's state.
"""

import os
from typing import Final

from streampulse.core.kafka import silence
from streampulse.core.settings import CountingSettings, KafkaSettings, PostgresSettings, load
from streampulse.job import collect_seldom

#: The longest wait for an answer of Kafka.
ANSWER_SECONDS: Final = 15.0

#: The last line of a recount that would change nothing.
NOTHING: Final = "nothing would change: the rows are what the log says"


def in_background() -> tuple[KafkaSettings, PostgresSettings, CountingSettings]:
    """Let the job and the API come first, and return the settings of a count beside them.

    :raises SettingsError: one is missing or malformed.
    """
    silence()
    os.nice(10)
    collect_seldom()
    return load(KafkaSettings), load(PostgresSettings), load(CountingSettings)
