"""The generator sends synthetic events of live streams to Kafka, at a steady rate or as a backlog.

:mod:`.model` makes the events from a seed and a clock, without I/O. :mod:`.faults` corrupts a chosen share of them. At
a steady rate :mod:`.send` sends the records and :mod:`.command` runs the loop. For a backlog :mod:`.backlog`
divides the work, :mod:`.bulk` sends batches and :mod:`.fill` runs the processes.
"""
