"""The look at the API."""

from collections.abc import Iterator

from streampulse.core.errors import one_line
from streampulse.core.settings import ApiSettings, load
from streampulse.host.check.host import Finding, Host, fault, fine, look, reachable


@look("api.health", "api")
def health(host: Host, _: dict[str, str]) -> Iterator[Finding]:
    """Look at the API's health."""
    settings = load(ApiSettings)
    url = f"http://{reachable(settings.host)}:{settings.port}/health"
    try:
        status, answer = host.fetch(url)
    except OSError as error:
        yield fault("SP-API-001", "api.health", f"{url} does not answer ({one_line(error)})", "inv logs api")
        return
    if status == 200 and answer.get("ok") is True:
        yield fine("api.health", url)
    else:
        why = answer.get("error") if isinstance(answer, dict) else None
        cause = f"{url} answers {status}{f' ({why})' if why else ''}"
        yield fault("SP-API-001", "api.health", cause, "inv logs api")
