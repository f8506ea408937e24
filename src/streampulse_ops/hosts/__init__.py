"""Ways to a host: commands over SSH, addresses, tunnels."""
