"""Reports from Prometheus and Alertmanager for the terminal, and silences for maintenance.

``streampulse slo`` and ``streampulse silence`` run on the monitoring host. ``inv status --full``, ``inv top``, ``inv
doctor`` and ``inv silence`` call them remotely.
"""
