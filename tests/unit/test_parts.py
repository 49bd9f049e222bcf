"""Which process does what, and what is refused before it starts."""

from pathlib import Path
from typing import Any

import pytest

from broker.parts import EMBEDDED, NoSuchPart, Part, parts_of
from broker.settings import Settings, SettingsProblem, load

POSTGRES = "postgresql://broker@db/broker"


def settings(**changes: Any) -> Settings:
    return Settings(**changes)


def test_an_embedded_broker_does_everything_but_publish() -> None:
    assert parts_of("all", settings()) == EMBEDDED
    assert Part.RELAY not in EMBEDDED


def test_with_kafka_one_process_may_do_everything() -> None:
    found = settings(database_url=POSTGRES, kafka_servers="kafka:9092")
    assert parts_of("all", found) == frozenset(Part)


@pytest.mark.parametrize("role", list(Part))
def test_on_postgresql_each_part_runs_by_itself(role: str) -> None:
    found = settings(database_url=POSTGRES, kafka_servers="kafka:9092")
    assert parts_of(role, found) == {Part(role)}


@pytest.mark.parametrize(
    ("role", "changes", "said"),
    [
        ("worker", {}, "An embedded broker is one process"),
        ("relay", {"database_url": POSTGRES}, "BROKER_KAFKA_SERVERS is empty"),
        ("postman", {}, "it is one of all, api, relay, dispatch, worker"),
    ],
)
def test_what_cannot_run_is_refused_with_what_to_do(
    role: str, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(NoSuchPart, match=said):
        parts_of(role, settings(**changes))


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"KAFKA_SERVERS": "k:1"}, "set BROKER_DATABASE_URL to a PostgreSQL"),
        ({"KAFKA_CERTIFICATE": "c.pem"}, "BROKER_KAFKA_CERTIFICATE and BROKER_KAFKA_KEY together"),
        (
            {"KAFKA_SERVERS": "k:1", "DATABASE_URL": POSTGRES, "KAFKA_SECURITY": "SASL_SSL"},
            "BROKER_KAFKA_USER",
        ),
        ({"KAFKA_SECURITY": "plain"}, "KAFKA_SECURITY"),
    ],
)
def test_settings_of_kafka_that_do_not_fit_together_are_named(
    variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(f"BROKER_{name}", value)
    with pytest.raises(SettingsProblem, match=said):
        load()


def test_the_password_of_kafka_is_never_shown() -> None:
    found = settings(kafka_password="open sesame")
    assert "sesame" not in repr(found) + str(found) + found.model_dump_json()
