"""The oracle: recompute every number from the raw topic with the simplest correct code.

It shares only the event contract (``streampulse.events``) with the streaming job. ``decide`` gives each record's
outcome, ``tables`` computes the tables, ``reader`` fetches the records, ``compare`` finds the differences and
``command`` is ``streampulse verify``.
"""
