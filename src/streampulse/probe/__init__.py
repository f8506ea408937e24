"""The synthetic probe: measures the pipeline as a user would notice it, and the pipeline's lag."""
