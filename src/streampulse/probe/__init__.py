"""The synthetic probe: what a user would notice, measured by being one, and how far the pipeline is behind."""
