"""Two brokers over HTTP: what is posted at one in a pillar's own words is triaged at the other."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import uvicorn

from broker.access import Scope
from broker.directory_file import parse
from broker.store import clients, directory
from broker.store.tx import Tx
from broker.vault import FileKeyRing
from tests.acceptance.place import Place, eventually, referral, taken

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPTICIAN = "{organisation: TPX01, channel: inbox, takes: [update, notice]}"
HOSPITAL = (
    "{organisation: RXX01, service: RXX01-SPA, channel: inbox, takes: [referral, update, notice]}"
)


class Served(Place):
    """A broker that listens on loopback."""

    def __init__(self, folder: Path) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        super().__init__(folder, f"http://127.0.0.1:{self._listening.getsockname()[1]}")
        config = uvicorn.Config(
            self.app, lifespan="off", ws="none", log_config=None, access_log=False
        )
        self._server = uvicorn.Server(config)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await super().start()
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._listening]))
        await eventually(lambda: asyncio.sleep(0, self._server.started))

    async def stop(self) -> None:
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
        await super().stop()

    async def meets(self, other: "Served", endpoint: str, name: str, *ods: str) -> None:
        """Reach a place by way of the other broker, which knows this one as a client that may act
        for these organisations."""
        token_url = f"token_url: '{other.settings.token_url}', client: {name}"
        speaks = f"channel: bars, url: '{other.base}/FHIR/R4', {token_url}"
        assert endpoint in self.directory_text
        self.directory_text = self.directory_text.replace(
            endpoint, endpoint.replace("channel: inbox", speaks).replace("update, ", "")
        )
        key = FileKeyRing.load(self.settings.ring_path).token_keys[-1]

        def register(tx: Tx) -> None:
            clients.put(tx, name, "Another broker", ["ES384"], [Scope.BARS])
            clients.put_key(tx, name, key.thumbprint(), dict(key.as_dict(private=False)))
            for one in ods:
                clients.put_grant(tx, name, one)

        await other.broker.store.write(register)
        await self.broker.store.write(lambda tx: directory.replace(tx, parse(self.directory_text)))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def brokers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Served, Served]]:
    """The opticians' broker, and the hospital's."""
    opticians, hospitals = (Served(tmp_path_factory.mktemp(name)) for name in ("one", "other"))
    for each in (opticians, hospitals):
        await each.start()
    await opticians.meets(hospitals, HOSPITAL, "opticians", "TPX01")
    await hospitals.meets(opticians, OPTICIAN, "hospitals", "RXX01")
    yield opticians, hospitals
    for each in (opticians, hospitals):
        await each.stop()


async def test_a_referral_goes_from_broker_to_broker_and_every_decision_comes_back(
    brokers: tuple[Served, Served],
) -> None:
    here, there = brokers
    optometrist, hospital = here.of("TPX01"), there.of("RXX01")
    (sent,) = (await optometrist.submit(referral()))["messages"]
    word = await optometrist.heard(sent["id"], "receiver-reference")

    async def arrived() -> Any:
        return next((row for row in await hospital.inbox() if row["kind"] == "referral"), None)

    row = await eventually(arrived)
    taken(await hospital.receipt(row), 200)
    got = await hospital.collect(row)
    assert got.nhs_number == "9990000018" or got.family
    tracked = await hospital.tracked(row["message"])
    digits = row["message"][-12:].upper()
    assert f"{digits[:4]}-{digits[4:8]}-{digits[8:]}" in word.text
    taken(await hospital.move(tracked["referral"], "accept", {"note": "Clinic on Friday."}), 200)
    accepted = await optometrist.heard(sent["id"], "accepted")
    assert "Clinic on Friday." in accepted.advice
    taken(await hospital.move(tracked["referral"], "complete", {"outcome": "No glaucoma."}), 200)
    completed = await optometrist.heard(sent["id"], "completed")
    assert "No glaucoma." in completed.advice
    standing = taken(await optometrist.get(sent["referral"]), 200)
    assert standing["state"] == "completed"


async def test_what_is_cancelled_here_is_cancelled_there(
    brokers: tuple[Served, Served],
) -> None:
    here, there = brokers
    optometrist, hospital = here.of("TPX01"), there.of("RXX01")
    (sent,) = (await optometrist.submit(referral("raised-pressure")))["messages"]
    await optometrist.heard(sent["id"], "receiver-reference")
    (row, *_) = [one for one in reversed(await hospital.inbox()) if one["kind"] == "referral"]
    taken(await hospital.receipt(row), 200)
    why = {"reason": "patient-request", "note": "Seen privately."}
    taken(await optometrist.move(sent["referral"], "cancel", why), 200)
    heard = await hospital.heard(row["message"], "cancelled")
    assert "Seen privately." in f"{heard.text} {heard.advice}"
