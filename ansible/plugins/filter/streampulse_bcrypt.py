"""The Ansible filter for password hashes of Prometheus and the exporters."""

import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import bcrypt
from ansible.errors import AnsibleFilterError

# 2^10 rounds, as in Prometheus' own documentation. The passwords are long and random. Prometheus caches those that it
# has accepted, so more rounds would slow the first request only.
COST = b"10"
LONGEST = 72
# The alphabet of bcrypt's salts; the last of their 22 characters carries two bits only.
ALPHABET = b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
LAST = b".Oeu"


def bcrypt_hash(password: object) -> str:
    """Return the hash of a password as Prometheus and the exporters read it, always the same one for a password.

    The salt is made of the password itself, so that a second run of the role changes nothing. Equal hashes reveal
    nothing: no two environments share a password.

    :raises AnsibleFilterError: there is no password, or it is longer than bcrypt takes.
    """
    text = str(password).encode()
    if not 0 < len(text) <= LONGEST:
        raise AnsibleFilterError(
            f"monitoring_password must have 1 to {LONGEST} bytes: take one that `inv env secrets NAME` prints"
        )
    digest = hmac.new(text, b"streampulse monitoring", hashlib.sha256).digest()
    salt = bytes(ALPHABET[byte % 64] for byte in digest[:21]) + LAST[digest[21] % 4 : digest[21] % 4 + 1]
    return bcrypt.hashpw(text, b"$2b$" + COST + b"$" + salt).decode()


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by name."""
        return {"streampulse_bcrypt": bcrypt_hash}
