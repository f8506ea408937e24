"""The counting: from accepted events to the rows of the tables, incrementally.

Pure: events in, changed rows out, no clock but the events' own, no I/O. ``docs/semantics.md`` defines the numbers;
``streampulse.oracle`` computes the same numbers from scratch.

The cost of a batch is bounded by its events and by what they change:

- Time is cut into minute *windows*, numbered by minutes since the epoch. No accepted event can fall before the *fold*
  of a Kafka partition, which is the window of the partition's clock minus the allowed lateness. Everything before the
  fold is settled: one number remains of each viewer's past, the time of the last event while present.
- A stream's ``active_viewers`` over time is kept as differences: +1 in the window in which a presence begins, -1 in the
  window in which it no longer counts. An event changes at most two entries; the rows are prefix sums.
- Few of a viewer's events in one window can matter (see :mod:`.presence`), and of a stream's stops in one window only
  the newest. Nearly every event is newer than all others of its viewer, and is applied to the newest presence. Where
  an event is not, the viewer's presences are recomputed once at the end of the batch.

State is bounded by the events of the last ten minutes of event time, the viewers present, and the streams they watch.
"""
