"""The published referral to a pharmacy, from a BaRS sender to a BaRS receiver and back.

Corrected only in what the sources themselves call faulty: its NHS number fails Modulus 11.
"""

import json
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from broker import profile_packages
from broker.directory_file import parse
from broker.store import clients, directory
from broker.store.tx import Tx
from sandbox import bars
from sandbox.bars_receiver import BarsReceiver
from tests import published
from tests.acceptance.place import Place, eventually
from tests.acceptance.test_bars import answered, resources, send
from tests.acceptance.test_bars_refusals import outcome

pytestmark = [pytest.mark.asyncio(loop_scope="module"), published.needed]

EXAMPLE = (
    "bars/bars-pkg-1.37.0-examples-json/REFREQ03_-_Referral_Service_Request_New_Full_-_"
    "Primary_Care_to_Community_Pharmacy_-_Minor_Illness.json"
)
OFFICIAL = ("ukcore-pkg-0.23.0-json-snapshots", "bars-pkg-1.37.0-json", "nhsengland")
WRONG, RIGHT = "3478526985", "9990000018"
DIRECTORY = """
icbs:
  - {{code: QXX, name: Northfield Integrated Care Board}}
organisations:
  - {{ods: RND, name: Sender, pillar: general-practice, icb: QXX, telephone: 0113 496 0001}}
  - {{ods: RYE, name: Receiver, pillar: pharmacy, icb: QXX, telephone: 0113 496 0002}}
services:
  - code: RYE-PHARMACY
    organisation: RYE
    name: Pharmacy First
    icb: QXX
    postcode_areas: [LS]
    offers: [{{receiver_type: community-pharmacy, subspecialties: [all], rank: 1}}]
    opening_hours: [{{days: [monday], opens: 08:00, closes: 18:00}}]
    telephone: 0113 496 0003
    dos: 111111111
  - code: RND-PRACTICE
    organisation: RND
    name: Practice
    icb: QXX
    postcode_areas: [LS]
    offers: [{{receiver_type: practice, subspecialties: [all], rank: 1}}]
    opening_hours: [{{days: [monday], opens: 08:00, closes: 18:00}}]
    telephone: 0113 496 0004
    dos: 2222222222
endpoints:
  - organisation: RND
    service: RND-PRACTICE
    channel: bars
    url: {sender}
    takes: [notice]
  - organisation: RYE
    service: RYE-PHARMACY
    channel: bars
    url: {receiver}
    takes: [referral, notice]
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ends() -> AsyncIterator[tuple[BarsReceiver, BarsReceiver]]:
    """The sender's own BaRS server, and the receiver's."""
    made = BarsReceiver(), BarsReceiver(reference="PF-111")
    for each in made:
        await each.start()
    yield made
    for each in made:
        await each.stop()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that nobody judges afterwards: the published entries are carried on as they are, and
    the reference validator refuses their language, which is UK Core's and not BCP 47's."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(
    folder: Path, ends: tuple[BarsReceiver, BarsReceiver], backing: Mapping[str, Any]
) -> AsyncIterator[Place]:
    """A broker with UK Core and BaRS loaded, and these two in its directory."""
    made = Place(folder, backing=backing)
    for name in OFFICIAL:
        definitions = profile_packages.definitions(published.DATA / "ukcore" / name)
        package = profile_packages.made_of(name, "1", definitions)
        profile_packages.save(made.settings.data_dir, package)
    await made.start()
    text = DIRECTORY.format(sender=ends[0].url, receiver=ends[1].url)

    def write(tx: Tx) -> None:
        directory.replace(tx, parse(text))
        for ods in ("RND", "RYE"):
            clients.put_grant(tx, "acceptance", ods)

    await made.broker.store.write(write)
    yield made
    await made.stop()


def example() -> bytes:
    return (published.DATA / EXAMPLE).read_bytes()


async def test_as_published_it_is_refused_for_the_one_fault_that_it_has(place: Place) -> None:
    answer = await send(place.of("RND"), json.loads(example()), "111111111")
    found = outcome(answer, 400, "REC_BAD_REQUEST", "value")
    assert found["expression"] == ["Bundle.entry[6].resource.identifier[0].value"]
    assert len(answer.json()["issue"]) == 1


async def test_it_travels_from_a_bars_sender_to_a_bars_receiver_and_back(
    place: Place, ends: tuple[BarsReceiver, BarsReceiver]
) -> None:
    theirs, pharmacy = ends
    body = example().replace(WRONG.encode(), RIGHT.encode())
    message = json.loads(body)
    sender, ids = place.of("RND"), bars.headers("111111111")
    given = await sender.call("POST", "/FHIR/R4/$process-message", content=body, headers=ids)
    said = answered(given, message)
    assert resources(said, "Encounter")[1]["identifier"][0]["value"] == "PF-111"

    (call,) = pharmacy.messages
    assert call.body == body
    assert call.headers["x-correlation-id"] == ids["X-Correlation-Id"]

    done = {"text": "Advice given; no medicine needed."}
    for encounter, reason in (("in-progress", None), ("finished", done)):
        told = bars.response(message, encounter=encounter, reason=reason)
        answer = await send(place.of("RYE"), told, "2222222222", bars.DOS)
        answered(answer, told)

    async def heard() -> list[str]:
        # Of 2023, so every deadline of it has passed: of that they are told too, as `planned`.
        bodies = [json.loads(one.body) for one in theirs.messages]
        found = [resources(one, "Encounter")[0]["status"] for one in bodies]
        moved = [status for status in found if status != "planned"]
        return moved if len(moved) == 2 else []

    assert await eventually(heard) == ["in-progress", "finished"]
    last = json.loads(theirs.messages[-1].body)
    # At the address that its own header gave for answers.
    target = theirs.messages[-1].decoded("nhsd-target-identifier")
    assert target == {"system": bars.DOS, "value": "2222222222"}
    (header,) = resources(last, "MessageHeader")
    assert header["response"]["identifier"] == message["id"]
    assert theirs.messages[-1].headers["x-correlation-id"] == ids["X-Correlation-Id"]
