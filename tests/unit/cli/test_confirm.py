"""The question before something is lost."""

import io

import pytest

from streampulse.core.errors import OperatorError
from streampulse_ops.cli.console import confirm


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("answer", "goes_on"), [("y\n", True), ("YES\n", True), ("\n", False), ("n\n", False), ("", False)]
)
def test_a_question_needs_a_yes(monkeypatch: pytest.MonkeyPatch, answer: str, goes_on: bool) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    if goes_on:
        confirm("All of it?", yes=False, command="inv down --wipe --yes")
    else:
        with pytest.raises(OperatorError, match="nothing was changed"):
            confirm("All of it?", yes=False, command="inv down --wipe --yes")


def test_a_question_without_a_terminal_is_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(OperatorError, match="Nobody is there to ask: inv down --wipe --yes"):
        confirm("All of it?", yes=False, command="inv down --wipe --yes")
    confirm("All of it?", yes=True, command="")


def test_a_protected_environment_is_named_on_a_terminal_even_with_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("production\n"))
    confirm("All of it?", yes=True, command="", typed="production")
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    with pytest.raises(OperatorError, match="nothing was changed: the answer was not production"):
        confirm("All of it?", yes=True, command="", typed="production")
    monkeypatch.setattr("sys.stdin", io.StringIO("production\n"))
    with pytest.raises(OperatorError, match="production is protected: run this on a terminal"):
        confirm("All of it?", yes=True, command="", typed="production")
