"""The history counted again: a second count from the oldest record in Kafka, beside the job, in a schema of its own.

``schema`` has the tables, ``count`` the counting, ``gaps`` bounds what missing records can have changed, ``letters``
has the dead letters, ``compare`` finds the differences, ``swap`` takes the place of the job's rows and state, and
``command`` is ``streampulse recount``. ``prove`` has a release count in the same way from a copy of the job's state.
"""

from typing import Final

#: The last line of a recount that would change nothing.
NOTHING: Final = "nothing would change: the rows are what the log says"
