"""The ``streampulse`` command: checks and measurements that run on a host."""
