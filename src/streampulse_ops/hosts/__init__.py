"""Hosts over SSH: commands, the hosts' own ``streampulse`` command, their journals, addresses and tunnels."""
