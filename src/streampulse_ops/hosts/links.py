"""Addresses of pages and user interfaces, and tunnels to those inside the private network."""

from dataclasses import replace

from streampulse.core.errors import OperatorError, UsageError
from streampulse_ops import services
from streampulse_ops.environments import inventory
from streampulse_ops.environments.environment import Environment, Host
from streampulse_ops.hosts import ssh
from streampulse_ops.services import Page, pages

ANY = "0.0.0.0"  # noqa: S104 - a value of the inventory; nothing listens here


def page(name: str) -> Page:
    """Return a page by name.

    :raises UsageError: there is no such page; the text lists the pages.
    """
    if name not in pages():
        raise UsageError(f"{name} is not a page. There are: {', '.join(pages())}. Try: inv open api")
    return pages()[name]


def address(environment: Environment, name: str) -> str:
    """Return a page's address as its host has it.

    :raises OperatorError: the environment has no host for it, or its setting is not on.
    """
    wanted = _shown(environment, name)
    first = environment.require_group(wanted.group)[0]
    if wanted.setting and inventory.variables(environment, first).get(wanted.setting) is not True:
        raise OperatorError(
            f"{name} is off: write {wanted.setting}: true under all.vars of {environment.inventory}, then "
            f"inv up --env {environment.name}"
        )
    host = listening(environment, first, wanted) or ssh.address(environment, first)
    return f"{_scheme(environment, first, wanted)}://{host}:{services.port(environment, wanted.port)}{wanted.path}"


def _shown(environment: Environment, name: str) -> Page:
    """Return the page as people reach it: where the API is public, through the edge."""
    wanted = page(name)
    if wanted.group == "api" and environment.in_group("edge"):
        return replace(wanted, group="edge", port="edge")
    return wanted


def _scheme(environment: Environment, host: Host, wanted: Page) -> str:
    """Return https where the inventory gives the edge a certificate, else http."""
    secure = wanted.group == "edge" and inventory.variables(environment, host).get("edge_certificate")
    return "https" if secure else "http"


def listening(environment: Environment, host: Host, wanted: Page) -> str:
    """Return the address that the inventory makes a page's service listen on; empty for the default addresses."""
    if wanted.group != "api":
        return ""
    given = str(inventory.variables(environment, host).get("api_listen_address", ANY))
    return "" if given in (ANY, "::") else given


def only_there(environment: Environment) -> bool:
    """Return whether the API can be asked from its own host only."""
    hosts = environment.in_group("api")
    given = listening(environment, hosts[0], pages()["api"]) if hosts else ""
    return given == "localhost" or given.startswith("127.") or given == "::1"


def tunnel(environment: Environment, name: str) -> tuple[list[str], str]:
    """Return the ssh command that makes a tunnel to a page, and the page's address at this end."""
    wanted = _shown(environment, name)
    address(environment, name)
    host = environment.in_group(wanted.group)[0]
    port = services.port(environment, wanted.port)
    target = listening(environment, host, wanted) or str(inventory.variables(environment, host)["private_address"])
    if "{{" in target:  # the default, or an expression that only a play can evaluate
        target = ssh.address(environment, host)
    forward = f"127.0.0.1:{port}:{target}:{port}"
    options = ["-N", "-o", "ExitOnForwardFailure=yes", "-L", forward]
    return ssh.login(environment, host).command(
        *options
    ), f"{_scheme(environment, host, wanted)}://127.0.0.1:{port}{wanted.path}"
