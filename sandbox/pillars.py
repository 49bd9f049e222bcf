"""An act of the demo for each of the other pillars: how they speak to each other.

Each claims only what was read from the broker's API, or found in a partner's own ledger.
"""

import hashlib
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Final
from uuid import uuid4

from sandbox.acts import Act, heard, tracked
from sandbox.ledger import Entry, until
from sandbox.partner import Partner
from sandbox.story import Story
from sandbox.world import (
    DENTIST,
    DISCHARGING_HOSPITAL,
    INBOX_PRACTICE,
    OTHER_HOSPITAL,
    PHARMACY,
    URGENT_CARE,
    URGENT_EYE,
    World,
)

_PATIENCE: Final = 15.0
_NOBODY_DECIDES: Final = "XXTEST-UNDECIDED"
# The smallest image that there is.
_PNG: Final = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
)


async def radiograph(world: World, story: Story) -> None:
    """A dentist's suspected cancer goes to hospital with its image, and counts to the diagnosis."""
    dentist, hospital = world.pillars[DENTIST], world.hospital
    image = await dentist.send("POST", "/attachments", _PNG)
    story.see(image.status == 201, f"{dentist.name} uploaded a radiograph: {len(_PNG)} bytes, 201")
    named = {"id": image.json["id"], "sha256": image.json["sha256"], "title": "Periapical"}
    taken = (datetime.now(UTC) - timedelta(days=3)).date().isoformat()
    sent = await dentist.post(
        "dentistry.referrals",
        "suspected-oral-cancer",
        practice=INBOX_PRACTICE,
        attachments=[named],
        radiographs=[{"kind": "periapical", "taken_on": taken, "attachment": named["id"]}],
    )
    message = sent.json["messages"][0]
    clocks = {one["kind"] for one in message["deadlines"]}
    story.see(
        sent.status == 202 and "diagnosed" in clocks,
        "the referral that names it was taken: it counts 28 days until the patient is told",
    )
    await received(hospital, message["id"])
    fetched = await hospital.client.call("GET", f"/attachments/{named['id']}")
    story.see(
        hashlib.sha256(fetched.body).hexdigest() == named["sha256"],
        f"{hospital.name} fetched the image: SHA-256 {named['sha256'][:12]}…, as it was uploaded",
    )
    stranger = await world.pillars[OTHER_HOSPITAL].client.call("GET", f"/attachments/{named['id']}")
    story.see(stranger.status == 404, "to a hospital that was not sent it, it is not there: 404")
    await heard(dentist, message["id"], "accepted")
    ended = await moved(hospital, message["referral"], "complete", outcome="Seen; a biopsy.")
    story.see(ended.status == 422, "ending it without what the patient was told is refused")
    said = {"outcome": "Biopsied; benign.", "diagnosis": "cancer-excluded"}
    await moved(hospital, message["referral"], "complete", **said)
    for one in (dentist, world.practice):
        told = await heard(one, message["id"], "completed")
        story.see("excluded" in told["text"], f"{one.name} was told: “{told['text']}”")


async def pharmacy_and_back(world: World, story: Story) -> None:
    """A practice refers to a pharmacy, whose consultation ends the referral."""
    practice, pharmacy = world.practice, world.pharmacy
    sent = await practice.post(
        "general-practice.referrals", "minor-illness", family=_NOBODY_DECIDES
    )
    message = sent.json["messages"][0]
    closes = next(one for one in message["deadlines"] if one["kind"] == "closed")
    story.see(
        sent.status == 202,
        f"{practice.name} referred to {message['destinations'][0]['name']}; unseen, it closes "
        f"{closes['in_words']}",
    )
    await received(pharmacy, message["id"])
    referral = message["referral"].rpartition("/")[2]
    source = {"kind": "general-practice", "organisation": INBOX_PRACTICE, "referral": referral}
    body = pharmacy.consultation("minor-illness", practice=INBOX_PRACTICE, source=source)
    # The same patient: a consultation about another one closes nothing.
    body["patient"] = {**body["patient"], "nhs_number": practice.drawn["patient"]["nhs_number"]}
    seen = await pharmacy.submit(body)
    story.see(seen.status == 202, f"{pharmacy.name} posted the consultation that names it")
    record = seen.json["messages"][0]["id"]
    await received(practice, record)
    shown = await practice.get(message["referral"])
    story.see(
        shown["state"] == "completed",
        "the practice has the record, and its referral is completed: nobody typed it again",
    )


async def urgent_care(world: World, story: Story) -> None:
    """NHS 111 refers a red eye to an optometrist, who sees it and says what was found."""
    caller, optician = world.pillars[URGENT_CARE], world.pillars[URGENT_EYE]
    sent = await caller.post(
        "urgent-care.referrals", "minor-and-urgent-eye-care", practice=INBOX_PRACTICE
    )
    message = sent.json["messages"][0]
    place = message["destinations"][0]
    story.see(
        sent.status == 202 and place["organisation"] == URGENT_EYE,
        f"{caller.name} referred a red eye to {place['name']}. {place['reason']}",
    )
    await received(optician, message["id"])
    told = await heard(caller, message["id"], "accepted")
    story.see(told, f"{optician.name} accepted it, and {caller.name} was told")
    read_out = await caller.get(f"/messages/{message['id']}/status")
    story.see(read_out["line"], f"who asks for the patient reads: “{read_out['line']}”")
    seen = await optician.post(
        "optometry.outcomes",
        "minor-and-urgent-eye-care",
        outcome="treated",
        optical_practice={"ods": URGENT_EYE},
        practice=INBOX_PRACTICE,
        referrer=None,
        referral={"id": message["referral"].rpartition("/")[2]},
        patient=caller.drawn["patient"],
    )
    story.see(seen.status == 202, f"{optician.name} posted what was found and done")
    update = seen.json["messages"][0]
    for one in (caller, world.practice):
        await received(one, update["id"])
    shown = await caller.get(message["referral"])
    story.see(
        shown["state"] == "completed",
        f"{caller.name} and {world.practice.name} have it, and the referral is completed",
    )


async def sent_on(world: World, story: Story) -> None:
    """A single point of access sends a referral on: the same one, its clocks running."""
    optometrist, hospital = world.optometrist, world.hospital
    other = world.pillars[OTHER_HOSPITAL]
    body = optometrist.referral("cataract", practice=INBOX_PRACTICE, family=_NOBODY_DECIDES)
    body.pop("provider", None)
    sent = await optometrist.submit(body)
    message = sent.json["messages"][0]
    await received(hospital, message["id"])
    await tracked(optometrist, message["id"], lambda view: view["state"] == "received")
    advice = "We have no surgeon until March."
    answer = await moved(
        hospital,
        message["referral"],
        "redirect",
        destination=f"{OTHER_HOSPITAL}/{OTHER_HOSPITAL}-SPA",
        advice=advice,
    )
    story.see(
        answer.status == 200 and answer.json["receiver"] == OTHER_HOSPITAL,
        f"{hospital.name} sent a referral on to {other.name}: “{advice}”",
    )
    stored = await received(other, answer.json["message"])
    story.see(stored, f"{other.name} has stored it, with all that the optometrist said")
    told = await heard(optometrist, message["id"], "redirected")
    story.see(advice in told["advice"], "the optometrist was told where it is and why")
    gone = await hospital.client.call("GET", message["referral"])
    story.see(gone.status == 404, f"{hospital.name} sees what it received, and no more of it")


async def advice(world: World, story: Story) -> None:
    """A practice asks for advice, is asked something, and makes a referral of it all."""
    practice, hospital = world.practice, world.hospital
    sent = await practice.post(
        "general-practice.referrals", "advice-and-guidance", family=_NOBODY_DECIDES
    )
    request = sent.json["messages"][0]
    await received(hospital, request["id"])
    about = request["referral"].rpartition("/")[2]
    asked = await hospital.send(
        "POST", "/communications", _said(hospital, "question", "Since when?", about=about)
    )
    question = asked.json["messages"][0]
    await received(practice, question["id"])
    answer = await practice.send(
        "POST", "/communications", _said(practice, "answer", "May.", in_reply_to=question["id"])
    )
    thread = await practice.get(question["thread"])
    texts = [one["text"] for one in thread["messages"]]
    story.see(
        answer.status == 202 and texts == ["Since when?", "May."],
        f"{hospital.name} asked “Since when?” and {practice.name} answered “May.”: one thread",
    )
    made = await moved(
        practice,
        request["referral"],
        "convert",
        pathway="specialty-referral",
        reason={"code": "cardiology", "text": "Palpitations"},
        reference=f"{about}-converted",
        history="Palpitations for three months.",
        medicines=[],
        allergies=[],
    )
    stored = await received(hospital, made.json["messages"][0]["id"])
    story.see(
        made.status == 202 and stored,
        f"{practice.name} made a referral of it, typing nothing again: {hospital.name} has it",
    )


async def discharge(world: World, story: Story) -> None:
    """A discharge reaches the practice and, with the patient's word, the pharmacy."""
    hospital, pharmacy = world.pillars[DISCHARGING_HOSPITAL], world.pharmacy
    sent = await hospital.post(
        "secondary-care.letters", "discharge", practice=INBOX_PRACTICE, family=_NOBODY_DECIDES
    )
    made = sent.json["messages"]
    places = {one["destinations"][0]["organisation"] for one in made}
    story.see(
        sent.status == 202 and places == {INBOX_PRACTICE, PHARMACY},
        f"{hospital.name} posted one discharge: {len(made)} messages, for the practice its record "
        "and what it is asked to do, for the pharmacy the changed medicines",
    )
    for one in made:
        is_pharmacys = one["destinations"][0]["organisation"] == PHARMACY
        await received(pharmacy if is_pharmacys else world.practice, one["id"])
    story.see(True, f"{world.practice.name} and {pharmacy.name} have stored them")


async def overdue(world: World, story: Story) -> None:
    """What nobody decides in time is raised, once, and cleared by the decision."""
    optometrist, hospital = world.optometrist, world.hospital
    long_ago = (datetime.now(UTC) - timedelta(days=30)).isoformat(timespec="seconds")
    body = optometrist.referral("cataract", practice=INBOX_PRACTICE, family=_NOBODY_DECIDES)
    sent = await optometrist.submit(body | {"date_of_sight_test": long_ago})
    message = sent.json["messages"][0]
    told = await until(lambda: _undecided(optometrist, message["id"]), _PATIENCE)
    story.see(told, f"the optometrist was told: “{(told or {}).get('text')}”")
    listed = await until_listed(optometrist, message["id"])
    story.see("decided-overdue" in listed, "it stands on the list of what is overdue")
    await received(hospital, message["id"])
    await tracked(optometrist, message["id"], lambda view: view["state"] == "received")
    await moved(hospital, message["referral"], "accept")
    items = await codes(optometrist, message["id"])
    story.see(
        "decided-overdue" not in items, f"{hospital.name} accepted it: it is on that list no more"
    )


# -- looking and moving --------------------------------------------------------------------------


async def received(partner: Partner, message: str) -> Entry:
    """Return the entry of a partner's ledger for a message that it stored. Raises LookupError."""
    found = await until(lambda: partner.ledger.first("received", message=message), _PATIENCE)
    if found is None:
        raise LookupError(f"{partner.name} has not stored {message}")
    return found


def _said(partner: Partner, kind: str, text: str, **about: str) -> dict[str, Any]:
    """Return a clinical message of a partner's."""
    return {
        "reference": f"said-{uuid4()}",
        "sent_by": {"ods": partner.ods},
        "clinician": {"name": {"family": "Example", "given": "Sam"}, "role": "Doctor"},
        "consent": True,
        "kind": kind,
        "subject": "Palpitations",
        "text": text,
        **about,
    }


async def moved(partner: Partner, referral: str, name: str, **content: Any) -> Any:
    """Move a referral, on the version that stands; return the answer."""
    while True:
        read = await partner.client.call("GET", referral)
        answer = await partner.send("POST", f"{referral}/{name}", content, if_match=read.etag)
        if answer.status != HTTPStatus.PRECONDITION_FAILED:  # else it moved meanwhile
            return answer


def _undecided(partner: Partner, message: str) -> Entry | None:
    told = partner.ledger.entries("received", about=message, topic="deadline-passed")
    return next((one for one in told if "not decided on" in one["text"]), None)


async def codes(partner: Partner, message: str) -> set[str]:
    """Return what stands on a sender's list about a message."""
    page = await partner.get("/overdue", limit="500")
    return {one["code"] for one in page["items"] if one["message"] == message}


async def until_listed(partner: Partner, message: str) -> set[str]:
    """Return what stands on a sender's list about a message, once anything does."""
    await tracked(partner, message, lambda view: view["open_items"])
    return await codes(partner, message)


PILLARS: Final[tuple[tuple[str, Act], ...]] = (
    ("A dentist's suspected cancer goes with its image", radiograph),
    ("A practice refers to a pharmacy, and has its answer", pharmacy_and_back),
    ("NHS 111 refers to an optometrist", urgent_care),
    ("A single point of access sends a referral on", sent_on),
    ("Advice becomes a referral", advice),
    ("A discharge reaches the practice and the pharmacy", discharge),
    ("An overdue referral is raised", overdue),
)
