"""Monitoring on the control machine: rendering and checking rules, dashboards, runbooks, the list of metrics."""
