"""Near-duplicates: told to who gets the later one, to its sender only where it may know, and never
kept back."""

import asyncio
import copy
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from adapters.pillars.general_practice import REFERRALS as GENERAL_PRACTICE
from broker.vault import FileKeyRing
from tests.acceptance.place import Body, Caller, Place, consultation, referral, taken

pytestmark = pytest.mark.asyncio(loop_scope="module")

CODE = "similar-message"
_numbers = count(200)


def nhs_number() -> str:
    """Return the number of a patient whom no other test knows."""
    for at in _numbers:
        digits = f"999{at:06}"
        check = 11 - sum(int(one) * (10 - place) for place, one in enumerate(digits)) % 11
        if check != 10:
            return digits + str(check % 11)
    raise AssertionError


def of(patient: str, body: Body, /, **changes: Any) -> Body:
    """Return a body about this patient."""
    made = copy.deepcopy(body)
    made["patient"]["nhs_number"] = patient
    made["patient"] |= changes
    return made


def cataract(patient: str, **changes: Any) -> Body:
    return of(patient, referral("cataract", practice="G99002", **changes))


def by_practice(patient: str) -> Body:
    """The same pathway, referred by a practice that is nothing to the optometrist's referral."""
    body = of(patient, dict(GENERAL_PRACTICE.examples["cataract"]))
    body["reference"] = f"GP-{patient}-{next(_numbers)}"
    body["provider"] = {"ods": "RYY01"}
    return body


async def sent(caller: Caller, door: str, body: Body) -> tuple[Body, list[Body]]:
    """Post; return the first message and the warnings of near-duplicates."""
    answer = taken(await caller.post(door, body))
    return answer["messages"][0], [one for one in answer["warnings"] if one["code"] == CODE]


async def flags(receiver: Caller, message: Body) -> list[Body]:
    """Return the flags of near-duplicates in what a receiver gets."""
    row = await receiver.arrived(message["id"])
    bundle = (await receiver.get(f"/inbox/{row['id']}")).json()
    return [
        one["resource"]
        for one in bundle["entry"]
        if one["resource"]["resourceType"] == "Flag"
        and one["resource"]["code"].get("coding", [{}])[0].get("code") == CODE
    ]


OPTOMETRY, PRACTICE = "/optometry/referrals", "/general-practice/referrals"


async def test_the_later_of_two_is_flagged_to_who_gets_it_and_told_to_its_own_sender(
    optometrist: Caller, hospital: Caller
) -> None:
    patient = nhs_number()
    first, none = await sent(optometrist, OPTOMETRY, cataract(patient))
    second, warned = await sent(optometrist, OPTOMETRY, cataract(patient))
    assert (none, await flags(hospital, first)) == ([], [])
    [warning] = warned
    assert first["id"] in warning["detail"]
    [flag] = await flags(hospital, second)
    assert flag["identifier"][0]["value"] == first["id"]
    assert "from the same sender" in flag["code"]["text"]
    shown = await optometrist.tracked(second["id"])
    assert CODE in [one["code"] for one in shown["warnings"]]


async def test_of_a_message_that_it_is_no_party_of_a_receiver_learns_that_it_is_there_and_no_more(
    optometrist: Caller, place: Place
) -> None:
    patient = nhs_number()
    first, _ = await sent(optometrist, OPTOMETRY, cataract(patient))
    second, warned = await sent(place.of("G99001"), PRACTICE, by_practice(patient))
    # Its sender is nothing to the first, and hears nothing of it.
    assert warned == []
    assert (await place.of("G99001").tracked(second["id"]))["warnings"] == []
    [flag] = await flags(place.of("RYY01"), second)
    assert "identifier" not in flag
    assert "from another sender" in flag["code"]["text"]
    assert not any(told in str(flag) for told in (first["id"], "TPX01", "RXX01"))


async def test_a_sender_that_got_the_other_as_a_copy_is_told(
    optometrist: Caller, place: Place
) -> None:
    patient = nhs_number()
    first, _ = await sent(
        optometrist, OPTOMETRY, of(patient, referral("cataract", practice="G99001"))
    )
    _, [warning] = await sent(place.of("G99001"), PRACTICE, by_practice(patient))
    assert first["id"] in warning["detail"]


async def test_a_restricted_message_is_flagged_to_its_own_parties_alone(
    optometrist: Caller, hospital: Caller, place: Place
) -> None:
    patient = nhs_number()
    await sent(optometrist, OPTOMETRY, of(patient, cataract(patient), sensitive=True))
    elsewhere, _ = await sent(place.of("G99001"), PRACTICE, by_practice(patient))
    assert await flags(place.of("RYY01"), elsewhere) == []
    again, _ = await sent(optometrist, OPTOMETRY, cataract(patient))
    assert "G99001" not in str(await flags(hospital, again))
    assert len(await flags(hospital, again)) == 2


async def test_what_no_longer_stands_is_no_duplicate_nor_is_another_version_of_the_same(
    optometrist: Caller, hospital: Caller
) -> None:
    patient = nhs_number()
    first, _ = await sent(optometrist, OPTOMETRY, cataract(patient))
    reference = first["id"]
    body = cataract(patient)
    kept, _ = await sent(optometrist, OPTOMETRY, body)  # flagged: two stand
    etag = await optometrist.etag(f"/messages/{kept['id']}")
    taken(await optometrist.move(first["referral"], "cancel", {"reason": "patient-request"}), 200)
    answer = await optometrist.put(
        f"{OPTOMETRY}/{kept['id']}", body | {"additional_information": "More."}, if_match=etag
    )
    (version,) = taken(answer, 200)["messages"]
    assert await flags(hospital, version) == [], reference
    third, _ = await sent(optometrist, OPTOMETRY, cataract(patient))
    [flag] = await flags(hospital, third)
    assert flag["identifier"][0]["value"] == version["id"]


async def test_outside_the_window_and_on_another_pathway_nothing_is_flagged(
    optometrist: Caller, hospital: Caller, place: Place
) -> None:
    patient = nhs_number()
    first, _ = await sent(optometrist, OPTOMETRY, cataract(patient))
    await place.accepted_at(first["id"], datetime.now(UTC) - timedelta(days=7, minutes=1))
    later, warned = await sent(optometrist, OPTOMETRY, cataract(patient))
    assert (warned, await flags(hospital, later)) == ([], [])
    glaucoma, warned = await sent(
        optometrist, OPTOMETRY, of(patient, referral("raised-pressure", practice="G99002"))
    )
    assert (warned, await flags(hospital, glaucoma)) == ([], [])


async def test_a_patient_without_a_number_is_never_flagged(
    optometrist: Caller, hospital: Caller
) -> None:
    for _ in range(2):
        message, warned = await sent(optometrist, OPTOMETRY, referral("no-nhs-number"))
        assert (warned, await flags(hospital, message)) == ([], [])


async def test_one_that_stands_under_an_older_pseudonym_key_is_found(
    optometrist: Caller, hospital: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = nhs_number()
    await sent(optometrist, OPTOMETRY, cataract(patient))
    before = FileKeyRing.pseudonym_keys
    monkeypatch.setattr(
        FileKeyRing, "pseudonym_keys", lambda ring: [*before(ring), ("newer", b"n" * 32)]
    )
    second, warned = await sent(optometrist, OPTOMETRY, cataract(patient))
    assert (len(warned), len(await flags(hospital, second))) == (1, 1)


async def test_of_two_posted_at_once_exactly_the_later_is_flagged(
    optometrist: Caller, hospital: Caller
) -> None:
    patient = nhs_number()
    both = await asyncio.gather(
        *(sent(optometrist, OPTOMETRY, cataract(patient)) for _ in range(2))
    )
    found = [await flags(hospital, message) for message, _ in both]
    assert sorted(map(len, found)) == [0, 1]


async def test_a_second_consultation_is_flagged_to_the_practice_and_its_task_is_no_duplicate_of_it(
    pharmacy: Caller, practice: Caller
) -> None:
    patient = nhs_number()
    for expected in (0, 1):
        body = of(patient, consultation("uncomplicated-uti"))
        answer = taken(await pharmacy.post("/pharmacy/consultations", body))
        for message in answer["messages"]:
            assert len(await flags(practice, message)) == expected, message["kind"]
