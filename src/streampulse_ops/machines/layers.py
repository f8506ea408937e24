"""Layers: disks of prepared machines, kept read-only between an image and new machines."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from streampulse.core.errors import OperatorError
from streampulse_ops.machines import locked

# A machine's identity and journal; every machine has its own, so a layer has neither.
IDENTITY = (
    "etc/hostname", "etc/hosts", "etc/machine-id", "etc/resolv.conf", "etc/ssh/ssh_host_*", "root/.ssh",
    "var/log/journal/*",
)  # fmt: skip
# The machine's file that names its layer.
NAME = "layer"


@dataclass(frozen=True)
class Layers:
    """The layers of this host: ``<name>/diff`` is a layer's tree, ``<name>/image`` names the image below it."""

    folder: Path

    def names(self) -> list[str]:
        """Return the names of the layers."""
        return sorted(marker.parent.name for marker in self.folder.glob("*/image"))

    def add(self, name: str, disk: Path) -> None:
        """Turn the disk of a stopped machine into a layer, unless one of this name exists.

        Unused layers are removed: one tree of the repository needs one layer.

        :param disk: the machine's folder; it has no ``upper`` afterwards.
        :raises OperatorError: the machine is itself made on a layer.
        """
        if (disk / NAME).exists():
            raise OperatorError(f"{disk.name} is made on a layer: only a machine on the bare image becomes one")
        with locked(self.folder):
            used = {file.read_text(encoding="utf-8") for file in self.folder.parent.glob(f"*/*/{NAME}")}
            for other in {*self.names()} - used - {name}:
                shutil.rmtree(self.folder / other)
            if name in self.names():
                return
            made = self.folder / name
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
            (disk / "upper").rename(made / "diff")
            for path in (path for pattern in IDENTITY for path in (made / "diff").glob(pattern)):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            # Written last: it marks the layer as complete.
            shutil.copy(disk / "image", made / "image")

    def use(self, name: str, image: str, disk: Path) -> None:
        """Record that a new machine is made on a layer.

        :param image: name of the machine's image.
        :raises OperatorError: the layer is missing, or is not over this image.
        """
        with locked(self.folder):
            if name not in self.names() or (self.folder / name / "image").read_text(encoding="utf-8") != image:
                raise OperatorError(
                    f"there is no layer {name} over the image {image}: remove nspawn_layer from the inventory"
                )
            (disk / NAME).write_text(name, encoding="utf-8")

    def over(self, image: Path, disk: Path) -> str:
        """Return overlayfs' ``lowerdir`` of a machine: its layer, if any, over its image."""
        file = disk / NAME
        return f"{self.folder / file.read_text(encoding='utf-8') / 'diff'}:{image}" if file.exists() else str(image)
