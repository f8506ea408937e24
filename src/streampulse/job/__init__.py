"""The streaming job: Kafka in, PostgreSQL out, every number a function of the log.

Spark reads the topic and decodes it in parallel (:mod:`.decode`); the driver keeps the working state of the counting
(:mod:`.engine`) and commits rows, offsets and the state's own changelog in one PostgreSQL transaction (:mod:`.store`).
"""
