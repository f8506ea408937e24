"""Ansible filters: texts of the inventory and the vault in the files of other programs."""

import re
from collections.abc import Callable, Mapping

from ansible.errors import AnsibleFilterError

# Characters that end a line, or that no configuration file carries.
CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def environment_value(value: object) -> str:
    """Return a value for a file that both systemd (``EnvironmentFile=``) and a POSIX shell read, quoted for both.

    Single quotes keep every character but themselves; a single quote stands in double quotes between two such parts.

    :raises AnsibleFilterError: the value holds a line end or another control character.
    """
    text = str(value)
    if CONTROL.search(text):
        raise AnsibleFilterError("a value holds a line end or another control character: remove it")
    return "'" + text.replace("'", "'\"'\"'") + "'"


def refused_secrets(secrets: Mapping[str, object]) -> list[str]:
    """Return one line for each secret that some program could not read as it is: its name and the reason, no value.

    :param secrets: the environment's secrets by name.
    """
    found = []
    for name, value in secrets.items():
        text = str(value)
        if CONTROL.search(text):
            found.append(f"{name} holds a line end or another control character")
        elif text != text.strip():
            found.append(f"{name} begins or ends with a blank")
        elif name in ("api_key", "api_probe_key") and re.search(r"[^!-~]|,", text):
            found.append(f"{name} holds a comma, a blank or a character outside ASCII")
        elif name.startswith("grafana_") and re.search(r"\$\{|\$__", text):
            found.append(f"{name} holds ${{ or $__, which Grafana replaces")
    return found


def refused_settings(settings: Mapping[str, object]) -> list[str]:
    """Return the names of settings whose value holds a line end or another control character.

    :param settings: values by name, as an inventory gives them to a role.
    """
    return [name for name, value in settings.items() if CONTROL.search(f"{name}{value}")]


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {
            "streampulse_env": environment_value,
            "streampulse_refused_secrets": refused_secrets,
            "streampulse_refused_settings": refused_settings,
        }
