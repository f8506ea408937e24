"""A substitute for Prometheus and Alertmanager: answers by method and path, and keeps the requests."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import http_server
from http_server import Answer, Request

from streampulse.core.settings import MonitoringSettings


@dataclass
class Told:
    """A running server: its address, its answers by the beginning of method and path, and its requests."""

    url: str = ""
    answers: dict[str, Answer | Callable[[Request], Answer]] = field(default_factory=dict)
    asked: list[Request] = field(default_factory=list)

    def settings(self, user: str | None = None, password: str | None = None) -> MonitoringSettings:
        return MonitoringSettings.model_validate(
            {"prometheus_url": self.url, "alertmanager_url": self.url, "user": user, "password": password}
        )

    def answer(self, request: Request) -> Answer:
        self.asked.append(request)
        fitting = [key for key in self.answers if f"{request.method} {request.path}".startswith(key)]
        found = self.answers[max(fitting, key=len)] if fitting else (404, "")
        return found(request) if callable(found) else found


@contextmanager
def serving() -> Iterator[Told]:
    """Run such a server on a free port."""
    told = Told()
    with http_server.serving(told.answer) as told.url:
        yield told
