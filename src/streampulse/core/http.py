"""HTTP requests to the deployment's own addresses. Proxies of the environment are never used for them."""

import ssl
import urllib.parse
from collections.abc import Mapping

# httpx imports its transport at the first request. Imported here, it is in no measured time.
import httpcore  # noqa: F401
import httpx

from streampulse.core.errors import one_line


class NoAnswer(OSError):  # noqa: N818 - a finding
    """No server answered, or not in time, or not in HTTP."""


def request(
    method: str,
    url: str,
    *,
    seconds: float,
    headers: Mapping[str, str] | None = None,
    login: tuple[str, str] | None = None,
    body: bytes | None = None,
    verified: bool = True,
) -> httpx.Response:
    """Send one request over a connection of its own and return the answer, whatever its status.

    Redirects are not followed.

    :param seconds: limit for connecting and for each wait for a part of the answer.
    :param login: user and password for basic authentication.
    :param verified: whether the server's certificate must be valid for the URL's host. An address has no certificate.
    :raises NoAnswer: there was no answer in time.
    :raises ValueError: the URL is malformed.
    """
    urllib.parse.urlsplit(url)  # refuses hosts that httpx takes: http://[x
    # Loading the certificate authorities takes 0.1 s. A context without any refuses every certificate.
    secure = verified and url.startswith("https:")
    tls = ssl.create_default_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not verified:
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    try:
        with httpx.Client(trust_env=False, timeout=seconds, verify=tls) as client:
            return client.request(method, url, headers=headers, auth=login, content=body)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise ValueError(one_line(error)) from None
    except httpx.HTTPError as error:
        raise NoAnswer(one_line(error)) from None


def get(
    url: str,
    *,
    seconds: float,
    headers: Mapping[str, str] | None = None,
    login: tuple[str, str] | None = None,
    verified: bool = True,
) -> httpx.Response:
    """Return the answer to a GET request; see :func:`request`."""
    return request("GET", url, seconds=seconds, headers=headers, login=login, verified=verified)
