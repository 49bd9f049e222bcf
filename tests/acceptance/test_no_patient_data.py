"""Nothing of a patient stands where it is not sealed: not in the log, the database or the metrics.

Every text that a door takes gets a word of its own, that occurs nowhere else; then everything is
done with the messages that can be done; then the bytes of all that the broker wrote are searched.
"""

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio
from pydantic import ValidationError

from adapters.pharmacy import ADAPTER as PHARMACY
from adapters.pillars.optometry.door import REFERRALS as OPTOMETRY
from broker.ports import Adapter
from fhir_profiles import strict_json
from sandbox.acts import heard
from sandbox.client import Reply
from sandbox.process import free_port
from sandbox.senders import Sender
from sandbox.world import World

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

# What a directory or a code list holds is no secret, and some of it is sent as it stands.
PUBLIC = ("practice", "pharmacy", "optical_practice", "reference", "provider")
AS_THEY_STAND = ("nhs_number", "telephone", "postcode", "birth_date")


def marked(adapter: Adapter, body: Mapping[str, Any], words: list[str]) -> dict[str, Any]:
    """Return a body in which every text that may say anything says a word of its own."""
    made: dict[str, Any] = copy.deepcopy(dict(body))
    for holder, name, value, path in list(_texts(made)):
        if path.split(".")[0] in PUBLIC:
            continue
        word = f"Zq{uuid4().hex}"
        holder[name] = word
        try:
            raw = strict_json.loads(json.dumps(made).encode())
            adapter.accepts.model_validate(raw, context={"now": datetime.now(UTC)})
        except ValidationError:
            holder[name] = value
            if path.split(".")[-1] in AS_THEY_STAND:
                words.append(value)
        else:
            words.append(word)
    return made


def _texts(value: Any, path: str = "") -> Iterator[tuple[Any, Any, str, str]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in pairs:
        at = f"{path}.{name}".lstrip(".") if isinstance(value, dict) else path
        if isinstance(inner, str):
            yield value, name, inner, at
        elif isinstance(inner, dict | list):
            yield from _texts(inner, at)


class Traces:
    """A world in which everything was done, and every word that must be nowhere."""

    def __init__(self, world: World, metrics: str) -> None:
        self.world = world
        self.metrics = metrics
        self.words: list[str] = []

    def word(self) -> str:
        self.words.append(f"Zq{uuid4().hex}")
        return self.words[-1]

    async def do(self) -> None:
        pharmacy, optometrist = self.world.pharmacy, self.world.optometrist
        pairs: list[tuple[Sender, Adapter]] = [(pharmacy, PHARMACY), (optometrist, OPTOMETRY)]
        for sender, adapter in pairs:
            for name in adapter.examples:
                drawn = sender.draw_up(name)
                body = marked(adapter, drawn, self.words)
                sent = await sender.submit(body)
                assert sent.status == 202, sent.body
                await self._refused(sender, adapter, body)
        await self._moved()
        await self._corrected()
        await self._withheld()
        await self._asked()

    async def _refused(self, sender: Sender, adapter: Adapter, body: dict[str, Any]) -> None:
        """Post what is refused: every field under a wrong name, of a wrong type, cut off."""
        text = json.dumps(body).encode()
        renamed = {f"{name}x": value for name, value in body.items()} | {self.word(): 1}
        wrong = body | {"patient": self.word(), "clinician": [self.word()], "eye": self.word()}
        wrong |= {"urgency": self.word(), "service": self.word(), "outcome": self.word()}
        for one in (renamed, wrong, text[:-1], text[:-1] + b', "%s": NaN}' % self.word().encode()):
            assert (await sender.send("POST", adapter.door, one)).status in {400, 422}

    async def _moved(self) -> None:
        pharmacy, optometrist = self.world.pharmacy, self.world.optometrist
        sent = await pharmacy.submit(
            pharmacy.crisis(practice="G99001", family="XXTEST-UNDECIDED", plan=self.word())
        )
        update, task = sent.json["messages"]
        await self.world.received(sent)
        await pharmacy.telephoned(task["id"], "spoke-to-clinician", self.word())
        practice = self.world.practice
        row = practice.ledger.first("received", message=update["id"])
        assert row is not None
        said = {"outcome": "rejected", "reason": "content-query", "note": self.word()}
        path = f"/inbox/{row['delivery']}/acknowledgement"
        assert (await practice.send("PUT", path, said)).ok
        assert (await self._move(practice, task, "accept", note=self.word())).ok
        assert await heard(pharmacy, update["id"], "update-rejected")
        for move, extra in (
            ("reject", {"reason": "other", "advice": self.word()}),
            ("reinstate", {"note": self.word()}),
            ("complete", {"outcome": self.word(), "practice_actions": self.word()}),
        ):
            assert (await self._move(practice, task, move, **extra)).ok
        body = optometrist.referral("cataract", family="XXTEST-UNDECIDED")
        (message,) = (await optometrist.submit(body)).json["messages"]
        cancel = {"reason": "other", "note": self.word()}
        assert (await self._move(optometrist, message, "cancel", **cancel)).ok

    async def _move(self, who: Any, message: dict[str, Any], move: str, **said: str) -> Reply:
        read = await who.client.call("GET", message["referral"])
        reply: Reply = await who.send(
            "POST", f"{message['referral']}/{move}", said, if_match=read.etag
        )
        return reply

    async def _corrected(self) -> None:
        pharmacy = self.world.pharmacy
        body = marked(PHARMACY, pharmacy.consultation(), self.words)
        (message,) = (await pharmacy.submit(body)).json["messages"]
        await heard(pharmacy, message["id"], "update-filed")
        read = await pharmacy.client.call("GET", message["url"])
        moved = body | {"plan": self.word(), "practice": {"ods": "G99002", "name": "Hilltop"}}
        corrected = await pharmacy.correct(message["id"], moved, read.etag)
        assert corrected.status == 200
        newer = corrected.json["messages"][0]["id"]
        await heard(pharmacy, newer, "update-filed")
        assert (await pharmacy.withdraw(newer)).ok

    async def _withheld(self) -> None:
        pharmacy = self.world.pharmacy
        body = marked(PHARMACY, pharmacy.crisis(), self.words) | {"consent_to_inform_gp": False}
        assert (await pharmacy.submit(body)).json["messages"][0]["status"] == "withheld"

    async def _asked(self) -> None:
        """Ask with words where they do not belong: in a query, a path, a header."""
        pharmacy = self.world.pharmacy
        assert await pharmacy.get("/messages", reference=self.word()) is not None
        await pharmacy.get(f"/messages/{self.word()}")
        await pharmacy.get(f"/organisations/{self.word()}")
        await pharmacy.get("/inbox", after=self.word())
        await pharmacy.send("POST", PHARMACY.door, {}, key=self.word())
        headers = {
            "Authorization": f"Bearer {await pharmacy.client.token()}",
            "Idempotency-Key": self.word(),
            "traceparent": self.word(),
        }
        async with httpx2.AsyncClient(base_url=self.world.url, trust_env=False) as http:
            body = pharmacy.consultation()
            sent = await http.post(PHARMACY.door, json=body, headers=headers)
            assert sent.status_code == 202, sent.text
            # A method is whatever a caller writes.
            assert (await http.request(self.word(), PHARMACY.door)).status_code in {400, 405}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def traces(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Traces]:
    """A world in which everything was done that can be done."""
    admin = free_port()
    settings = {"BROKER_ADMIN_PORT": str(admin), "BROKER_LOG_LEVEL": "debug"}
    folder = tmp_path_factory.mktemp("traces")
    async with World(folder, settings=settings) as world:
        made = Traces(world, f"http://127.0.0.1:{admin}/metrics")
        await made.do()
        yield made


def found(words: list[str], content: bytes) -> list[str]:
    """Return the words that stand in these bytes, in the case that was sent or another."""
    lower = content.lower()
    return [word for word in dict.fromkeys(words) if word.lower().encode() in lower]


async def test_the_words_do_reach_whoever_they_are_for(traces: Traces) -> None:
    """Otherwise the other tests would find nothing because there is nothing."""
    practice = traces.world.practice
    rows = (await practice.get("/inbox", state="all", limit="200"))["deliveries"]
    bodies = [(await practice.client.call("GET", row["url"])).body for row in rows]
    reached = found(traces.words, b"".join(bodies))
    assert len(reached) > 100


async def test_no_word_of_a_patient_is_in_the_log(traces: Traces) -> None:
    log = traces.world.broker.log_path.read_bytes()
    assert log.count(b"\n") > 100
    assert found(traces.words, log) == []


async def test_no_word_of_a_patient_is_in_the_database_or_beside_it(traces: Traces) -> None:
    data = traces.world.folder / "data"
    files = [path for path in (data, traces.world.folder / "keys") for path in path.rglob("*")]
    names = {path.name for path in files}
    assert {"broker.db", "broker.db-wal"} <= names
    for path in files:
        if path.is_file():
            assert found(traces.words, path.read_bytes()) == [], path.name


async def test_no_word_of_a_patient_is_in_the_metrics(traces: Traces) -> None:
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.get(traces.metrics)
    assert answer.status_code == 200 and b"# HELP" in answer.content
    assert found(traces.words, answer.content) == []


async def test_no_word_of_a_patient_is_in_what_operators_are_shown(traces: Traces) -> None:
    commands = [("audit", "verify"), ("deliveries", "list", "--json"), ("overdue", "--json")]
    shown = await asyncio.gather(*(traces.world.cli(*command) for command in commands))
    for command, (_, said) in zip(commands, shown, strict=True):
        assert said and found(traces.words, said.encode()) == [], command
