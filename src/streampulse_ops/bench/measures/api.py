"""The API under load while events arrive, beside a plain pool that runs a query for each request."""

import statistics
import time
from typing import Any, Final
from urllib.parse import quote

from streampulse.core.errors import OperatorError
from streampulse_ops.bench import client
from streampulse_ops.bench.figures import Figure, Measured
from streampulse_ops.bench.options import Options
from streampulse_ops.bench.place import Place
from streampulse_ops.hosts import links

#: Events per second during the measurement.
RATE: Final = 300
#: Alternating rounds of API and plain pool; the figures are their medians.
ROUNDS: Final = 3
READERS: Final = 1_000
AIM_LATEST, AIM_LATEST_P99, AIM_OTHERS = 8_000, 0.020, 1_000
AIM_AGE: Final = 0.5
#: Milliseconds from a response to a connection's next request. All connections together then request slightly more than
#: the target rate, so the latencies are those of that rate, not of the maximum.
PAUSE: Final = 6
#: Requests per second relative to the plain pool.
AIM_RATIO: Final = 5.0
#: Duration of one load, as a fraction of a steady load's: there are many loads.
_PART: Final = 6
_SETTLE_SECONDS: Final = 15.0
_READY_SECONDS: Final = 60.0
#: Paths on the API's host, for the comparison.
_PLAIN_PORT: Final = 8099
_LATEST: Final = "/metrics/latest?limit=100"


def measure(place: Place, options: Options) -> Measured:
    """Send events, and request as fast as the API answers."""
    screen = place.session.screen
    client.ensure_wrk(screen.line)
    url = links.address(place.session.environment, "api").rstrip("/")
    plain = url.rpartition(":")[0] + f":{_PLAIN_PORT}"
    with screen.step("api") as step:
        step.note(f"{RATE} events/s and {client.CONNECTIONS} connections")
        words = ["api", "--rate", str(RATE), "--plain-port", str(_PLAIN_PORT)]
        with place.measuring("streampulse-bench-api", words):
            answer = ask(url, plain, max(1, options.seconds // _PART))
        found = figures(answer)
        step.done(f"{found[0].value:,.0f} requests/s, p99 {1000 * found[1].value:.0f} ms")
    return Measured(found, answer)


def ask(url: str, plain: str, seconds: int) -> dict[str, Any]:
    """Return the results of the clients.

    :param plain: the plain pool's.
    :raises OperatorError: one of them does not answer, or there are no rows.
    """
    deadline = time.monotonic() + _READY_SECONDS
    while (stream := client.busiest_stream(url)) is None or not client.answers(plain):
        if time.monotonic() > deadline:
            missing = f"{plain} does not answer" if stream else f"{url} has no rows"
            raise OperatorError(f"{missing} after {_READY_SECONDS:g} s: inv logs api, inv logs job")
        time.sleep(1)
    time.sleep(_SETTLE_SECONDS)
    rounds = [
        (
            client.load(url + _LATEST, seconds),
            client.load(plain + _LATEST, seconds),
            client.load(url + _LATEST, seconds, pause=PAUSE),
        )
        for _ in range(ROUNDS)
    ]
    history = client.load(f"{url}/metrics/history?minutes=60&stream_id={quote(stream)}", seconds)
    top = client.load(f"{url}/streams/top?minutes=10&by=donations_usd&n=5", seconds)
    age = client.largest_age(url, seconds)
    audience = client.readers(url, READERS, seconds)
    return {
        "connections": client.CONNECTIONS,
        "seconds": seconds,
        "latest": [latest._asdict() for latest, _, _ in rounds],
        "plain_pool": [alone._asdict() for _, alone, _ in rounds],
        "paced": [paced._asdict() for _, _, paced in rounds],
        "history": history._asdict(),
        "top": top._asdict(),
        "largest_age_seconds": age,
        "live": audience._asdict(),
    }


def figures(answer: dict[str, Any]) -> list[Figure]:
    """Return the figures: the medians of repeated measurements."""
    latest, plain, paced = answer["latest"], answer["plain_pool"], answer["paced"]
    rate, p99, alone, paced_rate, paced_p99 = (
        statistics.median(seen[name] for seen in rounds)
        for rounds, name in ((latest, "rate"), (latest, "p99"), (plain, "rate"), (paced, "rate"), (paced, "p99"))
    )
    ratio = statistics.median(one["rate"] / other["rate"] for one, other in zip(latest, plain, strict=True))
    loads = [*latest, *paced, answer["history"], answer["top"]]
    live = answer["live"]
    rates = ", ".join(f"{seen['rate']:,.0f}" for seen in latest)
    times, paced_times = (", ".join(f"{1000 * seen['p99']:.0f}" for seen in rounds) for rounds in (latest, paced))
    return [
        _rate("latest", "latest", rate, AIM_LATEST, f"median of {rates}"),
        Figure(
            "api.latest.p99",
            "API, latest, p99 at that rate",
            p99,
            "s",
            note=f"median of {times} ms; every connection asks again as soon as it is answered",
        ),
        _rate("paced", "latest, paced", paced_rate, AIM_LATEST, f"each connection asks {PAUSE} ms after an answer"),
        Figure(
            "api.paced.p99",
            "API, latest, p99 when paced",
            paced_p99,
            "s",
            aim=AIM_LATEST_P99,
            note=f"median of {paced_times} ms",
        ),
        _rate("history", "a stream's hour", answer["history"]["rate"], AIM_OTHERS),
        _rate("top", "ranking", answer["top"]["rate"], AIM_OTHERS),
        _rate("plain_pool", "latest with a plain pool", alone, None, "a query for each request"),
        Figure(
            "api.ratio", "API / plain pool", ratio, "", aim=AIM_RATIO, more_is_better=True, note="median of the rounds"
        ),
        Figure("api.failed", "API, requests that failed", sum(seen["failed"] for seen in loads), "", must=0),
        Figure("api.age", "API, oldest answer", answer["largest_age_seconds"], "s", aim=AIM_AGE),
        Figure(
            "api.live.served",
            f"readers of /live with news, of {live['readers']:,}",
            live["served"],
            "",
            aim=live["readers"],
            more_is_better=True,
            note=f"{live['readings']:.1f} readings of the tables a second, over all workers",
        ),
    ]


def _rate(name: str, title: str, value: float, aim: float | None, note: str = "") -> Figure:
    return Figure(f"api.{name}.rate", f"API, {title}", value, "requests/s", aim=aim, more_is_better=True, note=note)
