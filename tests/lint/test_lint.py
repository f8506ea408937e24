"""Every linter of `inv lint`, each a test of its own."""

from __future__ import annotations

import pytest

from streampulse.ops import paths, quality

LINTERS = dict(quality.linters(paths.repository()))


@pytest.mark.parametrize("name", LINTERS)
def test_nothing_to_complain_about(name: str) -> None:
    done = quality.look(LINTERS[name])
    assert done.returncode == 0, done.stdout
