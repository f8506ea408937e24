"""``inv bench --peers``: streampulse's job and other stream processors, one after the other, over the same records.

:mod:`.servers` starts a broker and a PostgreSQL server for the run, :mod:`.runners` starts and kills what runs.
:mod:`.peers` has one program for each other processor. :mod:`.race` makes the runs and the table.
"""
