"""Layers of nspawn machines on disk; the roles' tests boot a machine on one."""

from pathlib import Path

import pytest

from streampulse.core.errors import OperatorError
from streampulse_ops.machines.layers import Layers


def machine(root: Path, name: str) -> Path:
    """Make the disk of a stopped machine."""
    disk = root / "env" / name
    for file in ("usr/bin/java", "etc/machine-id", "etc/ssh/ssh_host_ed25519_key", "etc/ssh/sshd_config"):
        (disk / "upper" / file).parent.mkdir(parents=True, exist_ok=True)
        (disk / "upper" / file).write_text(file)
    (disk / "image").write_text("debian13-x")
    return disk


def test_a_layer_has_all_of_a_machine_but_its_identity(tmp_path: Path) -> None:
    layers = Layers(tmp_path / "layers")
    layers.add("first", machine(tmp_path, "one"))
    tree = tmp_path / "layers/first/diff"
    assert {str(file.relative_to(tree)) for file in tree.rglob("*") if file.is_file()} == {
        "usr/bin/java",
        "etc/ssh/sshd_config",
    }
    other = machine(tmp_path, "two")
    assert layers.over(Path("/image"), other) == "/image"
    layers.use("first", "debian13-x", other)
    assert layers.over(Path("/image"), other) == f"{tree}:/image"


def test_a_layer_goes_when_another_comes_unless_a_machine_is_made_on_it(tmp_path: Path) -> None:
    layers = Layers(tmp_path / "layers")
    layers.add("first", machine(tmp_path, "one"))
    user = machine(tmp_path, "user")
    layers.use("first", "debian13-x", user)
    layers.add("second", machine(tmp_path, "two"))
    assert layers.names() == ["first", "second"]
    (user / "layer").unlink()
    layers.add("third", machine(tmp_path, "three"))
    assert layers.names() == ["third"]


def test_a_layer_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    layers = Layers(tmp_path / "layers")
    layers.add("first", machine(tmp_path, "one"))
    disk = machine(tmp_path, "two")
    for name, image in (("second", "debian13-x"), ("first", "debian12-x")):
        with pytest.raises(OperatorError, match="remove nspawn_layer from the inventory"):
            layers.use(name, image, disk)
    layers.use("first", "debian13-x", disk)
    with pytest.raises(OperatorError, match="only a machine on the bare image"):
        layers.add("second", disk)
