"""Programs of other stream processors that count the same rows. They run in an environment that has these."""
