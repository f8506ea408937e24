"""The generator: made-up but plausible viewers of live streams, sent to Kafka at a steady rate, or as a backlog.

:mod:`.model` makes the events from a seed and a clock and touches nothing else; :mod:`.faults` spoils a chosen share
of them. At a steady rate :mod:`.send` brings records to Kafka, and :mod:`.command` ties it together. For a backlog
:mod:`.backlog` divides the work, :mod:`.bulk` brings batches to Kafka, and :mod:`.fill` ties it together.
"""
