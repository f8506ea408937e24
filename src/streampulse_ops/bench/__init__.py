"""``inv bench``: the real stack in an environment of its own, measured and compared with its limits.

:mod:`.place` makes the environment and removes it, :mod:`.measures` has one module for each measurement, which runs
``streampulse measure`` on the host, :mod:`.figures` knows the limits' arithmetic and :mod:`.report` writes it down.
"""
