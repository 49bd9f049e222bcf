"""A public FHIR client, unchanged, on a running broker: creates, reads, searches, pages."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from fhirpy import AsyncFHIRClient
from fhirpy.base.exceptions import OperationOutcome, ResourceNotFound

from fhir_profiles import codes
from sandbox.world import INBOX_PRACTICE, PHARMACY, World, caller

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]
SENT = 5


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A broker and a pharmacy that has sent some consultations through it."""
    folder: Path = tmp_path_factory.mktemp("fhirpy")
    async with World(folder, starts_partners=False) as made:
        for _ in range(SENT):
            sent = await made.pharmacy.submit(made.pharmacy.consultation())
            assert sent.status == 202, sent.body
        yield made


async def client(world: World, ods: str) -> AsyncFHIRClient:
    calling = caller(world, ods)
    try:
        token = await calling.token()
    finally:
        await calling.aclose()
    return AsyncFHIRClient(f"{world.url}/FHIR/R4", authorization=f"Bearer {token}")


async def test_it_searches_and_pages_through_all_that_was_sent(world: World) -> None:
    fhir = await client(world, PHARMACY)
    found = fhir.resources("Communication")
    assert await found.count() == SENT
    paged = await found.sort("-sent").limit(2).fetch_all()
    assert len({one.id for one in paged}) == SENT
    assert {one.id for one in await found.fetch()} == {one.id for one in paged}
    newest = await found.sort("-sent").first()
    assert newest is not None and newest.id == paged[0].id
    assert await found.search(sent__ge="2020", status="completed").count() == SENT
    assert await found.search(sent__lt="2020").count() == 0
    assert len(await (await client(world, INBOX_PRACTICE)).resources("Communication").fetch()) > 0


async def test_it_reads_what_it_found_and_whom_it_speaks_of(world: World) -> None:
    fhir = await client(world, PHARMACY)
    (one, *_) = await fhir.resources("Communication").fetch()
    read = await fhir.get("Communication", one.id)
    assert read == one.serialize()
    included = (
        await fhir.resources("Communication")
        .search(_id=one.id)
        .include("Communication", "patient")
        .fetch_raw()
    )
    patient = next(e.resource for e in included.entry if e.resource.resourceType == "Patient")
    assert (await fhir.get("Patient", patient.id)).id == patient.id
    number = next(i.value for i in patient.identifier if i.system == codes.NHS_NUMBER)
    search = fhir.resources("Communication").search(
        **{"patient:identifier": f"{codes.NHS_NUMBER}|{number}"}
    )
    assert one.id in {found.id for found in await search.fetch()}


async def test_it_creates_what_its_receiver_then_finds(world: World) -> None:
    fhir = await client(world, PHARMACY)
    reference = {"system": "https://client.example/id", "value": "C-1"}
    made = fhir.resource(
        "Communication",
        status="completed",
        identifier=[reference],
        subject={"reference": "#patient"},
        contained=[
            {
                "resourceType": "Patient",
                "id": "patient",
                "identifier": [{"system": codes.NHS_NUMBER, "value": "9990000018"}],
            }
        ],
        recipient=[{"identifier": {"system": codes.ODS, "value": INBOX_PRACTICE}}],
        payload=[{"contentString": "All is well."}],
    )
    await made.save()
    assert made.id and made["meta"]["versionId"] == "1"
    receiver = (await client(world, INBOX_PRACTICE)).resources("Communication")
    wanted = f"{reference['system']}|{reference['value']}"
    (found,) = await receiver.search(identifier=wanted).fetch()
    assert (found.id, found["payload"]) == (made.id, made["payload"])
    await found.refresh()


async def test_it_is_told_what_is_wrong_in_words_that_it_understands(world: World) -> None:
    fhir = await client(world, PHARMACY)
    with pytest.raises(ResourceNotFound):
        await fhir.get("Communication", "00000000-0000-7000-8000-000000000000")
    with pytest.raises(OperationOutcome, match="It is not a date or time"):
        await fhir.resources("Communication").search(sent="yesterday").fetch()
    definition = await fhir.resources("StructureDefinition").search(name="Notice").first()
    assert definition is not None and definition.id.startswith("notice")
