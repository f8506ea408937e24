"""The verbs of the command line: the module of a verb has its name."""
