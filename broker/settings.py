"""Everything that can be set, from the environment (BROKER_…); what is unknown is refused."""

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from broker.addresses import UrlRefused, read_url
from broker.errors import BrokerError
from fhir_profiles.bars.incoming import Target

PREFIX = "BROKER_"
# Read by the test suite, not by the broker.
FOREIGN = ("BROKER_TEST_",)


class SettingsProblem(BrokerError):
    """The settings cannot be used. The message names each and says what to do."""


def _extensible(url: str) -> str:
    """Return a URL to which a path can be added, for partners sign in and give receipts there."""
    try:
        if url:
            read_url(url, allow_plain_http=True)
    except UrlRefused:
        raise ValueError("write it as https://host[:port][/path]") from None
    if "?" in url:
        raise ValueError("write it without a query")
    return url


def _target(text: str) -> str:
    """Return an identifier as BaRS writes it."""
    if text and Target.read(text) is None:
        raise ValueError("write it as system|value")
    return text


class Settings(BaseSettings):
    """Each field is the environment variable BROKER_ plus its name in capitals."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    data_dir: Annotated[
        Path, Field(description="Where the embedded database and its lock live.")
    ] = Path("data")
    keys_dir: Annotated[
        Path, Field(description="Where the key ring lives; keep it off the data volume.")
    ] = Path("keys")
    database_url: Annotated[
        str, Field(description="Another database than the embedded one (postgresql://…).")
    ] = ""
    host: Annotated[str, Field(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Field(description="Port of the API.", ge=0, le=65535)] = 8080
    admin_port: Annotated[
        int, Field(description="Port of /metrics, on the same address; 0: none.", ge=0, le=65535)
    ] = 9090
    public_url: Annotated[
        str,
        Field(
            description="How callers reach the broker; the audience of their assertions. Must be "
            "set to serve on every address (0.0.0.0, ::)."
        ),
        AfterValidator(_extensible),
    ] = ""
    source: Annotated[
        str, Field(description="The CloudEvents source: this deployment's name as a URI.")
    ] = "urn:referral-broker"
    bars_target: Annotated[
        str,
        Field(
            description="What BaRS senders call this broker itself, as an identifier's system, a "
            "bar and its value: referrals to it go to the first service of their shortlist "
            "(Application 8)."
        ),
        AfterValidator(_target),
    ] = ""
    max_body: Annotated[
        int, Field(description="Largest request body, in bytes.", ge=1_024, le=26_214_400)
    ] = 1_048_576
    attachment_hours: Annotated[
        float,
        Field(
            description="Hours after which an upload that no message names is removed.",
            gt=0,
            le=720,
        ),
    ] = 24.0
    slots: Annotated[int, Field(description="Deliveries in flight, in all.", ge=2)] = 64
    slots_per_destination: Annotated[
        int, Field(description="Deliveries in flight to one destination.", ge=2)
    ] = 8
    send_timeout: Annotated[float, Field(description="Seconds for one webhook.", gt=0, le=45)] = (
        20.0
    )
    poll_seconds: Annotated[
        float, Field(description="How often the database is looked at without a wake-up.", gt=0)
    ] = 5.0
    kafka_servers: Annotated[
        str, Field(description="Kafka to publish to and dispatch from (host:port,…); empty: none.")
    ] = ""
    kafka_security: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"],
        Field(description="How Kafka is reached; PLAINTEXT only where nobody else can listen."),
    ] = "SSL"
    kafka_ca: Annotated[
        Path | None, Field(description="Who vouches for Kafka's certificates (PEM).")
    ] = None
    kafka_certificate: Annotated[
        Path | None, Field(description="The certificate (PEM) that Kafka is shown.")
    ] = None
    kafka_key: Annotated[
        Path | None, Field(description="The key of that certificate (PEM, without a password).")
    ] = None
    kafka_sasl: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"],
        Field(description="How the broker signs in to Kafka, where it does."),
    ] = "SCRAM-SHA-512"
    kafka_user: Annotated[str, Field(description="As whom it signs in to Kafka.")] = ""
    kafka_password: Annotated[SecretStr, Field(description="And its password.")] = SecretStr("")
    kafka_prefix: Annotated[
        str, Field(description="What every topic's name begins with, on a Kafka that is shared.")
    ] = ""
    kafka_partitions: Annotated[
        int, Field(description="Partitions of each topic; fixed for ever.", ge=1, le=1_000)
    ] = 12
    kafka_replicas: Annotated[int, Field(description="Copies of each partition.", ge=1, le=9)] = 3
    allow_plain_http: Annotated[
        bool, Field(description="Whether calls may go to http:// and loopback addresses.")
    ] = False
    tls_certificate: Annotated[
        Path | None,
        Field(description="The certificate (PEM, with its chain) that BaRS receivers are shown."),
    ] = None
    tls_key: Annotated[
        Path | None, Field(description="The key of that certificate (PEM, without a password).")
    ] = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Field(description="debug, info, warning or error."),
    ] = "info"

    @model_validator(mode="after")
    def _kafka_for_several_processes(self) -> Self:
        if self.has_kafka and self.is_embedded:
            raise ValueError("set BROKER_DATABASE_URL to a PostgreSQL to use BROKER_KAFKA_SERVERS")
        if (self.kafka_certificate is None) != (self.kafka_key is None):
            raise ValueError("set BROKER_KAFKA_CERTIFICATE and BROKER_KAFKA_KEY together")
        if self.has_kafka and self.kafka_security.startswith("SASL") and not self.kafka_user:
            raise ValueError("set BROKER_KAFKA_USER and BROKER_KAFKA_PASSWORD to sign in to Kafka")
        return self

    @model_validator(mode="after")
    def _certificate_with_its_key(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("set BROKER_TLS_CERTIFICATE and BROKER_TLS_KEY together, or neither")
        return self

    @property
    def store_url(self) -> str:
        return self.database_url or f"sqlite:///{self.data_dir / 'broker.db'}"

    @property
    def is_embedded(self) -> bool:
        return not self.database_url

    @property
    def has_kafka(self) -> bool:
        return bool(self.kafka_servers)

    @property
    def ring_path(self) -> Path:
        return self.keys_dir / "ring.json"

    @property
    def base_url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (self.public_url or f"http://{host}:{self.port}").rstrip("/")

    @property
    def token_url(self) -> str:
        return f"{self.base_url}/oauth2/token"


def load() -> Settings:
    """Read the settings. Raises SettingsProblem, naming every one that is unknown or wrong."""
    problems = [
        f"{name} is not a setting; see the table in README.md"
        for name in sorted(os.environ)
        if name.startswith(PREFIX)
        and not name.startswith(FOREIGN)
        and name[len(PREFIX) :].lower() not in Settings.model_fields
    ]
    try:
        settings = Settings()
    except ValidationError as error:
        problems += [
            (f"{PREFIX}{'_'.join(map(str, one['loc'])).upper()}: " if one["loc"] else "")
            + one["msg"].removeprefix("Value error, ")
            for one in error.errors()
        ]
        raise SettingsProblem("; ".join(problems)) from None
    if problems:
        raise SettingsProblem("; ".join(problems))
    return settings


def table() -> list[tuple[str, str, str]]:
    """Return (variable, default, meaning) for every setting, as README prints it."""
    return [
        (PREFIX + name.upper(), str(field.default), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
