"""The streaming job: Kafka in, PostgreSQL out, every number a function of the log.

Spark reads the topic and decodes it in parallel (:mod:`.decode`); the driver keeps the working state of the counting
(:mod:`.engine`) and commits rows, offsets and the state's own changelog in one PostgreSQL transaction (:mod:`.store`).
"""

import gc


def collect_seldom() -> None:
    """Look for reference cycles a fiftieth as often as Python does by itself.

    The state is millions of objects without cycles; looking for some after every two thousand new ones took a third of
    the counting's time.
    """
    gc.set_threshold(100_000, 20, 100)
