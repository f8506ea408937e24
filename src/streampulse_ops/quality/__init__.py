"""What CI runs: linters, tests, and the page's vendored libraries."""
