"""Images and machines reach Debian as the control machine's apt does."""

import shutil
from pathlib import Path

import pytest
from fake_commands import FakeCommands

from streampulse_ops.machines import apt, image
from streampulse_ops.machines.image import Image

PROXY = 'Acquire::http::Proxy "http://me:word@127.0.0.1:3142/";'
DIRECT = 'Acquire::HTTP::Proxy::mirror.example "DIRECT";'
OTHERS = 'Acquire::http "";\nAcquire::http::Proxy "";\nAcquire::http::Proxy-Auto-Detect "/usr/bin/ask";\n'
MIRROR = """\
http://localhost/debian/ Debian
http://mirror.example/debian/ Debian Backports
http://mirror.example/security/ Debian-Security
cdrom:[Debian]/ Debian
"""
SOURCES = [
    "deb http://localhost/debian/ trixie main",
    "deb http://localhost/debian/ trixie-updates main",
    "deb http://mirror.example/security/ trixie-security main",
]


def answers(monkeypatch: pytest.MonkeyPatch, configured: str, indexes: str) -> None:
    fake = FakeCommands({"apt-config dump": configured, "apt-get indextargets": indexes})
    monkeypatch.setattr(apt, "run", fake)


def test_an_image_is_built_by_the_proxy_and_the_mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers(monkeypatch, f"{OTHERS}{PROXY}\n{DIRECT}\n", MIRROR)
    own = Image("debian13", tmp_path)
    (tmp_path / "made").mkdir()
    partial = own.root.with_name(f"{own.root.name}.partial")
    fake = FakeCommands({"mmdebstrap": lambda words: shutil.copytree(tmp_path / "made", words[-4])})
    monkeypatch.setattr(image, "run", fake)
    own._build()
    assert f"--aptopt={PROXY} --aptopt={DIRECT} --include=" in fake.ran[0]
    assert fake.ran[0].endswith(f" trixie {partial} {' '.join(SOURCES)}")


def test_a_machine_has_both_by_its_gateway_and_loses_a_former_proxy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sources, proxies = tmp_path / "etc/apt/sources.list", tmp_path / apt.PROXIES
    proxies.parent.mkdir(parents=True)
    answers(monkeypatch, f"{OTHERS}{PROXY}\n{DIRECT}\n", MIRROR)
    apt.write_sources(tmp_path, "trixie", "10.99.0.1")
    apt.write_proxies(tmp_path, "10.99.0.1")
    assert sources.read_text() == "\n".join(SOURCES).replace("localhost", "10.99.0.1") + "\n"
    assert proxies.read_text() == f"{PROXY.replace('127.0.0.1', '10.99.0.1')}\n{DIRECT}\n"
    answers(monkeypatch, OTHERS, "cdrom:[Debian]/ Debian\n")
    sources.unlink()
    apt.write_sources(tmp_path, "trixie", "10.99.0.1")
    apt.write_proxies(tmp_path, "10.99.0.1")
    assert not sources.exists()
    assert not proxies.exists()
