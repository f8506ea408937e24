"""Runbooks as programs: pages are read (page), checked (validate) and executed over SSH (run)."""
