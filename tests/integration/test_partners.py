"""The simulated partners: alone on the wire, and against a real broker, what each sentinel does."""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio
from joserfc.jwk import ECKey
from standardwebhooks import Webhook

from sandbox.client import Client, Identity, NeverAnswered
from sandbox.ledger import until
from sandbox.partner import Partner
from sandbox.process import free_port
from sandbox.sentinels import UPDATE_REASONS
from sandbox.webhook import WebhookPartner
from sandbox.world import INBOX_PRACTICE, WEBHOOK_PRACTICE, World

pytestmark = pytest.mark.slow

SECRET = b"a secret of at least thirty-two b"
PATIENCE = 20.0

# -- a practice that is called, without any broker ------------------------------------------------


@dataclass
class Wire:
    """Calls a practice as a broker would."""

    practice: WebhookPartner
    http: httpx2.AsyncClient
    deliveries: list[str] = field(default_factory=list)

    def last(self) -> str:
        return self.deliveries[-1]

    async def post(
        self, family: str, *, delivery: str = "", secret: bytes = SECRET
    ) -> httpx2.Response:
        delivery = delivery or str(uuid4())
        self.deliveries.append(delivery)
        body = _bundle(family)
        at = datetime.now(UTC)
        return await self.http.post(
            self.practice.url,
            content=body,
            headers={
                "content-type": "application/fhir+json",
                "webhook-id": delivery,
                "webhook-timestamp": str(int(at.timestamp())),
                "webhook-signature": Webhook(secret).sign(delivery, at, body.decode()),
                "referral-broker-kind": "update",
            },
        )


def _bundle(family: str) -> bytes:
    identifier = [{"system": "https://referral-broker.example/fhir/Id/message", "value": "m-1"}]
    resources: list[dict[str, Any]] = [
        {
            "resourceType": "MessageHeader",
            "eventCoding": {"code": "record-update"},
            "focus": [{"reference": "urn:uuid:2"}],
        },
        {"resourceType": "Communication", "identifier": identifier},
        {"resourceType": "Patient", "name": [{"family": family}]},
    ]
    entries = [
        {"fullUrl": f"urn:uuid:{number}", "resource": one}
        for number, one in enumerate(resources, 1)
    ]
    return json.dumps({"resourceType": "Bundle", "entry": entries}).encode()


def _identity(folder: Path) -> Identity:
    path = folder / "key.pem"
    path.write_bytes(ECKey.generate_key("P-384").as_pem(private=True))
    return Identity("gp", "G99002", "Hilltop Surgery", path, "ES384", "k", ())


@pytest_asyncio.fixture
async def wire(tmp_path: Path) -> AsyncIterator[Wire]:
    """A practice that listens, and somebody who knows its secret. Its broker is not there."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    practice = WebhookPartner(
        _identity(tmp_path),
        nowhere,
        tmp_path / "ledger.jsonl",
        secret=SECRET,
        slow_seconds=0.2,
        late_seconds=0.3,
        patience=0.1,
    )
    async with practice, httpx2.AsyncClient(trust_env=False, timeout=1.0) as http:
        yield Wire(practice, http)


async def test_what_is_signed_is_stored_and_confirmed(wire: Wire) -> None:
    answer = await wire.post("Okafor")
    digest = hashlib.sha256(_bundle("Okafor")).hexdigest()
    assert answer.json() == {"delivery": wire.last(), "digest": digest, "ods": "G99002"}
    on_disk = [json.loads(line) for line in wire.practice.ledger.path.read_text().splitlines()]
    assert [(one["what"], one["delivery"]) for one in on_disk[:2]] == [
        ("received", wire.last()),
        ("confirmed", wire.last()),
    ]


async def test_what_is_not_signed_by_the_broker_is_not_stored(wire: Wire) -> None:
    assert (await wire.post("Okafor", secret=b"another secret altogether, long")).status_code == 401
    unsigned = await wire.http.post(wire.practice.url, content=_bundle("Okafor"))
    assert unsigned.status_code == 401
    assert [one["what"] for one in wire.practice.ledger.entries()] == ["refused", "refused"]


async def test_the_same_delivery_twice_is_stored_once(wire: Wire) -> None:
    first = await wire.post("Okafor")
    second = await wire.post("Okafor", delivery=wire.last())
    assert first.json() == second.json()
    assert len(wire.practice.ledger.entries("received")) == 1
    assert len(wire.practice.ledger.entries("received-again")) == 1


@pytest.mark.parametrize(
    ("family", "status", "is_stored"),
    [
        ("XXTEST-FAIL", 500, False),
        ("XXTEST-REFUSE", 422, False),
        ("XXTEST-REDIRECT", 307, False),
        ("XXTEST-BARE", 200, True),
        ("XXTEST-SLOW", 200, True),
        ("XXTEST-LATE", 200, True),
        ("XXTEST-UNDECIDED", 200, True),
    ],
)
async def test_how_a_sentinel_is_answered(
    wire: Wire, family: str, status: int, is_stored: bool
) -> None:
    assert (await wire.post(family)).status_code == status
    assert bool(wire.practice.ledger.first("received", family=family)) is is_stored


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("XXTEST-LIE-DIGEST", "digest"),
        ("XXTEST-LIE-ODS", "ods"),
        ("XXTEST-LIE-DELIVERY", "delivery"),
    ],
)
async def test_a_lie_is_about_one_thing_and_written_down(
    wire: Wire, family: str, name: str
) -> None:
    digest = hashlib.sha256(_bundle(family)).hexdigest()
    said = (await wire.post(family)).json()
    truth = {"delivery": wire.last(), "digest": digest, "ods": "G99002"}
    assert {one for one in truth if said[one] != truth[one]} == {name}
    assert wire.practice.ledger.first("lied", delivery=wire.last())
    assert not wire.practice.ledger.first("confirmed")


async def test_one_that_recovers_fails_twice(wire: Wire) -> None:
    delivery = str(uuid4())
    answers = [await wire.post("XXTEST-RECOVER", delivery=delivery) for _ in range(3)]
    assert [one.status_code for one in answers] == [500, 500, 200]
    assert len(wire.practice.ledger.entries("received")) == 1


async def test_one_that_resets_has_stored_it_and_knows_it_again(wire: Wire) -> None:
    delivery = str(uuid4())
    with pytest.raises(httpx2.TransportError):
        await wire.post("XXTEST-RESET", delivery=delivery)
    assert wire.practice.ledger.first("received", delivery=delivery)
    assert (await wire.post("XXTEST-RESET", delivery=delivery)).status_code == 200
    assert len(wire.practice.ledger.entries("received")) == 1


@pytest.mark.parametrize("family", ["XXTEST-SILENT", "XXTEST-DRIP"])
async def test_one_that_never_ends_ends_with_the_caller(wire: Wire, family: str) -> None:
    with pytest.raises((httpx2.TimeoutException, TimeoutError)):
        async with asyncio.timeout(1.5):
            await wire.post(family)
    assert not wire.practice.ledger.first("received")


async def test_it_can_stop_and_listen_again_at_the_same_place(wire: Wire) -> None:
    url = wire.practice.url
    await wire.practice.stop()
    with pytest.raises(httpx2.ConnectError):
        await wire.post("Okafor")
    await wire.practice.start()
    assert wire.practice.url == url
    assert (await wire.post("Okafor")).status_code == 200


async def test_it_stops_without_a_word_also_while_somebody_waits_for_it(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = asyncio.create_task(wire.post("XXTEST-LATE"))
    wire.practice.late_seconds = PATIENCE
    await until(lambda: wire.practice.ledger.entries("misbehaved"), PATIENCE)
    await wire.practice.stop()
    with pytest.raises(httpx2.TransportError):
        await waiting
    assert [one.getMessage() for one in caplog.records if one.name == "uvicorn.error"] == []


async def test_a_partner_has_patience_and_no_more(tmp_path: Path) -> None:
    client = Client(f"http://127.0.0.1:{free_port()}", _identity(tmp_path), patience=0.3)
    with pytest.raises(NeverAnswered, match="POST /oauth2/token"):
        await client.call("GET", "/inbox")
    await client.aclose()


# -- against a broker ----------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A broker in a process of its own, and every partner; it waits 1 s for an answer."""
    async with World(tmp_path_factory.mktemp("world"), send_timeout=1.0) as made:
        made.webhook_practice.slow_seconds = made.practice.slow_seconds = 0.3
        yield made


in_world = pytest.mark.asyncio(loop_scope="module")


async def outcome(world: World, family: str, practice: str, *, seconds: float = PATIENCE) -> Any:
    """Post a consultation for this patient; return its delivery once a receiver has dealt with it.

    Dealt with: decided, dead, or after an attempt that failed or proved nothing.
    """
    pharmacy = world.pharmacy
    sent = await pharmacy.submit(pharmacy.consultation(practice=practice, family=family))
    assert sent.status == 202, sent.json
    return await delivery(world, sent.json["messages"][0]["id"], seconds=seconds)


async def delivery(world: World, message: str, *, seconds: float, outcome: str = "") -> Any:
    """Return the one delivery of a message once it has that outcome, or any sign of one."""
    ends = time.monotonic() + seconds
    while True:
        found = (await world.pharmacy.track(message))["deliveries"]
        signs = found and (found[0]["outcome"] or found[0]["attempts"] or found[0]["receipts"])
        is_over = signs and (not outcome or found[0]["outcome"] == outcome)
        if is_over or time.monotonic() > ends:
            assert len(found) == 1
            return found[0]
        await asyncio.sleep(0.05)


@in_world
@pytest.mark.parametrize("practice", [INBOX_PRACTICE, WEBHOOK_PRACTICE])
@pytest.mark.parametrize("family", ["Okafor", "XXTEST-SLOW", "XXTEST-FILE"])
async def test_a_consultation_is_filed(world: World, practice: str, family: str) -> None:
    pharmacy = world.pharmacy
    sent = await pharmacy.submit(pharmacy.consultation(practice=practice, family=family))
    message = sent.json["messages"][0]["id"]
    found = await delivery(world, message, seconds=PATIENCE, outcome="filed")
    assert (found["outcome"], found["received_at"] is None) == ("filed", False)
    told = await until(lambda: pharmacy.ledger.first("received", about=message), PATIENCE)
    assert told is not None
    assert told["topic"] == "update-filed"


@in_world
@pytest.mark.parametrize("practice", [INBOX_PRACTICE, WEBHOOK_PRACTICE])
@pytest.mark.parametrize("reason", UPDATE_REASONS)
async def test_a_consultation_is_rejected(world: World, practice: str, reason: str) -> None:
    pharmacy = world.pharmacy
    body = pharmacy.consultation(practice=practice, family=f"XXTEST-REJECT-{reason.upper()}")
    message = (await pharmacy.submit(body)).json["messages"][0]["id"]
    found = await delivery(world, message, seconds=PATIENCE, outcome="rejected")
    assert (found["outcome"], found["outcome_reason"]) == ("rejected", reason)


@in_world
@pytest.mark.parametrize("practice", [INBOX_PRACTICE, WEBHOOK_PRACTICE])
@pytest.mark.parametrize("what", ["DIGEST", "ODS", "DELIVERY"])
async def test_a_lie_is_not_believed(world: World, practice: str, what: str) -> None:
    found = await outcome(world, f"XXTEST-LIE-{what}", practice)
    assert [one["matches"] for one in found["receipts"]] == [False]
    assert (found["received_at"], found["held_reason"]) == (None, "receipt")


@in_world
async def test_what_proves_nothing_is_not_received(world: World) -> None:
    found = await outcome(world, "XXTEST-BARE", WEBHOOK_PRACTICE)
    assert (found["received_at"], found["held_reason"]) == (None, "receipt")
    assert found["attempts"][0]["http_status"] == 200


@in_world
async def test_what_is_refused_for_good_is_dead(world: World) -> None:
    found = await outcome(world, "XXTEST-REFUSE", WEBHOOK_PRACTICE)
    assert (found["state"], found["attempts"][0]["http_status"]) == ("dead", 422)


@in_world
async def test_what_is_collected_only_is_not_received(world: World) -> None:
    pharmacy, practice = world.pharmacy, world.practice
    body = pharmacy.consultation(practice=INBOX_PRACTICE, family="XXTEST-SILENT")
    message = (await pharmacy.submit(body)).json["messages"][0]["id"]
    assert await until(lambda: practice.ledger.first("misbehaved", message=message), PATIENCE)
    found = await delivery(world, message, seconds=0)
    assert found["collected_at"]
    assert not found["received_at"]


@in_world
@pytest.mark.parametrize(
    ("family", "states"),
    [
        ("XXTEST-FILE", ["accepted"]),
        ("XXTEST-COMPLETE", ["accepted", "completed"]),
        ("XXTEST-REJECT-OUT-OF-AREA", ["rejected"]),
    ],
)
async def test_a_referral_is_decided_and_everybody_hears(
    world: World, family: str, states: list[str]
) -> None:
    optometrist = world.optometrist
    body = optometrist.referral(practice=WEBHOOK_PRACTICE, family=family)
    message = (await optometrist.submit(body)).json["messages"][0]["id"]

    def heard(partner: Partner) -> list[str] | None:
        told = [
            one["topic"]
            for one in partner.ledger.entries("received", about=message)
            if one["topic"] != "update-filed"
        ]
        return told if len(told) == len(states) else None

    # A webhook is called in order. An inbox lists in order, and this one is emptied by several
    # hands at once.
    assert await until(lambda: heard(world.webhook_practice), PATIENCE) == states
    assert sorted(await until(lambda: heard(optometrist), PATIENCE) or []) == states


@in_world
async def test_a_token_that_is_not_taken_is_renewed(world: World) -> None:
    client = world.pharmacy.client
    await client.token()
    client._token = "not a token"
    assert (await client.call("GET", "/messages")).status == 200
    assert client._token != "not a token"


@in_world
@pytest.mark.slow
async def test_what_fails_for_a_while_arrives_once(world: World) -> None:
    families = ("XXTEST-RECOVER", "XXTEST-RESET", "XXTEST-LATE")
    pharmacy, practice = world.pharmacy, world.webhook_practice
    sent = [
        await pharmacy.submit(pharmacy.consultation(practice=WEBHOOK_PRACTICE, family=family))
        for family in families
    ]
    for reply in sent:
        message = reply.json["messages"][0]["id"]
        found = await delivery(world, message, seconds=90, outcome="filed")
        assert found["outcome"] == "filed", found
        assert len(found["attempts"]) > 1
        assert len(practice.ledger.entries("received", message=message)) == 1


@in_world
@pytest.mark.slow
async def test_a_broker_that_was_away_is_asked_again(world: World) -> None:
    pharmacy = world.pharmacy
    await world.broker.kill()
    bodies = [pharmacy.consultation(practice=INBOX_PRACTICE) for _ in range(3)]
    posting = [asyncio.create_task(pharmacy.submit(body)) for body in bodies]
    await asyncio.sleep(0.3)
    await world.broker.start()
    replies = await asyncio.gather(*posting)
    assert all(reply.status == 202 and reply.tries > 1 for reply in replies)
    references = {body["reference"] for body in bodies}
    assert await until(lambda: world.compare(references).is_whole, PATIENCE)


@in_world
@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "code"),
    [
        ("XXTEST-FAIL", "answered-5xx"),
        ("XXTEST-REDIRECT", "redirected"),
        ("XXTEST-SILENT", "timed-out"),
        ("XXTEST-DRIP", "timed-out"),
    ],
)
async def test_what_never_works_is_tried_again(world: World, family: str, code: str) -> None:
    found = await outcome(world, family, WEBHOOK_PRACTICE, seconds=90)
    assert (found["attempts"][0]["code"], found["received_at"]) == (code, None)
    assert found["state"] == "due"
    assert not world.webhook_practice.ledger.first("followed")
