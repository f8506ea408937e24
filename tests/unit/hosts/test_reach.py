"""What is made of OpenSSH's answers: the cause of a failed login, and the way through jump hosts."""

from pathlib import Path

import pytest

from streampulse_ops.environments.environment import Environment
from streampulse_ops.hosts import reach

ENVIRONMENT = Environment("demo", Path("inventories/demo"), (), {"provider": "existing"})
SETTINGS = {"hostname": "192.0.2.1", "user": "deploy", "port": "2222"}


@pytest.mark.parametrize(
    ("errors", "said", "away"),
    [
        ("ssh: connect to host 192.0.2.1 port 2222: No route to host\n", r"does not answer .*No route to host", True),
        ("ssh: Could not resolve hostname kafka: Name or service not known\n", "fix ansible_host in", True),
        ("debug1: x\ndeploy@192.0.2.1: Permission denied (publickey).\n", "refuses to log in deploy: .*-p 22", False),
        (
            "No ED25519 host key is known for 192.0.2.1 and you have requested strict checking.\n"
            "Host key verification failed.\n",
            r"host key of h \(192\.0\.2\.1\) is not known here: .*ssh -p 2222 deploy@192\.0\.2\.1",
            False,
        ),
        (
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.\n",
            r"another SSH host key than the known one.*ssh-keygen -R '\[192\.0\.2\.1\]:2222'",
            False,
        ),
    ],
)
def test_a_failed_login_is_named_by_its_cause(errors: str, said: str, away: bool) -> None:
    error = reach.explain(ENVIRONMENT, "h", SETTINGS, errors)
    assert isinstance(error, reach.NoAnswerError) == away
    with pytest.raises(type(error), match=said):
        raise error


@pytest.mark.parametrize(
    ("jump", "words"),
    [
        ("bastion", ["bastion"]),
        ("me@bastion:2222", ["-l", "me", "-p", "2222", "bastion"]),
        ("first,second", ["-J", "first", "second"]),
    ],
)
def test_a_jump_host_is_reached_by_openssh(jump: str, words: list[str]) -> None:
    assert reach.jump_words(jump) == words
