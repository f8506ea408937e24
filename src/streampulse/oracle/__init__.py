"""The oracle: every number computed again from the raw topic, by the plainest code that can be right.

It shares nothing with the streaming job but the event contract (``streampulse.events``). ``decide`` says what became
of each record, ``tables`` what the tables hold then, ``reader`` fetches the records, ``compare`` finds the differences
and ``command`` is ``streampulse verify``.
"""
