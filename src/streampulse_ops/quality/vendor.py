"""Libraries of other projects in this repository, from the npm registry, pinned by ``requirements/npm``.

``vendor.json`` lists the files that were taken from each package, with their hashes, and the package's version and
licence. The pages need no build step and load nothing from other hosts.
"""

import json
import shutil
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from streampulse.core.errors import OperatorError, UsageError
from streampulse_ops import paths
from streampulse_ops.cli.console import Screen
from streampulse_ops.command import CommandError
from streampulse_ops.command import run as run_program
from streampulse_ops.machines import tools

MANIFEST: Final = "src/streampulse/api/static/vendor/vendor.json"
PINS: Final = ("requirements/npm/package.json", "requirements/npm/package-lock.json")


def check(root: Path) -> list[str]:
    """Return a line for each file that is not as vendor.json says."""
    wrong = []
    for name, package in _manifest(root).items():
        for file, described in package["files"].items():
            path = root / file
            if not path.is_file():
                wrong.append(f"{file} of {name} is missing")
            elif sha256(path.read_bytes()).hexdigest() != described["sha256"]:
                wrong.append(f"{file} is not that of {name} {package['version']}")
    return wrong


def run(screen: Screen, update: str | None) -> str:
    """Fetch the pinned files when one is missing or differs, or another version of a package; return the closing words.

    :param update: ``package=version``; None for the pinned versions.
    :raises OperatorError: the package is unknown, or npm could not fetch it, or its archive is not the pinned one.
    """
    root = paths.repository()
    manifest = _manifest(root)
    if update is None and not check(root):
        return f"{len(manifest)} packages as pinned"
    words = ["ci"]
    if update is not None:
        name, _, version = update.rpartition("=")
        if name not in manifest or not version:
            raise UsageError(f"{update} is not one of {', '.join(f'{known}=VERSION' for known in manifest)}")
        # Without addresses in the lock file, npm uses the registry that this machine is configured for.
        words = ["install", "--save-exact", "--omit-lockfile-registry-resolved", f"{name}@{version}"]
    tools.ensure({"npm": "npm"}, "fetching packages from the npm registry", screen.line)
    with tempfile.TemporaryDirectory() as scratch, screen.step("packages") as step:
        step.note(" ".join(manifest))
        for file in PINS:
            shutil.copy(root / file, scratch)
        try:
            run_program(["npm", *words, "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], cwd=Path(scratch))
        except CommandError as error:
            raise OperatorError(f"{update or 'the pinned packages'}: {error}; by hand: cd requirements/npm") from None
        for name, package in manifest.items():
            _take(root, Path(scratch) / "node_modules" / name, package)
        for file in PINS:
            shutil.copy(Path(scratch) / Path(file).name, root / file)
        step.done(", ".join(f"{name} {package['version']}" for name, package in manifest.items()))
    (root / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return "look at the difference before you commit it"


def _take(root: Path, module: Path, package: dict[str, Any]) -> None:
    """Copy a package's files into the repository, and update its entry of the manifest."""
    for file, entry in package["files"].items():
        if not (module / entry["from"]).is_file():
            raise OperatorError(f"{module.name} has no {entry['from']} any more: adapt {MANIFEST}")
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(module / entry["from"], root / file)
        entry["sha256"] = sha256((root / file).read_bytes()).hexdigest()
    described = json.loads((module / "package.json").read_text(encoding="utf-8"))
    package |= {"version": described["version"], "licence": described["license"]}


def _manifest(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    return found
