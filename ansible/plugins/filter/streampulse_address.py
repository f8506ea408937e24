"""Ansible filters: the kind of an address, and its form in PostgreSQL's access rules."""

import ipaddress
import re
from collections.abc import Callable

from ansible.errors import AnsibleFilterError

# A label of a host name (RFC 1123). The last one of a name is never all digits, so a wrong address is no name.
LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
NAME = re.compile(rf"(?:{LABEL}\.)*(?!\d+\.?$){LABEL}\.?")
LONGEST_NAME = 253
MASKS = {"ipv4": "/32", "ipv6": "/128", "name": ""}


def kind(value: object) -> str:
    """Return ``ipv4``, ``ipv6``, ``name``, or an empty text for any other value."""
    text = str(value)
    try:
        return f"ipv{ipaddress.ip_address(text).version}"
    except ValueError:
        return "name" if len(text) <= LONGEST_NAME and NAME.fullmatch(text) else ""


def access_rule(value: object) -> str:
    """Return the address of exactly one host as pg_hba.conf has it: with a mask, or a name without.

    :raises AnsibleFilterError: it is neither an address nor a name.
    """
    found = kind(value)
    if not found:
        raise AnsibleFilterError(f"{value!r} is neither an address nor a host name: correct private_address")
    return f"{value}{MASKS[found]}"


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Callable[[object], str]]:
        """Return the filters by name."""
        return {"streampulse_address_kind": kind, "streampulse_access_rule": access_rule}
