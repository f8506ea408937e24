"""Libraries of other people that are part of this repository: fetched from the npm registry, pinned by hash.

``vendor.json`` says for each package its version, its licence, the hash of its archive as the registry has it, and the
files that were taken, with theirs. Pages need neither a build step nor another host, and what is served is what was
reviewed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Final

from streampulse.core.errors import OperatorError
from streampulse_ops import paths
from streampulse_ops.cli.console import Screen
from streampulse_ops.command import program_environment
from streampulse_ops.machines import tools

MANIFEST: Final = "src/streampulse/api/static/vendor/vendor.json"


def check(root: Path) -> list[str]:
    """Return what differs from the manifest, in words.

    :param root: the checkout.
    """
    wrong = []
    for name, package in _manifest(root).items():
        for file, described in package["files"].items():
            path = root / file
            if not path.is_file():
                wrong.append(f"{file} of {name} is missing")
            elif _sha256(path.read_bytes()) != described["sha256"]:
                wrong.append(f"{file} is not that of {name} {package['version']}")
    return wrong


def run(screen: Screen, update: str | None) -> str:
    """Check the files, or take another version of one package, and return the closing words.

    :param update: ``package=version``; None to fetch what is missing or differs, in the pinned version.
    :raises OperatorError: the package is not known, or the registry's archive is not the pinned one.
    """
    root = paths.repository()
    manifest = _manifest(root)
    chosen: dict[str, str] = {}
    if update is not None:
        name, _, version = update.rpartition("=")
        if name not in manifest or not version:
            raise OperatorError(f"{update} is not one of {', '.join(f'{known}=VERSION' for known in manifest)}")
        chosen[name] = version
    elif not check(root):
        return f"{len(manifest)} packages as pinned"
    else:
        chosen = {name: package["version"] for name, package in manifest.items()}
    tools.ensure({"npm": "npm"}, "fetching packages from the npm registry", screen.line)
    for name, version in chosen.items():
        with screen.step("package") as step:
            step.note(f"{name} {version}")
            _take(root, name, version, manifest, pinned=update is None)
            step.done(f"{name} {version}, {manifest[name]['licence']}")
    (root / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return "look at the difference before you commit it"


def _take(root: Path, name: str, version: str, manifest: dict[str, Any], pinned: bool) -> None:
    package = manifest[name]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(  # noqa: S603 - a list made here, no shell
            ["npm", "pack", "--silent", "--pack-destination", folder, f"{name}@{version}"],  # noqa: S607
            env=program_environment(),
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode != 0 or len(archives) != 1:
            last = done.stderr.strip().splitlines()[-1:] or ["no archive"]
            raise OperatorError(f"npm has no {name} {version}: {last[0]}")
        hashed = _integrity(archives[0].read_bytes())
        if pinned and hashed != package["integrity"]:
            raise OperatorError(f"the registry's {name} {version} is not the one that {MANIFEST} pins")
        with tarfile.open(archives[0]) as archive:
            described = json.loads(_member(archive, "package/package.json"))
            for file, entry in package["files"].items():
                content = _member(archive, f"package/{entry['from']}")
                target = root / file
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
                entry["sha256"] = _sha256(content)
    package |= {"version": described["version"], "licence": described["license"], "integrity": hashed}


def _integrity(content: bytes) -> str:
    """Return a file's hash in the registry's form."""
    return "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    try:
        handle = archive.extractfile(name)
    except KeyError:
        handle = None
    if handle is None:
        raise OperatorError(f"the package has no {name} any more: adapt {MANIFEST}")
    return handle.read()


def _manifest(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    return found


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
