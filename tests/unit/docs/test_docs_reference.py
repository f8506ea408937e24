"""The generated files are fresh, and their generators read what they should."""

from pathlib import Path

import pytest
from invoke.context import Context
from invoke.exceptions import Exit

from streampulse_ops.docs import pages as docs

ROOT = Path(__file__).parents[3]


def test_generated_files_are_fresh() -> None:
    assert docs.stale(ROOT) == [], f"make them again: {docs.COMMAND}"


def test_a_setting_is_listed_with_its_limits() -> None:
    page = docs.settings_page(ROOT)
    assert "| `STREAMPULSE_JOB_HISTORY_DAYS` | integer from 1 to 3650 | `30` |" in page
    assert "| `STREAMPULSE_POSTGRES_PASSWORD` | secret | required |" in page


def test_the_commands_page_says_how_a_task_is_called(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(
        "from invoke.tasks import task\n\n\n"
        '@task(positional=["where", "what"])\n'
        'def look(c, where, what="", at_most=3, for_=""):\n    """Look at things."""\n',
        encoding="utf-8",
    )
    assert "| `look WHERE [WHAT]` | Look at things. | `--at-most`, `--for` |" in docs.commands_page(tmp_path)


def test_check_names_stale_files_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docs, "PAGES", {"docs/reference/one.md": lambda _: "new\n"})
    monkeypatch.setattr("streampulse_ops.paths.repository", lambda: tmp_path)
    task = docs.tasks(ROOT)["docs"]
    with pytest.raises(Exit, match=r"docs/reference/one\.md"):
        task(Context(), check=True)
    assert not (tmp_path / "docs").exists()
    task(Context())
    assert (tmp_path / "docs/reference/one.md").read_text(encoding="utf-8") == "new\n"
    task(Context(), check=True)
