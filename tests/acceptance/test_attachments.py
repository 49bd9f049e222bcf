"""Images and documents: uploaded, named by a message, fetched by whom that is addressed to."""

import hashlib
import os
import struct
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio
from sqlalchemy import delete, update

from broker.attachments import uploading
from broker.attachments.copying import NotWhole
from broker.attachments.enclosing import Enclosing
from broker.attachments.folder import Folder
from broker.attachments.leftovers import Leftovers
from broker.attachments.sealing import CHUNK, FORMAT
from broker.backup import back_up, restore
from broker.events import uuid7
from broker.main import open_broker
from broker.store import attachments, clients, restorations
from broker.store import tables as t
from fhir_profiles import codes
from tests.acceptance.place import Body, Caller, Place, kinds, problem, referral, taken
from tests.acceptance.test_bars_composed import HOSPITAL, body_of, speaking_bars
from tests.acceptance.test_pillar_referrals import example
from tests.acceptance.test_pillar_updates import example as update_example
from tests.acceptance.test_redirection import SENT_ON, plain, sent_on
from tests.acceptance.test_referral_doors import received

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOOR = "/attachments"


def png(text: str = "", size: int = 0) -> bytes:
    """Return an image of one point, with this text or as much noise in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    said = chunk(b"tEXt", b"Comment\x00" + (text or str(uuid4())).encode() + bytes(size))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + said
        + chunk(b"IDAT", zlib.compress(b"\0\0"))
        + chunk(b"IEND", b"")
    )


async def upload(caller: Caller, body: Any, key: str | None = None) -> httpx2.Response:
    return await caller.call(
        "POST", DOOR, content=body, headers={"idempotency-key": key or str(uuid4())}
    )


async def uploaded(caller: Caller, body: bytes | None = None) -> Body:
    return taken(await upload(caller, body or png()), 201)


def naming(*found: Body, **said: Any) -> list[Body]:
    return [
        {"id": one["id"], "sha256": one["sha256"], "title": "OCT, right eye"} | said
        for one in found
    ]


def files_in(data_dir: Path) -> set[str]:
    folder = Folder.within(data_dir).path
    return {path.name for path in folder.rglob("*") if path.is_file()}


def files(place: Place) -> set[str]:
    """Return the names of all that is in the folder of attachments."""
    return files_in(place.settings.data_dir)


def file_of(place: Place, attachment: Body) -> Path:
    return Folder.within(place.settings.data_dir).file(attachment["id"])


async def expired(place: Place, attachment: Body) -> None:
    """Let the time pass in which a message must name it."""
    past = datetime.now(UTC) - timedelta(minutes=1)
    change = update(t.attachment).where(t.attachment.c.id == attachment["id"])
    await place.broker.store.write(lambda tx: tx.execute(change.values(expires_at=past)))


def documents(message: Body) -> list[Body]:
    held = (one["resource"] for one in message["entry"])
    return [one for one in held if one["resourceType"] == "DocumentReference"]


# -- from upload to download ---------------------------------------------------------------------


async def test_who_is_addressed_fetches_what_was_uploaded_as_a_download(
    place: Place, optometrist: Caller, hospital: Caller, practice: Caller
) -> None:
    image = png(size=200_000)
    known = await uploaded(optometrist, image)
    assert known["sha256"] == hashlib.sha256(image).hexdigest()
    assert (known["content_type"], known["size"]) == ("image/png", len(image))
    body = referral(
        practice="G99001", attachments=naming(known, dated="2026-11-02", shows="Fluid at the fovea")
    )
    (message,) = (await optometrist.submit(body))["messages"]
    row = await hospital.take(message["id"])
    got = (await hospital.get(f"/inbox/{row['id']}")).json()
    (document,) = documents(got)
    (content,) = document["content"]
    assert document["description"] == "Fluid at the fovea"
    assert content["attachment"] == {
        "extension": [{"url": codes.EXT_SHA256, "valueString": known["sha256"]}],
        "contentType": "image/png",
        "url": f"{place.base}/attachments/{known['id']}",
        "size": len(image),
        "title": "OCT, right eye",
        "creation": "2026-11-02",
    }
    for caller in (hospital, practice):
        await caller.arrived(message["id"])
        answer = await caller.get(f"{DOOR}/{known['id']}")
        assert answer.status_code == 200, answer.text
        assert answer.content == image
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["content-disposition"].startswith("attachment;")
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_nobody_else_fetches_it(place: Place, optometrist: Caller, hospital: Caller) -> None:
    known = await uploaded(optometrist)
    path = f"{DOOR}/{known['id']}"
    problem(await hospital.get(path), 404, "not-found")
    (message,) = (await optometrist.submit(referral(attachments=naming(known))))["messages"]
    await hospital.arrived(message["id"])
    assert (await hospital.get(path)).status_code == 200
    problem(await place.of("RYY01").get(path), 404, "not-found")
    said = problem(await optometrist.get(path), 403, "forbidden")
    assert "fetch this attachment" in said["detail"]


@pytest.mark.parametrize("why", ["human", "consent", "label"])
async def test_what_is_held_back_is_fetched_by_nobody(
    place: Place, optometrist: Caller, hospital: Caller, why: str
) -> None:
    known = await uploaded(optometrist)
    (message,) = (await optometrist.submit(referral(attachments=naming(known))))["messages"]
    await hospital.arrived(message["id"])
    held = update(t.delivery).where(t.delivery.c.message_id == message["id"])
    for state in (why, "receipt"):
        change = held.values(state="held", held_reason=state)
        await place.broker.store.write(lambda tx, change=change: tx.execute(change))
        status = (await hospital.get(f"{DOOR}/{known['id']}")).status_code
        assert status == (200 if state == "receipt" else 404)


async def test_a_file_of_the_largest_size_comes_back_byte_for_byte(
    optometrist: Caller, hospital: Caller
) -> None:
    body = png()
    image = body + bytes(uploading.LIMIT - len(body))

    async def parts() -> AsyncIterator[bytes]:
        for at in range(0, len(image), 300_000):
            yield image[at : at + 300_000]

    known = taken(await upload(optometrist, parts()), 201)
    (message,) = (await optometrist.submit(referral(attachments=naming(known))))["messages"]
    await hospital.arrived(message["id"])
    assert (await hospital.get(f"{DOOR}/{known['id']}")).content == image


async def test_what_is_stored_tells_nothing_of_what_was_uploaded(
    place: Place, optometrist: Caller
) -> None:
    secret = "Anna Example, born 1961"
    known = await uploaded(optometrist, png(secret, size=100_000))
    assert secret.encode() not in file_of(place, known).read_bytes()
    assert bytes(1000) not in file_of(place, known).read_bytes()
    (row,) = await place.rows("SELECT * FROM attachment WHERE id = :id", id=known["id"])
    assert "Anna" not in str(row)


async def test_that_it_was_uploaded_and_fetched_stands_in_the_audit(
    place: Place, optometrist: Caller, hospital: Caller
) -> None:
    known = await uploaded(optometrist)
    (message,) = (await optometrist.submit(referral(attachments=naming(known))))["messages"]
    await hospital.arrived(message["id"])
    await hospital.get(f"{DOOR}/{known['id']}")
    found = await place.rows(
        "SELECT action, organisation FROM audit WHERE object_id = :id ORDER BY seq", id=known["id"]
    )
    assert [tuple(one) for one in found] == [
        ("attachment.uploaded", "TPX01"),
        ("attachment.fetched", "RXX01"),
    ]


async def test_a_radiograph_leads_to_its_image(place: Place) -> None:
    dentist = place.of("V99001")
    known = await uploaded(dentist)
    taken_on = {"kind": "panoramic", "taken_on": "2026-11-02", "attachment": known["id"]}
    body = example("dentistry", "oral-surgery-level-2", radiographs=[taken_on], provider=None)
    answer = await dentist.post("/dentistry/referrals", body)
    said = problem(answer, 422, "invalid")["problems"]
    assert [(one["field"], one["code"]) for one in said] == [
        ("radiographs[0].attachment", "unknown-attachment")
    ]
    answer = await dentist.post("/dentistry/referrals", {**body, "attachments": naming(known)})
    (message,) = taken(answer)["messages"]
    receiver = place.of(message["destinations"][0]["organisation"])
    row = await receiver.arrived(message["id"])
    got = (await receiver.get(f"/inbox/{row['id']}")).json()
    (document,) = documents(got)
    (shown,) = [one["resource"] for one in got["entry"] if "derivedFrom" in one["resource"]]
    assert shown["derivedFrom"] == [{"reference": f"urn:uuid:{document['id']}"}]


# -- several messages, several versions ----------------------------------------------------------


async def test_every_message_of_a_body_carries_it(place: Place, practice: Caller) -> None:
    nurse = place.of("RYC01")
    known = await uploaded(nurse)
    wound = update_example("community", "wound-progress", attachments=naming(known))
    wound["action"] = {"what": "Please look at it.", "urgency": "routine"}
    answer = taken(await nurse.post("/community/updates", wound))
    assert kinds(answer) == ["update", "referral"]
    for message in answer["messages"]:
        row = await practice.arrived(message["id"])
        assert len(documents((await practice.get(f"/inbox/{row['id']}")).json())) == 1
    assert (await practice.get(f"{DOOR}/{known['id']}")).status_code == 200
    held = "SELECT key_id FROM attachment_key WHERE attachment_id = :id"
    keys = {str(one.key_id) for one in await place.rows(held, id=known["id"])}
    assert keys == {one["id"] for one in answer["messages"]}


async def test_a_correction_names_it_again_or_another(
    optometrist: Caller, hospital: Caller
) -> None:
    first, second = await uploaded(optometrist), await uploaded(optometrist)
    body = referral(attachments=naming(first))
    (message,) = (await optometrist.submit(body))["messages"]
    await hospital.take(message["id"])
    body["attachments"] = naming(first, second)
    etag = await optometrist.etag(f"/messages/{message['id']}")
    answer = await optometrist.put(f"/optometry/referrals/{message['id']}", body, if_match=etag)
    (again,) = taken(answer, 200)["messages"]
    row = await hospital.arrived(again["id"])
    assert len(documents((await hospital.get(f"/inbox/{row['id']}")).json())) == 2
    for one in (first, second):
        assert (await hospital.get(f"{DOOR}/{one['id']}")).status_code == 200


async def test_a_redirected_referral_takes_it_along_and_the_old_place_keeps_it(
    place: Place, optometrist: Caller, hospital: Caller
) -> None:
    other, known = place.of("RYY01"), await uploaded(optometrist)
    message = await received(optometrist, hospital, plain(attachments=naming(known)))
    problem(await other.get(f"{DOOR}/{known['id']}"), 404, "not-found")
    answer = await sent_on(hospital, message["referral"])
    row = await other.take(answer["message"])
    (document,) = documents((await other.get(f"/inbox/{row['id']}")).json())
    url = document["content"][0]["attachment"]["url"]
    for caller in (other, hospital):
        assert (await caller.get(url.removeprefix(place.base))).status_code == 200


async def test_whose_message_was_erased_fetches_it_no_more(
    place: Place, optometrist: Caller, hospital: Caller
) -> None:
    known = await uploaded(optometrist)
    message = await received(optometrist, hospital, plain(attachments=naming(known)))
    answer = await sent_on(hospital, message["referral"])
    other = place.of("RYY01")
    await other.take(answer["message"])
    erased = delete(t.message_key).where(t.message_key.c.id == message["id"])
    await place.broker.store.write(lambda tx: tx.execute(erased))
    problem(await hospital.get(f"{DOOR}/{known['id']}"), 410, "gone")
    assert (await other.get(f"{DOOR}/{known['id']}")).status_code == 200


# -- what a body may name ------------------------------------------------------------------------


async def refused(caller: Caller, attachments: list[Body]) -> list[tuple[str, str]]:
    """Return (field, code) of what is wrong with a referral that names these."""
    answer = await caller.post("/optometry/referrals", referral(attachments=attachments))
    return [(one["field"], one["code"]) for one in problem(answer, 422, "invalid")["problems"]]


async def test_a_body_is_taken_only_when_all_are_there_and_match(
    place: Place, optometrist: Caller
) -> None:
    mine, others = await uploaded(optometrist), await uploaded(place.of("TPX02"))
    late, lost = await uploaded(optometrist), await uploaded(optometrist)
    await expired(place, late)
    file_of(place, lost).unlink()
    nowhere = {"id": str(uuid4()), "sha256": mine["sha256"]}
    wrong = {**mine, "sha256": others["sha256"]}
    assert await refused(optometrist, naming(mine, nowhere)) == [
        ("attachments[1].id", "unknown-attachment")
    ]
    assert await refused(optometrist, naming(others, wrong, late)) == [
        ("attachments[0].id", "unknown-attachment"),
        ("attachments[1].sha256", "mismatch"),
        ("attachments[2].id", "expired"),
    ]
    assert await refused(optometrist, naming(mine, lost)) == [("attachments[1].id", "not-there")]
    assert await refused(optometrist, naming(mine, mine)) == [("attachments[1].id", "repeated")]
    assert await refused(optometrist, naming({"id": "scan.png", "sha256": "abc"})) == [
        ("attachments[0].id", "not-an-id"),
        ("attachments[0].sha256", "not-a-digest"),
    ]
    claimed = "SELECT claimed_at FROM attachment WHERE id = :id"
    assert [one.claimed_at for one in await place.rows(claimed, id=mine["id"])] == [None]


async def test_one_that_lapses_between_looking_and_writing_is_refused(
    place: Place, optometrist: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = await uploaded(optometrist)
    look_up = Enclosing.look_up

    async def and_lapse(self: Enclosing, *given: Any) -> Any:
        found = await look_up(self, *given)
        await expired(place, known)
        return found

    monkeypatch.setattr(Enclosing, "look_up", and_lapse)
    assert await refused(optometrist, naming(known)) == [("attachments[0].id", "expired")]


# -- what may be uploaded ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param(b"MZ\x90\x00 a program", "not-taken", id="program"),
        pytest.param(b"<html><script>", "not-taken", id="page"),
        pytest.param(b"", "missing", id="nothing"),
        pytest.param(b"\xff\xd8\xff\xe0 JFIF %PDF-1.4", "not-taken", id="two in one"),
        pytest.param(
            b"%PDF-1.4\n1 0 obj\n<</OpenAction<</S/JavaScript/JS(x)>>>>\nendobj\n",
            "script-inside",
            id="script",
        ),
    ],
)
async def test_what_is_not_taken_leaves_nothing(
    place: Place, optometrist: Caller, body: bytes, code: str
) -> None:
    before = files(place)
    said = problem(await upload(optometrist, body), 422, "invalid")["problems"]
    assert [(one["field"], one["code"]) for one in said] == [("body", code)]
    assert files(place) == before


async def test_its_size_is_what_was_read_whatever_its_header_says(
    place: Place, optometrist: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploading, "LIMIT", 100_000)
    before = files(place)

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield png(size=50_000)

    problem(await upload(optometrist, parts()), 413, "too-large")
    assert files(place) == before
    answer = await optometrist.call(
        "POST",
        DOOR,
        content=b"",
        headers={"idempotency-key": "k", "content-length": str(30_000_000)},
    )
    problem(answer, 413, "too-large")


async def test_a_form_or_packed_body_is_told_what_to_send(optometrist: Caller) -> None:
    for headers in (
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-encoding": "gzip"},
    ):
        answer = await optometrist.call(
            "POST", DOOR, content=png(), headers={"idempotency-key": "k", **headers}
        )
        problem(answer, 415, "unsupported-media-type")


async def test_the_same_file_under_the_same_key_is_the_same_upload(
    place: Place, optometrist: Caller
) -> None:
    image, key = png(), str(uuid4())
    known = taken(await upload(optometrist, image, key), 201)
    before = files(place)
    assert taken(await upload(optometrist, image, key), 201) == known
    problem(await upload(optometrist, png(), key), 409, "conflict")
    assert files(place) == before
    await optometrist.submit(referral(attachments=naming(known)))
    assert taken(await upload(optometrist, image, key), 201) == known
    answer = await optometrist.call("POST", DOOR, content=png())
    problem(answer, 400, "key-required")


async def test_an_upload_that_breaks_off_leaves_nothing(place: Place, optometrist: Caller) -> None:
    before, parts = files(place), [png(size=3_000_000), b"more"]
    seen: list[set[str]] = []
    await optometrist.get("/inbox")  # signs in

    async def receive() -> dict[str, Any]:
        seen.append(files(place) - before)
        if parts:
            return {"type": "http.request", "body": parts.pop(0), "more_body": True}
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        pass

    headers = {"authorization": f"Bearer {optometrist._token}", "idempotency-key": str(uuid4())}
    scope = {
        "type": "http",
        "method": "POST",
        "path": DOOR,
        "raw_path": DOOR.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    await place.app(scope, receive, send)
    assert len(seen[-1]) == 1  # it was on its way when it broke off
    assert files(place) == before
    rows = "SELECT id FROM attachment WHERE id = :id"
    assert await place.rows(rows, id=seen[-1].pop()) == []


# -- what is left over ---------------------------------------------------------------------------


async def test_an_upload_that_nobody_names_in_time_is_removed_with_its_key(
    place: Place, optometrist: Caller
) -> None:
    image, key = png(), str(uuid4())
    lapsed = taken(await upload(optometrist, image, key), 201)
    claimed, fresh = await uploaded(optometrist), await uploaded(optometrist)
    await optometrist.submit(referral(attachments=naming(claimed)))
    for one in (lapsed, claimed):
        await expired(place, one)
    await place.broker.leftovers.run_once()
    assert files(place) & {one["id"] for one in (lapsed, claimed, fresh)} == {
        claimed["id"],
        fresh["id"],
    }
    for table in (
        "attachment WHERE id",
        "attachment_key WHERE attachment_id",
        "message_key WHERE id",
    ):
        assert await place.rows(f"SELECT 1 FROM {table} = :id", id=lapsed["id"]) == []  # noqa: S608
    assert await refused(optometrist, naming(lapsed)) == [
        ("attachments[0].id", "unknown-attachment")
    ]
    problem(await upload(optometrist, image, key), 410, "gone")


async def test_files_that_no_row_names_are_removed_once_they_are_old(
    place: Place, optometrist: Caller
) -> None:
    known = await uploaded(optometrist)
    folder = Folder.within(place.settings.data_dir)
    with folder.draft(uuid7()) as draft:
        draft.file.write(b"whole, but its row was never written")
        draft.keep()
    stray = files(place) - {known["id"]}
    half = folder.path / "incoming" / uuid7()
    half.write_bytes(b"half")
    await place.broker.leftovers.run_once()
    assert half.exists() and stray <= files(place)
    for path in (half, *folder.path.rglob("*")):
        if path.is_file():
            os.utime(path, (1, 1))
    await Leftovers(place.broker.store, folder, is_alone=False).run_once()
    rows = {str(one.id) for one in await place.rows("SELECT id FROM attachment")}
    assert known["id"] in files(place) <= rows
    assert not half.exists()


# -- files that are not as they were -------------------------------------------------------------


@pytest.mark.parametrize("harm", ["altered", "reordered", "cut short", "made longer", "another's"])
async def test_a_file_that_is_not_as_it_was_is_never_given_out(
    place: Place, optometrist: Caller, hospital: Caller, harm: str
) -> None:
    known = await uploaded(optometrist, png(size=200_000))
    (message,) = (await optometrist.submit(referral(attachments=naming(known))))["messages"]
    await hospital.arrived(message["id"])
    file = file_of(place, known)
    whole = file.read_bytes()
    head, step = len(FORMAT), CHUNK + 16
    spoiled = {
        "altered": whole[:70_000] + bytes([whole[70_000] ^ 1]) + whole[70_001:],
        "reordered": whole[:head]
        + whole[head + step : head + 2 * step]
        + whole[head : head + step]
        + whole[head + 2 * step :],
        "cut short": whole[: head + 2 * step],
        "made longer": whole + whole[head : head + step],
        "another's": file_of(place, await uploaded(optometrist, png(size=200_000))).read_bytes(),
    }
    file.write_bytes(spoiled[harm])
    problem(await hospital.get(f"{DOOR}/{known['id']}"), 500, "internal")
    file.unlink()
    problem(await hospital.get(f"{DOOR}/{known['id']}"), 503, "unavailable")
    file.write_bytes(whole)
    assert (await hospital.get(f"{DOOR}/{known['id']}")).status_code == 200


# -- backup --------------------------------------------------------------------------------------


@pytest.mark.embedded
async def test_a_backup_holds_what_its_database_names_and_a_broker_of_it_gives_that_out(
    place: Place, optometrist: Caller, tmp_path: Path
) -> None:
    image = png(size=100_000)
    known, unnamed = await uploaded(optometrist, image), await uploaded(optometrist)
    await optometrist.submit(referral(attachments=naming(known)))
    folder, copy = Folder.within(place.settings.data_dir), tmp_path / "copy.db"
    file_of(place, unnamed).unlink()  # it lapsed meanwhile
    back_up(place.broker.store, folder, copy, "operator:me")
    later = await uploaded(optometrist)
    settings = place.settings.model_copy(update={"data_dir": tmp_path / "restored"})
    restore(settings, copy, "operator:me")
    assert known["id"] in files_in(settings.data_dir)
    assert not {unnamed["id"], later["id"]} & files_in(settings.data_dir)
    async with open_broker(settings) as broker:
        row = await broker.store.read(lambda c: attachments.found(c, [known["id"]])[known["id"]])
        key = await broker.store.read(
            lambda c: attachments.content_key(c, broker.vault, known["id"])
        )
        assert key is not None
        assert b"".join(broker.fetching.content(row, key)) == image
        # It does not know of what came after the copy, so nothing is left over until it goes on.
        newer = Folder.within(settings.data_dir).path / "incoming" / uuid7()
        newer.parent.mkdir(exist_ok=True)
        newer.write_bytes(b"half")
        os.utime(newer, (1, 1))
        await broker.leftovers.run_once()
        assert newer.exists()
        restoration = await broker.store.read(restorations.current)
        assert restoration is not None
        await broker.store.write(lambda tx: restorations.end(tx, restoration.id))
        await broker.leftovers.run_once()
        assert not newer.exists()


@pytest.mark.embedded
async def test_a_backup_without_a_file_that_a_message_names_is_none(
    place: Place, optometrist: Caller, tmp_path: Path
) -> None:
    known = await uploaded(optometrist)
    await optometrist.submit(referral(attachments=naming(known)))
    folder, copy = Folder.within(place.settings.data_dir), tmp_path / "copy.db"
    back_up(place.broker.store, folder, copy, "operator:me")
    (tmp_path / "copy.db.attachments" / file_of(place, known).parent.name / known["id"]).unlink()
    settings = place.settings.model_copy(update={"data_dir": tmp_path / "restored"})
    with pytest.raises(NotWhole, match=known["id"]):
        restore(settings, copy, "operator:me")
    assert not (settings.data_dir / "broker.db").exists()
    kept = file_of(place, known).read_bytes()
    file_of(place, known).unlink()
    with pytest.raises(NotWhole, match=known["id"]):
        back_up(place.broker.store, folder, tmp_path / "other.db", "operator:me")
    assert not (tmp_path / "other.db").exists()
    file_of(place, known).write_bytes(kept)


# -- by BaRS -------------------------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="module")
async def bars(place: Place) -> AsyncIterator[None]:
    """The hospital's single point of access speaks BaRS."""
    async with place.directory(speaking_bars(HOSPITAL, place.webhook_port)):
        yield


@pytest.mark.usefixtures("bars")
async def test_a_bars_receiver_gets_a_link_in_a_communication(
    place: Place, optometrist: Caller, hospital: Caller
) -> None:
    known = await uploaded(optometrist)
    body = referral(attachments=naming(known, shows="Fluid"))
    (message,) = (await optometrist.submit(body))["messages"]
    got = await body_of(hospital, await hospital.arrived(message["id"]))
    assert documents(got) == []
    (told,) = [one for one in got["entry"] if one["resource"]["resourceType"] == "Communication"]
    link, words = told["resource"]["payload"]
    assert link["contentAttachment"]["url"] == f"{place.base}/attachments/{known['id']}"
    assert link["contentAttachment"]["extension"][0]["valueString"] == known["sha256"]
    assert words == {"contentString": "Fluid"}
    (asked,) = [one for one in got["entry"] if one["resource"]["resourceType"] == "ServiceRequest"]
    assert {"reference": told["fullUrl"]} in asked["resource"]["supportingInfo"]
    assert (await hospital.get(f"{DOOR}/{known['id']}")).status_code == 200


@pytest.mark.usefixtures("bars")
async def test_a_bars_receiver_that_could_follow_no_link_is_refused_at_once(
    place: Place, optometrist: Caller
) -> None:
    known = await uploaded(optometrist)
    store = place.broker.store
    await store.write(lambda tx: clients.revoke_grant(tx, "acceptance", "RXX01"))
    try:
        assert await refused(optometrist, naming(known)) == [("attachments", "cannot-fetch")]
        await optometrist.submit(referral())
    finally:
        await store.write(lambda tx: clients.put_grant(tx, "acceptance", "RXX01"))


async def test_a_referral_with_attachments_is_not_redirected_to_where_none_could_fetch_them(
    place: Place, optometrist: Caller, hospital: Caller
) -> None:
    known = await uploaded(optometrist)
    message = await received(optometrist, hospital, plain(attachments=naming(known)))
    store = place.broker.store
    spa = "service: RYY01-SPA, channel: inbox, takes: [referral, update, notice]"
    speaking = speaking_bars(spa, place.webhook_port)
    await store.write(lambda tx: clients.revoke_grant(tx, "acceptance", "RYY01"))
    try:
        async with place.directory(speaking):
            answer = await hospital.move(message["referral"], "redirect", SENT_ON)
        (said,) = problem(answer, 422, "invalid")["problems"]
        assert (said["field"], said["code"]) == ("destination", "cannot-fetch")
    finally:
        await store.write(lambda tx: clients.put_grant(tx, "acceptance", "RYY01"))
    await sent_on(hospital, message["referral"])
