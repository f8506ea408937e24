"""Real-time audience analytics for live streams on machines that you own."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("streampulse")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
