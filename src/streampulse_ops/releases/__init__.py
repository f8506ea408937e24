"""Releases: bundles of everything that a deploy applies, and the log of deploys that the hosts keep."""
