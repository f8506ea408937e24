"""From raw records to columns of events and dead letters, on the executors."""
