"""The selection of `inv test --changed`: by imports, by the table, and all tests for an unknown file."""

import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

from streampulse.core.errors import OperatorError
from streampulse_ops import paths
from streampulse_ops.quality import changed

FILES = {
    "pyproject.toml": 'addopts = "-p plug"',
    "src/streampulse/__init__.py": "",
    "src/streampulse/core.py": "LIMIT = 1",
    "src/streampulse/api/__init__.py": "",
    "src/streampulse/api/app.py": "def start():\n    from streampulse import core\n",
    "src/streampulse_ops/__init__.py": "",
    "src/streampulse_ops/bench/__init__.py": "",
    "src/streampulse_ops/verb.py": "",
    "src/streampulse_ops/cli/program.py": "",
    "tasks.py": "def up():\n    import streampulse_ops.verb, streampulse_ops.bench",
    "tests/support/plug.py": "",
    "tests/support/served.py": "COMMAND = ['gunicorn', 'streampulse.api.app:app']",
    "tests/integration/conftest.py": "import streampulse_ops.bench",
    "tests/integration/test_page.py": "from served import COMMAND",
    "tests/unit/docs/test_docs.py": "",
    "tests/unit/test_core.py": "from streampulse.core import LIMIT",
    "tests/unit/test_program.py": "RUN = ['python', '-m', 'streampulse_ops.cli.program']",
    "tests/lint/test_lint.py": "",
    "tests/e2e/test_up.py": "",
    "docs/api.md": "",
    "LICENSE": "",
    "Makefile": "",
}
CORE, PAGE, PROGRAM = "tests/unit/test_core.py", "tests/integration/test_page.py", "tests/unit/test_program.py"


def git(root: Path, *words: str) -> None:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    subprocess.run(["git", "-C", root, *identity, *words], check=True, capture_output=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    git(tmp_path, "init", "--initial-branch=main")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--message=all")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "tests"),
    [
        ("src/streampulse/core.py", {"tests/lint", "tests/unit/docs", "tests/e2e", CORE, PAGE}),
        ("src/streampulse/api/app.py", {"tests/lint", "tests/unit/docs", "tests/e2e", PAGE}),
        ("src/streampulse_ops/verb.py", {"tests/lint", "tests/unit/docs", "tests/e2e", PROGRAM}),
        ("src/streampulse_ops/bench/__init__.py", {"tests/lint", "tests/unit/docs", PAGE, PROGRAM}),
        ("tests/support/plug.py", {"tests/lint", "tests/unit/docs", "tests/e2e/test_up.py", CORE, PAGE, PROGRAM}),
        (CORE, {"tests/lint", "tests/unit/docs", CORE}),
        ("docs/api.md", {"tests/unit/docs"}),
        ("LICENSE", set()),
        ("Makefile", {"tests"}),
    ],
)
def test_a_file_touches_its_users(root: Path, name: str, tests: set[str]) -> None:
    (root / name).write_text("\n")
    assert set(changed.tests_for(root, None)) == tests


def test_the_change_is_the_working_tree_and_the_commits_of_the_branch(root: Path) -> None:
    git(root, "switch", "--create", "mine")
    (root / "docs/api.md").write_text("committed")
    git(root, "commit", "--all", "--message=docs")
    (root / "LICENSE").unlink()
    (root / "new file").touch()
    assert changed.changed_files(root, None) == ["LICENSE", "docs/api.md", "new file"]
    assert changed.changed_files(root, "HEAD") == ["LICENSE", "new file"]
    with pytest.raises(OperatorError, match="Name a commit: inv test --changed REV"):
        changed.changed_files(root, "no-such-commit")


def test_every_row_names_files_and_tests_that_exist() -> None:
    root = paths.repository()
    listed = changed.git(root, "ls-files", "-z").split("\0")
    for pattern, tests in changed.ROWS:
        assert any(fnmatch(name, pattern) for name in listed), pattern
        assert all((root / test).exists() for test in tests), tests
