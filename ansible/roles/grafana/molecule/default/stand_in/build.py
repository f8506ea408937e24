"""Build a signed apt repository with a stand-in for Grafana's package: ``build.py FOLDER VERSION``.

Prints the signing key's fingerprint. The stand-in installs the parts of Grafana's package that the role needs: the
user, the documented unit, and a program at Grafana's path.
"""

import shutil
import sys
import tempfile
from pathlib import Path

# Of tests/support, which is on the caller's path.
from apt_repository import Keyring, package, publish

HERE = Path(__file__).parent

POSTINST = """\
#!/bin/sh
set -e
getent group grafana >/dev/null || groupadd --system grafana
getent passwd grafana >/dev/null || useradd --system --gid grafana --home-dir /usr/share/grafana grafana
mkdir -p /var/log/grafana /var/lib/grafana
chown grafana:grafana /var/log/grafana /var/lib/grafana
"""


def main(folder: Path, version: str) -> None:
    """Build the repository."""
    with tempfile.TemporaryDirectory(prefix="sp-grafana-") as name:
        content = Path(name) / "content"
        for file, place, mode in (
            ("grafana", "usr/share/grafana/bin/grafana", 0o755),
            ("grafana-server.service", "usr/lib/systemd/system/grafana-server.service", 0o644),
        ):
            target = content / place
            target.parent.mkdir(parents=True)
            shutil.copyfile(HERE / file, target)
            target.chmod(mode)
        folder.mkdir(parents=True)
        keyring = Keyring(Path(name) / "home")
        try:
            key = keyring.make("stand-in")
            made = package(folder, "grafana", version, content, {"postinst": POSTINST})
            publish(folder, [made], keyring, key)
            (folder / "gpg-full.key").write_text(keyring.export(key))
        finally:
            keyring.end()
    print(key)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
