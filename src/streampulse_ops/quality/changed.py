"""Which tests a change can have touched.

A Python file touches the tests that import it, directly or through other files, or that name it in a string: programs
are started by their module's name. Other files touch what ``ROWS`` says. A file that neither knows touches every test.

pytest-testmon knows nothing before a whole run, and sees no child process, SQL, role, unit, rule or page.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

from streampulse.core.errors import OperatorError
from streampulse_ops.command import CommandError, ended

EVERYTHING = ("tests",)
MACHINES = ("tests/molecule", "tests/e2e", "tests/drills")
STYLE = ("tests/lint", "tests/unit/docs")
RULES = (*STYLE, "tests/unit/monitoring", "tests/unit/slo", "tests/unit/roles", "tests/e2e", "tests/drills")
RUNNING_RULES = (
    "tests/integration/test_alert_receivers.py",
    "tests/integration/test_alertmanager.py",
    "tests/integration/test_dashboard_promql.py",
    "tests/integration/test_dashboard_sql.py",
    "tests/integration/test_slo.py",
)

#: Patterns of paths, and the tests that such a file touches. The first pattern that fits counts.
ROWS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("docs/runbooks/*", (*RULES, "tests/integration/test_runbook_queries.py")),
    ("docs/images/*", ("tests/unit/docs",)),
    ("*.md", ("tests/unit/docs",)),
    ("LICENSE", ()),
    ("ansible/*molecule/*", (*STYLE, "tests/molecule")),
    ("prometheus/*", (*RULES, *RUNNING_RULES)),
    ("grafana/*", (*RULES, *RUNNING_RULES)),
    ("src/streampulse/api/static/*", (*STYLE, *MACHINES, "tests/unit/api", "tests/integration")),
)
# Files that Invoke connects, without an import.
INVOKE = ("src/streampulse_ops/cli/program.py", "tasks.py")
# Parts of the control machine's code that no machine's test runs.
_NOT_ON_MACHINES = tuple(f"src/streampulse_ops/{name}/" for name in ("quality", "docs", "bench"))
_MODULE = re.compile(r"\bstreampulse(?:_ops)?(?:\.\w+)*\.?")


class Graph:
    """The Python files of a checkout, and which of them use which."""

    def __init__(self, root: Path) -> None:
        """Read every Python file under version control."""
        listed = git(root, "ls-files", "--cached", "--others", "--exclude-standard", "-z", "*.py").split("\0")
        self.files = {name for name in listed if name and (root / name).is_file()}
        self._modules = {_module(name): name for name in self.files}
        plugins = re.findall(r"-p (\w+)", (root / "pyproject.toml").read_text(encoding="utf-8"))
        self._users: dict[str, set[str]] = defaultdict(set)
        for name in self.files:
            for used in self._uses(name, (root / name).read_text(encoding="utf-8")):
                self._users[used].add(name)
            if _is_test(name):
                shared = {f"{folder}/conftest.py" for folder in Path(name).parents}
                for used in (shared & self.files) | {self._modules[plugin] for plugin in plugins}:
                    self._users[used].add(name)
        self._users[INVOKE[1]].add(INVOKE[0])

    def users(self, name: str) -> set[str]:
        """Return the files that use a file, directly or through others, and itself."""
        found, open_ends = {name}, [name]
        while open_ends:
            more = self._users[open_ends.pop()] - found
            found |= more
            open_ends.extend(more)
        return found

    def _uses(self, name: str, text: str) -> Iterator[str]:
        for node in ast.walk(ast.parse(text, name)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield from self._found(alias.name)
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    yield from self._found(f"{node.module}.{alias.name}")
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                for match in _MODULE.findall(node.value):
                    yield from self._found(match)

    def _found(self, dotted: str) -> Iterator[str]:
        """Yield the files of a module and of the packages around it; of all modules below for a name that ends open."""
        if dotted.endswith("."):
            yield from (file for module, file in self._modules.items() if module.startswith(dotted))
        words = [*dotted.split("."), "__main__"]
        for length in range(1, len(words) + 1):
            file = self._modules.get(".".join(words[:length]))
            if file:
                yield file


def tests_for(root: Path, revision: str | None) -> list[str]:
    """Return the test files and folders that what differs from a revision can have touched.

    :param revision: a commit; None for the merge base with the upstream branch, else with ``main``.
    :raises OperatorError: git knows no such commit.
    """
    graph = Graph(root)
    chosen = {test for name in changed_files(root, revision) for test in touched(graph, name)}
    there = {test for test in chosen if (root / test).exists()}
    return sorted(test for test in there if not any(str(folder) in there for folder in Path(test).parents))


def changed_files(root: Path, revision: str | None) -> list[str]:
    """Return the files that differ from a revision, committed or not, and those that git does not know yet.

    :raises OperatorError: git knows no such commit.
    """
    base = revision or _merge_base(root)
    listed = git(root, "diff", "--name-only", "--no-renames", "-z", f"{base}^{{commit}}", "--")
    new = git(root, "ls-files", "--others", "--exclude-standard", "-z")
    return sorted({name for name in (listed + new).split("\0") if name})


def touched(graph: Graph, name: str) -> Iterable[str]:
    """Return the tests that one file touches, as files and folders."""
    # Ansible finds its modules by their folder.
    if name not in graph.files or name.startswith("ansible/"):
        return next((tests for pattern, tests in ROWS if fnmatch(name, pattern)), EVERYTHING)
    users = graph.users(name)
    on_machines = name.startswith("src/streampulse/") or (INVOKE[1] in users and not name.startswith(_NOT_ON_MACHINES))
    # The pages and the list of metrics are made from all modules.
    always = (*STYLE, "tests/unit/monitoring/test_metrics.py", *(MACHINES if on_machines else ()))
    return {*always, *(user for user in users if _is_test(user))}


def git(root: Path, *arguments: str) -> str:
    """Run git in a checkout and return its output.

    :raises OperatorError: git complained, or is not there.
    """
    try:
        done = ended(["git", "-C", root, *arguments])
    except CommandError:
        raise OperatorError("git is not there, and it knows what changed: apt-get install -y git") from None
    if done.returncode != 0:
        raise OperatorError(
            f"git cannot say what changed: {done.stderr.strip()}. Name a commit: inv test --changed REV"
        )
    return done.stdout


def _merge_base(root: Path) -> str:
    try:
        upstream = git(root, "rev-parse", "--abbrev-ref", "--symbolic-full-name", "@{upstream}").strip()
    except OperatorError:
        # A branch without an upstream branch.
        upstream = "main"
    return git(root, "merge-base", "HEAD", upstream).strip()


def _module(name: str) -> str:
    """Return the name under which a file is imported."""
    path = Path(name).with_suffix("")
    words = path.parts[1:] if path.parts[0] == "src" else path.parts[-1:]
    return ".".join(words).removesuffix(".__init__")


def _is_test(name: str) -> bool:
    return fnmatch(name, "tests/*/test_*.py")
