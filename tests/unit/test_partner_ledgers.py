"""What a partner writes down of what it does: begun before, ended after, and what a judge needs."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from sandbox import arrival, marks
from sandbox.client import Identity, NeverAnswered, Reply
from sandbox.ledger import Entry
from sandbox.senders import OptometrySystem, PharmacySystem, Sender


def _made(kind: type[Sender], folder: Path) -> Any:
    identity = Identity("client", "FPH01", "A partner", folder / "key.pem", "ES384", "kid", ())
    return kind(identity, "http://127.0.0.1:9", ledger=folder / "ledger.jsonl")


@pytest.fixture
async def pharmacy(tmp_path: Path) -> Any:
    made = _made(PharmacySystem, tmp_path)
    yield made
    await made.close()


def _whats(pharmacy: PharmacySystem) -> list[str]:
    return [entry["what"] for entry in pharmacy.ledger.entries(does="post")]


def _answering(pharmacy: Any, status: int, body: bytes = b"") -> None:
    async def call(*_: Any, **__: Any) -> Reply:
        assert _whats(pharmacy)[-1] == "invoke"  # it is on disk before anything is sent
        return Reply(status, body, {})

    pharmacy.client.call = call


@pytest.mark.parametrize(
    ("status", "how"),
    [(202, "ok"), (200, "ok"), (400, "fail"), (409, "fail"), (425, "unknown"), (503, "unknown")],
)
async def test_how_a_post_ended_is_said_in_one_word(pharmacy: Any, status: int, how: str) -> None:
    _answering(pharmacy, status, b'{"messages": [{"id": "m-1"}]}')
    body = pharmacy.consultation(practice="G99001")
    await pharmacy.submit(body, key="k")
    begun, ended = pharmacy.ledger.entries(does="post")
    assert (begun["what"], ended["what"], ended["status"]) == ("invoke", how, status)
    assert begun["op"] == ended["op"]
    assert (begun["key"], begun["reference"], begun["to"]) == ("k", body["reference"], ["G99001"])
    assert len(begun["digest"]) == 64 and len(begun["nonces"]) == 1
    assert ended["messages"] == (["m-1"] if how == "ok" else [])
    assert ended["mono"] >= begun["mono"]


async def test_what_was_never_answered_is_unknown(pharmacy: Any) -> None:
    async def call(*_: Any, **__: Any) -> Reply:
        raise NeverAnswered("no answer")

    pharmacy.client.call = call
    with pytest.raises(NeverAnswered):
        await pharmacy.submit(pharmacy.consultation())
    assert _whats(pharmacy) == ["invoke", "unknown"]


async def test_of_what_was_cut_off_only_the_beginning_is_known(pharmacy: Any) -> None:
    async def call(*_: Any, **__: Any) -> Reply:
        raise asyncio.CancelledError

    pharmacy.client.call = call
    with pytest.raises(asyncio.CancelledError):
        await pharmacy.submit(pharmacy.consultation())
    assert _whats(pharmacy) == ["invoke"]


async def test_a_refusal_of_the_patient_is_in_the_senders_own_ledger(pharmacy: Any) -> None:
    _answering(pharmacy, 202)
    await pharmacy.submit(pharmacy.consultation(consent_to_inform_gp=False))
    await pharmacy.submit(pharmacy.consultation())
    assert [entry.get("refused") for entry in pharmacy.ledger.entries("invoke")] == [True, None]


async def test_each_body_has_a_nonce_of_its_own_in_a_text(tmp_path: Path) -> None:
    for kind, text in ((PharmacySystem, "clinical_summary"), (OptometrySystem, "reason")):
        sender = _made(kind, tmp_path)
        bodies = [sender.draw_up(next(iter(sender._examples))) for _ in range(2)]
        found = [marks.nonces(json.dumps(body).encode()) for body in bodies]
        assert [len(one) for one in found] == [1, 1] and found[0] != found[1]
        assert all(one in body[text] for body, (one,) in zip(bodies, found, strict=True))
        await sender.close()


def _delivered(patient: Entry) -> bytes:
    header = {"eventCoding": {"code": "notice"}, "focus": [{"reference": "urn:uuid:f"}]}
    focus = {"resourceType": "Communication", "note": [{"text": f"nonce-{'a' * 32} and more"}]}
    entries = {"urn:uuid:h": {"resourceType": "MessageHeader", **header}, "urn:uuid:f": focus}
    entries["urn:uuid:p"] = {"resourceType": "Patient", **patient}
    return json.dumps(
        {"entry": [{"fullUrl": url, "resource": one} for url, one in entries.items()]}
    ).encode()


def test_a_receiver_writes_down_the_same_patient_and_the_nonces_it_holds() -> None:
    system = "https://fhir.nhs.uk/Id/nhs-number"
    patient = {
        "identifier": [{"system": "urn:other", "value": "1"}, {"system": system, "value": "99"}],
        "name": [{"family": "Okafor"}],
        "birthDate": "1984-02-29",
    }
    facts = arrival.read("d", "notice", "inbox", _delivered(patient)).facts()
    assert facts["patient"] == marks.patient("99", "1984-02-29", " OKAFOR")
    assert facts["nonces"] == [f"nonce-{'a' * 32}"]
    other = arrival.read("d", "notice", "inbox", _delivered({**patient, "birthDate": "1984-03-01"}))
    assert other.facts()["patient"] != facts["patient"]
