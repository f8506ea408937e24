"""``inv bench``: measure the real stack in a separate environment and compare it with its limits.

:mod:`.place` makes and removes the environment. :mod:`.measures` has one module for each measurement, which runs
``streampulse measure`` on the host. :mod:`.figures` compares with the limits and :mod:`.report` writes the report.
:mod:`.race` is ``inv bench --peers``, without that environment.
"""
