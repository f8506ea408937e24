"""The HTTP API: the tables' rows as JSON.

:mod:`.queries` holds every statement, :mod:`.database` runs them off the event loop within bounds, :mod:`.snapshot`
keeps the newest rows in memory, :mod:`.questions` and :mod:`.models` describe requests and answers, :mod:`.routes`
joins these, :mod:`.app` builds the application.
"""
