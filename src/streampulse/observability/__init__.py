"""What is measured, what is promised, and what alarms: rules, dashboards and their page are made from here.

Nothing here runs on a host but :mod:`streampulse.observability.values`, which ``streampulse check`` reads as well.
"""
