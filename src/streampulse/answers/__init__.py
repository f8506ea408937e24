"""Answers about one event: its dead letter, its path, its exclusion. Each follows from the log, ledger and tables."""
