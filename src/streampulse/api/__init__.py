"""The HTTP API: what the tables say, as JSON.

:mod:`.queries` holds every statement, :mod:`.database` runs them off the event loop within bounds, :mod:`.models` and
:mod:`.parameters` say what goes out and what may come in, :mod:`.routes` joins these, :mod:`.app` puts it together.
"""

from typing import Final

#: Under this name the lifespan's state has what answers known requests where they are read, if there is such a thing.
QUICK_WAY: Final = "streampulse.quick_way"
