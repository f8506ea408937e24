"""Environments: the inventory, its secrets, its lock, and a session that holds them."""
