"""The command line itself: what a person sees, exit codes, signals."""
