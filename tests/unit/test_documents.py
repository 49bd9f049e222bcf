"""A document that was uploaded here is told to BaRS as a link; any other is carried as it came."""

from datetime import UTC, datetime
from typing import Any

import pytest

from fhir_profiles import codes, strict_json
from fhir_profiles.bars.attachments import as_links
from fhir_profiles.bars.outgoing import Held, made
from fhir_profiles.documents import names_ours

AT = datetime(2026, 11, 24, tzinfo=UTC)
URL = "urn:uuid:01932f6e-5b1c-7d2e-9f3a-4b5c6d7e8f90"
DIGEST = {"url": codes.EXT_SHA256, "valueString": "0" * 64}


def document(attachment: dict[str, Any], **said: Any) -> Held:
    resource = {
        "resourceType": "DocumentReference",
        "id": URL.removeprefix("urn:uuid:"),
        "status": "current",
        "content": [{"attachment": attachment}],
    }
    return made(URL, resource | said)


def test_what_was_uploaded_here_is_a_communication_under_the_same_full_url() -> None:
    link = {"extension": [DIGEST], "url": "https://broker.example/attachments/1", "title": "OCT"}
    patient, by = {"reference": "urn:uuid:p"}, {"reference": "urn:uuid:o"}
    ours = document(
        link, subject=patient, author=[by], date="2026-11-24T09:00:00+00:00", description="Fluid"
    )
    assert names_ours(ours.raw)
    (told,) = as_links([ours], AT)
    assert told.full_url == URL
    assert told.resource["resourceType"] == "Communication"
    assert (told.resource["subject"], told.resource["sender"]) == (patient, by)
    assert told.resource["payload"] == [{"contentAttachment": link}, {"contentString": "Fluid"}]
    assert strict_json.loads(told.raw)["resource"] == told.resource


def test_one_that_says_no_more_than_it_must_is_told_all_the_same() -> None:
    (told,) = as_links([document({"extension": [DIGEST], "url": "https://broker.example/1"})], AT)
    assert told.resource.keys() >= {"status", "payload"}
    assert not told.resource.keys() & {"subject", "sender", "sent"}


@pytest.mark.parametrize(
    "attachment", [{"url": "https://elsewhere.example/scan.pdf"}, {"data": "aGVsbG8="}, {}]
)
def test_anybody_elses_document_is_carried_byte_for_byte(attachment: dict[str, Any]) -> None:
    theirs = document(attachment)
    assert as_links([theirs], AT) == [theirs]
    assert not names_ours(theirs.raw)
