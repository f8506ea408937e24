"""The command line: output, exit codes, signals."""
