"""Kafka over TLS and with passwords: who is let in, and what is said to who is not."""

import asyncio
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from broker.errors import Unavailable
from broker.events import uuid7
from broker.log_kafka import topics
from broker.log_kafka.connection import connection
from broker.log_kafka.publisher import Publisher
from broker.log_kafka.reader import Reader
from broker.log_kafka.topics import UnsafeTopics
from broker.settings import PREFIX, Settings, SettingsProblem
from broker.topics import TOPICS
from sandbox.process import command, environment
from tests.contract.test_log import ids, some
from tests.kafka import MARKS, Kafka, running_kafka
from tests.kafka_locks import PASSWORD, USER, Authority, locks

pytestmark = MARKS

SOON: float = 10.0
WRONG = "not-the-secret-7733"
Named = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """A Kafka with locks, and what opens each."""

    kafka: Kafka
    authority: Authority
    stranger: Authority

    def settings(self, protocol: str, **changes: Any) -> Named:
        """Return settings that are let in, or that are not by what is changed."""
        found: Named = {
            "database_url": "postgresql:///nowhere",
            "kafka_servers": self.kafka.locked(protocol),
            "kafka_security": protocol,
            "kafka_ca": self.authority.path,
            "kafka_replicas": 1,
            "kafka_partitions": 1,
            "kafka_prefix": "locked.",
        }
        if protocol == "SSL":
            certificate, key = self.authority.give("broker")
            found |= {"kafka_certificate": certificate, "kafka_key": key}
        else:
            found |= {"kafka_user": USER, "kafka_password": PASSWORD}
        return found | changes


@pytest.fixture(scope="module")
def locked_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A Kafka of one node that asks for certificates at one door, and for passwords at another."""
    folder = tmp_path_factory.mktemp("locks")
    authority, stranger = Authority.made(folder, "ours"), Authority.made(folder, "another's")
    with running_kafka(1, locks(authority)) as kafka:
        yield Place(kafka, authority, stranger)


EVERY_WAY = [
    ("SSL", {}),
    ("SASL_SSL", {"kafka_sasl": "SCRAM-SHA-512"}),
    ("SASL_SSL", {"kafka_sasl": "PLAIN"}),
]


@pytest.mark.parametrize(("protocol", "changes"), EVERY_WAY)
async def test_with_the_right_settings_topics_are_made_written_and_read(
    locked_kafka: Place, protocol: str, changes: Named
) -> None:
    prefix = f"{uuid7()}."
    settings = Settings(**locked_kafka.settings(protocol, kafka_prefix=prefix, **changes))
    reach = connection(settings)
    assert len(await topics.create(reach, topics.wanted(settings))) == len(TOPICS)
    await topics.check(reach, topics.wanted(settings))
    topic = prefix + TOPICS[0].name
    publisher = Publisher(reach, lambda _: topic)
    reader = Reader(reach, f"{prefix}readers", [topic], wait=1.0)
    records = some(subjects=3, of_each=1)
    try:
        assert await publisher.publish(records) == []
        found: list[Any] = []
        async with asyncio.timeout(60):
            while len(found) < 3:
                batch = await reader.read()
                found += batch.records
                await batch.commit()
        assert ids(found) == ids(records)
    finally:
        await publisher.close()
        await reader.close()


async def test_who_checks_topics_makes_none_even_where_asking_for_one_makes_it(
    locked_kafka: Place,
) -> None:
    settings = Settings(**locked_kafka.settings("SSL", kafka_prefix=f"{uuid7()}."))
    reach, wanted = connection(settings), topics.wanted(settings)
    for _ in range(2):
        with pytest.raises(UnsafeTopics, match=r"There is no topic .*: run referral-broker topics"):
            await topics.check(reach, wanted)
        await asyncio.sleep(1.0)  # what is made by asking is not there at once
    assert len(await topics.create(reach, wanted)) == len(TOPICS)


def refused(place: Place) -> dict[str, tuple[Named, str]]:
    """Return settings that are not let in, each with what must be said of them."""
    other, key = place.stranger.give("stranger")
    return {
        "a server that nobody vouches for": (
            place.settings("SSL", kafka_ca=place.stranger.path),
            "certificate cannot be trusted .*BROKER_KAFKA_CA",
        ),
        "a server that this system does not know": (
            place.settings("SASL_SSL", kafka_ca=None),
            "certificate cannot be trusted .*BROKER_KAFKA_CA",
        ),
        "no certificate": (
            place.settings("SSL", kafka_certificate=None, kafka_key=None),
            "wants another certificate .*BROKER_KAFKA_CERTIFICATE",
        ),
        "a certificate of somebody else": (
            place.settings("SSL", kafka_certificate=other, kafka_key=key),
            "wants another certificate .*BROKER_KAFKA_CERTIFICATE",
        ),
        "a wrong password by SCRAM": (
            place.settings("SASL_SSL", kafka_password=WRONG),
            "authentication .*BROKER_KAFKA_USER and BROKER_KAFKA_PASSWORD",
        ),
        "a wrong password plainly": (
            place.settings("SASL_SSL", kafka_password=WRONG, kafka_sasl="PLAIN"),
            "authentication .*BROKER_KAFKA_USER and BROKER_KAFKA_PASSWORD",
        ),
        "a way to sign in that there is not": (
            place.settings("SASL_SSL", kafka_sasl="SCRAM-SHA-256"),
            "authentication by SCRAM-SHA-256.*BROKER_KAFKA_SASL",
        ),
        "nobody there": (
            place.settings("SSL", kafka_servers="127.0.0.1:1"),
            "127.0.0.1:1 .*Connect call failed",
        ),
    }


NOT_LET_IN = [
    "a server that nobody vouches for",
    "a server that this system does not know",
    "no certificate",
    "a certificate of somebody else",
    "a wrong password by SCRAM",
    "a wrong password plainly",
    "a way to sign in that there is not",
    "nobody there",
]


@pytest.mark.parametrize("why", NOT_LET_IN)
async def test_who_is_not_let_in_is_told_soon_by_which_setting_and_no_secret_is_said(
    locked_kafka: Place, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    named, said = refused(locked_kafka)[why]
    settings = Settings(**named)
    began = time.monotonic()
    with pytest.raises(Unavailable, match=said) as caught:
        await topics.check(connection(settings), topics.wanted(settings))
    assert time.monotonic() - began < SOON
    for secret in (PASSWORD, WRONG):
        assert secret not in str(caught.value) + repr(caught.value.__cause__) + caplog.text


def run_check(named: Named) -> "subprocess.CompletedProcess[str]":
    variables = {
        PREFIX + name.upper(): str(value) for name, value in named.items() if value is not None
    }
    return subprocess.run(
        command("topics", "check"),
        env=environment(variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("why", ["no certificate", "a wrong password by SCRAM"])
def test_a_shell_with_kafkas_door_locked_is_told_in_one_sentence(
    locked_kafka: Place, why: str
) -> None:
    named, _ = refused(locked_kafka)[why]
    ran = run_check(named)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("Kafka at 127.0.0.1:") and ran.stderr.count("\n") == 1
    assert WRONG not in ran.stderr


def test_files_for_kafka_that_cannot_be_used_are_named_in_a_sentence(
    locked_kafka: Place, tmp_path: Path
) -> None:
    nothing, empty = tmp_path / "nothing.pem", tmp_path / "empty.pem"
    empty.touch()
    certificate, _ = locked_kafka.authority.give("one")
    _, key = locked_kafka.authority.give("two")
    for changes, said in (
        ({"kafka_ca": nothing}, f"{nothing}.*BROKER_KAFKA_CA"),
        ({"kafka_ca": empty}, f"{empty}.*BROKER_KAFKA_CA"),
        ({"kafka_certificate": nothing}, f"{nothing}.*BROKER_KAFKA_CERTIFICATE"),
        ({"kafka_certificate": certificate, "kafka_key": key}, f"{key}.*BROKER_KAFKA_KEY"),
    ):
        with pytest.raises(SettingsProblem, match=said):
            connection(Settings(**locked_kafka.settings("SSL", **changes)))
