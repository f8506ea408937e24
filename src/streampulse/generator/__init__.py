"""The generator: made-up but plausible viewers of live streams, sent to Kafka at a steady rate.

:mod:`.model` makes the events from a seed and a clock and touches nothing else; :mod:`.faults` spoils a chosen share
of them; :mod:`.send` brings records to Kafka; :mod:`.command` ties them together.
"""
