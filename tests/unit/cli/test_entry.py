"""The frame of every task: its closing words and its exit code."""

import pytest
from invoke.exceptions import Exit

from streampulse.core.errors import IncompleteError, OperatorError
from streampulse_ops.cli.entry import timed


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OperatorError("it is broken: correct it"), 1, ""),
        (IncompleteError("Grafana could not be installed", "7 changed"), 3, "7 changed"),
    ],
)
def test_each_end_has_its_exit_code(
    error: OperatorError, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @timed
    def up() -> str:
        raise error

    with pytest.raises(Exit) as caught:
        up()
    assert caught.value.code == code
    assert str(caught.value.message) == f"up: {error}"
    # A partly done task prints the usual closing line with its time.
    assert (f" s · {said}" in capsys.readouterr().out) is bool(said)
