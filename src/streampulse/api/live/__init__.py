"""``/live``, server-sent events: one reading of the tables serves all readers of a worker."""
