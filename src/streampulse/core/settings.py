"""Typed settings, one class for each service, read from the environment.

On a host the variables come from ``/etc/streampulse/<service>.env``, which the service's role writes. What has no
default here (addresses, names, credentials) is owned by the inventory and must be given; what has one is owned here
and the roles pass it on only when the inventory sets it.
"""

import ipaddress
import urllib.parse
from collections.abc import Mapping
from typing import Annotated, Any, Final, Self, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from streampulse.core.errors import SettingsError

Port = Annotated[int, Field(ge=1, le=65535)]
Share = Annotated[float, Field(ge=0, le=1)]
#: Shorter keys could be guessed.
MIN_SECRET_LENGTH: Final = 16
#: librdkafka's names of kafka-python's arguments, where they differ in more than the separator.
_LIBRDKAFKA_NAMES: Final = {
    "sasl_plain_username": "sasl.username",
    "sasl_plain_password": "sasl.password",
    "ssl_cafile": "ssl.ca.location",
}


def _within(default: float, least: float, most: float, description: str) -> Any:
    """Return the field of a number with its limits."""
    return Field(default=default, ge=least, le=most, description=description)


class KafkaSettings(BaseSettings):
    """Addresses and login of Kafka, and the names of its topics."""

    model_config = SettingsConfigDict(env_prefix="STREAMPULSE_KAFKA_", extra="ignore")

    bootstrap_servers: str = Field(description="host:port of one or more brokers, separated by commas")
    topic: str = Field(description="topic of the events")
    dlq_topic: str = Field(description="topic of the dead letters")
    security_protocol: str = Field(
        default="PLAINTEXT",
        pattern="^(PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)$",
        description="Kafka's security.protocol",
    )
    sasl_mechanism: str = Field(default="SCRAM-SHA-512", description="SASL mechanism, where the protocol uses SASL")
    sasl_username: str | None = Field(default=None, description="SASL user")
    sasl_password: SecretStr | None = Field(default=None, description="SASL password")
    ssl_cafile: str | None = Field(default=None, description="path of the CA certificates that sign the brokers'")

    def client_arguments(self, client_id: str) -> dict[str, str]:
        """Return the keyword arguments that every client of kafka-python takes, for these settings.

        :param client_id: what the broker's logs and quotas show for the client.
        """
        arguments = {
            "bootstrap_servers": self.bootstrap_servers,
            "client_id": client_id,
            "security_protocol": self.security_protocol,
        }
        if self.security_protocol.startswith("SASL"):
            arguments["sasl_mechanism"] = self.sasl_mechanism
            if self.sasl_username is not None:
                arguments["sasl_plain_username"] = self.sasl_username
            if self.sasl_password is not None:
                arguments["sasl_plain_password"] = self.sasl_password.get_secret_value()
        if self.ssl_cafile is not None:
            arguments["ssl_cafile"] = self.ssl_cafile
        return arguments

    def librdkafka_options(self, client_id: str) -> dict[str, str]:
        """Return the configuration that every client made of librdkafka takes, for these settings.

        :param client_id: what the broker's logs and quotas show for the client.
        """
        arguments = self.client_arguments(client_id)
        return {_LIBRDKAFKA_NAMES.get(name, name.replace("_", ".")): value for name, value in arguments.items()}

    @classmethod
    def of_librdkafka(cls, options: Mapping[str, str], topic: str) -> Self:
        """Return settings that have these options of :meth:`librdkafka_options`, and a topic."""
        given = {name: options.get(name.replace("_", ".")) for name in cls.model_fields}
        given["ssl_cafile"] = options.get(_LIBRDKAFKA_NAMES["ssl_cafile"])
        known: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return cls(**{**known, "topic": topic, "dlq_topic": topic})


class PostgresSettings(BaseSettings):
    """Address and login of PostgreSQL."""

    model_config = SettingsConfigDict(env_prefix="STREAMPULSE_POSTGRES_", extra="ignore")

    host: str = Field(description="address of the server")
    port: Port = Field(description="port of the server")
    database: str = Field(description="name of the database")
    user: str = Field(description="role to log in as")
    password: SecretStr = Field(description="password of the role")
    sslmode: str = Field(
        default="prefer",
        pattern="^(disable|allow|prefer|require|verify-ca|verify-full)$",
        description="libpq's sslmode",
    )

    def connection_arguments(self, application_name: str) -> dict[str, Any]:
        """Return the keyword arguments of ``psycopg2.connect`` for these settings.

        :param application_name: what ``pg_stat_activity`` shows for the connection.
        """
        return {
            "host": self.host,
            "port": self.port,
            "dbname": self.database,
            "user": self.user,
            "password": self.password.get_secret_value(),
            "sslmode": self.sslmode,
            "application_name": application_name,
            "connect_timeout": 5,
            # A peer that vanished without a word is noticed after about 5 + 3 * 5 s, not after hours.
            "keepalives_idle": 5,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            # Keepalives rest while something sent is not acknowledged.
            "tcp_user_timeout": 15_000,
        }


class CountingSettings(BaseSettings):
    """The job's settings that decide the numbers. The oracle uses the same."""

    model_config = SettingsConfigDict(env_prefix="STREAMPULSE_JOB_", extra="ignore")

    viewer_timeout_seconds: int = _within(
        6 * 3600, 60, 7 * 86400, "a viewer without any event for this long is gone, in seconds"
    )
    history_days: int = _within(30, 1, 3650, "how long rows are kept, in days of event time")


class JobSettings(CountingSettings):
    """The streaming job."""

    checkpoint_dir: str = Field(description="directory of Spark's checkpoints, one folder for each run of the driver")
    max_offsets_per_trigger: int = Field(
        default=250_000, ge=1, description="records in one micro-batch at most, over all partitions"
    )
    trigger_interval_ms: int = _within(
        400, 0, 60_000, "time between the starts of two micro-batches at least, in milliseconds"
    )
    stall_seconds: int = _within(
        300, 10, 3600, "a micro-batch that gets no step further for this long ends the driver, in seconds"
    )
    ledger_days: int = _within(
        7, 1, 3650, "how long entries of the ledger of batches are kept, in days; one a minute after two days"
    )
    metrics_host: str = Field(default="127.0.0.1", description="address that the job's scrape endpoint listens on")
    metrics_port: Port = Field(description="port of the job's scrape endpoint, that of shard 0 where there are several")
    shards: int = _within(1, 1, 64, "number of drivers that count the topic together, each its own partitions")
    shard: int = _within(0, 0, 63, "number of this driver among them, from 0")

    @model_validator(mode="after")
    def _among(self) -> "JobSettings":
        if self.shard >= self.shards:
            raise ValueError(f"STREAMPULSE_JOB_SHARD: {self.shard} is not below STREAMPULSE_JOB_SHARDS, {self.shards}")
        return self


class WorldSettings(BaseSettings):
    """The generator's synthetic world, for a steady rate and for a backlog."""

    model_config = SettingsConfigDict(env_prefix="STREAMPULSE_GENERATOR_", extra="ignore")

    streams: int = _within(50, 1, 1_000_000, "number of streams")
    users: int = _within(20_000, 1, 100_000_000, "number of users")
    skew: float = _within(
        1.0, 0, 4, "how unequal streams are: the n-th most popular one has 1/n^skew of the first one's audience"
    )
    seed: int | None = Field(default=None, description="seed of the random numbers; unset: a new one at each start")
    duplicates: Share = Field(default=0.0, description="share of the events that are sent a second time")
    disorder: Share = Field(default=0.0, description="share of the events that are held back by up to two minutes")
    late: Share = Field(default=0.0, description="share of the events that are followed by one too late to count")
    garbage: Share = Field(default=0.0, description="share of the events that are followed by an invalid record")


class GeneratorSettings(WorldSettings):
    """The event generator."""

    rate: float = Field(default=300.0, gt=0, le=1_000_000, description="events per second in all")
    metrics_host: str = Field(default="127.0.0.1", description="address that the scrape endpoint listens on")
    metrics_port: Port = Field(description="port of the generator's scrape endpoint")


class ApiSettings(BaseSettings):
    """The HTTP API."""

    model_config = SettingsConfigDict(env_prefix="STREAMPULSE_API_", extra="ignore")

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: Port = Field(description="port to listen on")
    workers: int = _within(2, 1, 64, "worker processes")
    pool_size: int = _within(4, 1, 64, "PostgreSQL connections of each worker at most")
    statement_timeout_ms: int = _within(2000, 10, 60_000, "a query that takes longer is cancelled, in milliseconds")
    snapshot_interval_ms: int = _within(250, 50, 10_000, "time between two readings of the tables, in milliseconds")
    stale_seconds: float = _within(
        10.0, 0, 600, "while PostgreSQL is away, answers that are this old at most are still given, marked as stale"
    )
    live_readers: int = _within(2000, 1, 20_000, "event streams of each worker at most")
    docs: bool = Field(default=True, description="whether /docs and /openapi.json are there")
    cors_origins: str = Field(
        default="", description="origins whose pages may read the API, separated by commas; empty: none"
    )
    public: bool = Field(
        default=False, description="ask for a key, limit rates, and keep /health and /prometheus to private networks"
    )
    keys: SecretStr | None = Field(default=None, description="API keys that are let in, separated by commas")
    cookie_secret: SecretStr | None = Field(default=None, description="signs the cookie of a logged-in browser")
    rate_limit_per_minute: int = _within(
        1200, 1, 10_000_000, "requests of one key or one log-in in a minute, where public"
    )
    address_limit_per_minute: int = _within(
        60, 1, 10_000_000, "requests of one address without a key in a minute, where public"
    )
    private_networks: str = Field(
        default="127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7",
        description="where /health and /prometheus may be asked for from, where public; networks separated by commas",
    )
    trusted_proxies: str = Field(
        default="",
        description="proxies whose X-Forwarded-For and X-Forwarded-Proto are believed; networks separated by commas",
    )

    @field_validator("private_networks", "trusted_proxies")
    @classmethod
    def _networks(cls, text: str) -> str:
        for word in split(text):
            try:
                ipaddress.ip_network(word)
            except ValueError:
                raise ValueError("not a list of networks") from None
        return text

    @model_validator(mode="after")
    def _guarded(self) -> "ApiSettings":
        if self.public:
            keys = split(self.keys.get_secret_value()) if self.keys else []
            if not keys or any(len(key) < MIN_SECRET_LENGTH for key in keys):
                raise ValueError(
                    f"STREAMPULSE_API_KEYS: each of {MIN_SECRET_LENGTH} characters or more, since the API is public"
                )
            if self.cookie_secret is None or len(self.cookie_secret.get_secret_value()) < MIN_SECRET_LENGTH:
                raise ValueError(
                    f"STREAMPULSE_API_COOKIE_SECRET: {MIN_SECRET_LENGTH} characters or more, since the API is public"
                )
        return self


class ProbeSettings(BaseSettings):
    """The synthetic probe."""

    model_config = SettingsConfigDict(env_prefix="STREAMPULSE_PROBE_", extra="ignore")

    api_urls: str = Field(
        description="addresses of the API's hosts, http://HOST:PORT, separated by commas: where one does not answer, "
        "the others are asked"
    )
    api_key: SecretStr | None = Field(default=None, description="key that is sent to the API, where it asks for one")
    event_second: int = _within(10, 0, 59, "second of each minute at which an event is sent")
    visible_seconds: float = _within(
        30.0, 1, 30, "an event that is not visible in the API after this long is lost, in seconds"
    )
    interval_seconds: float = _within(
        5.0, 1, 60, "time between two requests to the API, and between two looks at Kafka and the ledger, in seconds"
    )
    answer_seconds: float = _within(
        3.0, 0.1, 10, "how long the API, Kafka and PostgreSQL may take to answer, in seconds"
    )
    metrics_host: str = Field(default="127.0.0.1", description="address that the scrape endpoint listens on")
    metrics_port: Port = Field(description="port of the probe's scrape endpoint")

    @field_validator("api_urls")
    @classmethod
    def _addresses(cls, text: str) -> str:
        if not split(text) or not all(_is_address(url) for url in split(text)):
            raise ValueError("not of the form http://HOST:PORT")
        return text


def _is_address(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        return bool(parts.scheme in ("http", "https") and parts.hostname and parts.port != 0)
    except ValueError:
        return False


def split(text: str) -> list[str]:
    """Return the words of a list that is separated by commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


class MonitoringSettings(BaseSettings):
    """How to reach Prometheus and Alertmanager."""

    model_config = SettingsConfigDict(env_prefix="STREAMPULSE_MONITORING_", extra="ignore")

    prometheus_url: str = Field(pattern="^https?://", description="where Prometheus is, without a path")
    alertmanager_url: str = Field(pattern="^https?://", description="where Alertmanager is, without a path")
    user: str | None = Field(default=None, description="name to log in with, where they ask for one")
    password: SecretStr | None = Field(default=None, description="password to log in with")


SettingsType = TypeVar("SettingsType", bound=BaseSettings)


def load(kind: type[SettingsType]) -> SettingsType:
    """Read one settings class from the environment.

    :raises SettingsError: a variable is missing or malformed. The text names the variable and never its value, which
        may be a secret.
    """
    prefix = kind.model_config["env_prefix"]
    try:
        return kind()
    except ValidationError as error:
        lines = [
            # The text of an error about several settings names them.
            f"{prefix}{'_'.join(str(part) for part in item['loc']).upper()}: {item['msg'].lower()}"
            if item["loc"]
            else item["msg"].removeprefix("Value error, ")
            for item in error.errors(include_input=False, include_url=False)
        ]
        service = prefix.removeprefix("STREAMPULSE_").rstrip("_").lower()
        raise SettingsError(
            "; ".join(lines) + f" (set in /etc/streampulse/*.env by the inventory's {service} variables)"
        ) from None
