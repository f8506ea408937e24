"""What spark-submit runs: ``streampulse job``."""

import sys

from streampulse.host.cli import main

if __name__ == "__main__":
    # spark-submit puts this folder first on the path, where its modules could hide others of the same name.
    sys.path.pop(0)
    sys.exit(main(["job"]))
