"""What is measured, what is promised, and what alarms: rules, dashboards and their page are made from here.

Nothing here runs on a host but :mod:`streampulse.core.limits`, which ``streampulse check`` reads as well.
"""
