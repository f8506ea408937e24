"""Linters, tests, and the vendored libraries of the pages."""
