"""What the driver meets at its start and does not stop for."""

import socket
import uuid
from pathlib import Path

import pytest

from streampulse.job.command import fresh_checkpoint, serve_metrics


def test_a_taken_metrics_port_is_one_line_with_the_port(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        serve_metrics("127.0.0.1", port)
    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith("no metrics, the job counts without them: ")
    assert f"127.0.0.1:{port} cannot be opened (Address already in use)" in message
    assert f"ss -ltnp sport = :{port}" in message
    assert record.exc_info is None
    assert "\n" not in message


def test_only_folders_of_earlier_runs_are_removed_from_the_checkpoints(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "kept").mkdir(parents=True)
    folder = tmp_path / "checkpoints"
    first = fresh_checkpoint(folder)
    (first / "offsets").mkdir(parents=True)
    (folder / "x").touch()
    (folder / "lost+found").mkdir(mode=0)
    link = folder / str(uuid.uuid4())
    link.symlink_to(elsewhere)

    second = fresh_checkpoint(folder)

    assert second.parent == folder
    assert second != first
    assert {entry.name for entry in folder.iterdir()} == {"x", "lost+found", link.name}
    assert (elsewhere / "kept").is_dir()
