"""Lint and tests, as a person and as CI run them."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from streampulse.core.errors import OperatorError
from streampulse_ops import paths
from streampulse_ops.cli.console import Screen
from streampulse_ops.command import program_environment
from streampulse_ops.machines import nspawn, tools
from streampulse_ops.monitoring import promlint
from streampulse_ops.quality import changed as changes

#: The linter that Prometheus' own programs are.
RULES = "rules"
LINT_TOOLS = {"shellcheck": "shellcheck"}
# Programs of the tests, beside those that make machines.
TEST_TOOLS = {
    "shellcheck": "shellcheck",
    "rsync": "rsync",
    "initdb": "postgresql",
    "ssh": "openssh-client",
    "chromium": "chromium",
    "faketime": "faketime",
    "vagrant": "vagrant",
    # Signs a repository of the tests' own.
    "gpg": "gpg",
}
# In the order in which workers take them: the longest first. Roles are before e2e, whose tests start from their layer.
TEST_FOLDERS = ("tests/molecule", "tests/e2e", "tests/drills", "tests/lint", "tests/integration", "tests/unit")


def lint(screen: Screen) -> str:
    """Run every linter, all of them also when one complains, and return the closing words.

    :raises OperatorError: one complained; its own output stands above.
    """
    tools.ensure(LINT_TOOLS, "checking shell scripts", screen.line)
    failed = []
    for name, command in linters(paths.repository()):
        with screen.step(name) as step:
            step.note("looking")
            done = run(command, capture=True)
            said = {0: "fine", promlint.NOT_DONE: "not done"} if name == RULES else {0: "fine"}
            step.done(said.get(done.returncode, "complains"))
        if done.returncode != 0:
            screen.line(done.stdout.rstrip())
        if done.returncode not in said:
            failed.append(name)
    if failed:
        raise OperatorError(f"{', '.join(failed)}: see above")
    return "no complaint"


def linters(root: Path) -> list[tuple[str, list[str]]]:
    """Return each linter's name and command line."""
    folder = Path(sys.executable).parent
    scripts = [str(file.relative_to(root)) for file in shell_scripts(root)]
    return [
        ("ruff", [str(folder / "ruff"), "check", "."]),
        ("format", [str(folder / "ruff"), "format", "--check", "."]),
        ("mypy", [str(folder / "mypy")]),
        ("yamllint", [str(folder / "yamllint"), "--strict", "."]),
        ("ansible-lint", [str(folder / "ansible-lint"), "--offline", "--profile", "production"]),
        ("shellcheck", ["shellcheck", *scripts]),
        (RULES, [sys.executable, "-m", "streampulse_ops.monitoring.promlint"]),
    ]


def shell_scripts(root: Path) -> list[Path]:
    """Return the files under version control whose first line says that a shell runs them."""
    listed = run(["git", "ls-files", "-z"], capture=True).stdout.split("\0")
    found = []
    for name in listed:
        file = root / name
        # A template becomes a shell script only on the host.
        if name and file.suffix != ".j2" and file.is_file() and not file.is_symlink():
            with file.open("rb") as handle:
                first = handle.readline(64)
            if first.startswith(b"#!") and first.rstrip().endswith((b"/sh", b"/bash", b" sh", b" bash")):
                found.append(file)
    return found


def test(screen: Screen, arguments: Sequence[str], changed: str | bool | None) -> int:
    """Run every test, the linters among them, and return pytest's exit code. The last line is its summary.

    :param arguments: options and tests for pytest instead of everything; beside ``changed``, options only.
    :param changed: run what differs from this commit can have touched; True for where the branch began.
    :raises OperatorError: git knows no such commit.
    """
    # The machines' tools as well: workers that each install them would meet at apt's lock.
    needed = {**TEST_TOOLS, **(nspawn.TOOLS if os.geteuid() == 0 else {})}
    if any(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        del needed["initdb"]
    root = paths.repository()
    if changed:
        chosen = changes.tests_for(root, None if changed is True else changed)
        screen.line(f"touched by the change: {' '.join(chosen) or 'no test'}")
        if not chosen:
            return 0
    else:
        chosen = list(TEST_FOLDERS)
    tools.ensure(needed, "the tests", screen.line)
    if changed or not arguments:
        # In the order of TEST_FOLDERS.
        chosen = [test for folder in TEST_FOLDERS for test in _within(root, folder, chosen)]
        arguments = ["-v", *_side_by_side(), *arguments, *chosen]
    return run([sys.executable, "-m", "pytest", *arguments], capture=False).returncode


def _within(root: Path, folder: str, chosen: Sequence[str]) -> list[str]:
    """Return what of the chosen tests is in a folder: the folder itself where all of its tests are."""
    if folder in chosen or changes.EVERYTHING[0] in chosen:
        return [folder] if (root / folder).is_dir() else []
    return [test for test in chosen if test.startswith(f"{folder}/")]


def _side_by_side() -> list[str]:
    """Return pytest's options that start one worker more than there are processors: tests of machines mostly wait."""
    workers = (os.cpu_count() or 1) + 1
    # Without --no-loadscope-reorder the file with the most tests would be first, not the one that takes longest.
    return ["-n", str(workers), "--dist", "loadscope", "--no-loadscope-reorder"]


def run(command: list[str], capture: bool) -> subprocess.CompletedProcess[str]:
    """Run a program with this environment's own on PATH.

    :param capture: return its output, its errors among it.
    """
    folder = Path(sys.executable).parent
    more = {
        "PATH": f"{folder}:{program_environment()['PATH']}",
        # Where the roles and our own modules are.
        "ANSIBLE_CONFIG": str(paths.repository() / "ansible" / "ansible.cfg"),
    }
    return subprocess.run(  # noqa: S603 - lists made here, no shell
        command,
        stdin=subprocess.DEVNULL,
        cwd=paths.repository(),
        env={**program_environment(), **more},
        stdout=subprocess.PIPE if capture else None,
        stderr=subprocess.STDOUT if capture else None,
        text=True,
        check=False,
    )
