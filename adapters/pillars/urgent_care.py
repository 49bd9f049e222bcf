"""Urgent care refers: NHS 111 and same-day triage, to who can see the patient soon."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, Field

from adapters.pillars.parts import OfBody, OfEyes
from adapters.pillars.referrals.door import Referrals
from adapters.pillars.referrals.form import (
    Referral,
    known_pathway,
    pathways_of,
)
from adapters.pillars.updates.door import Updates
from adapters.pillars.updates.form import Update
from adapters.pillars.who import Clinician, Who
from broker.ports import Adapter
from fhir_profiles import codes
from fhir_profiles.blocks import Organisation
from fhir_profiles.values import GmcNumber, Line


class UrgentCareClinician(Clinician):
    """Who took the call or assessed the patient; a health adviser has no number."""

    gmc_number: GmcNumber | None = Field(default=None, examples=["7654321"])
    """GMC number, 7 digits, of a doctor."""

    nmc_number: Line | None = Field(default=None, examples=["12A3456E"])
    """NMC number, of a nurse."""

    registers: ClassVar[Mapping[str, str]] = {
        "gmc_number": codes.identifier_system("gmc-number"),
        "nmc_number": codes.identifier_system("nmc-number"),
    }


class OfUrgentCare(Who):
    """Who speaks for the pillar."""

    pillar: ClassVar[str] = "urgent-care"
    sender_field: ClassVar[str] = "urgent_care_service"

    urgent_care_service: Organisation
    """The urgent care service: the organisation of your token."""
    practice: Organisation | None = None
    """The patient's registered GP practice, if it is known. It gets a copy."""
    clinician: UrgentCareClinician
    """The clinician."""


class UrgentCareReferral(OfUrgentCare, OfEyes, OfBody, Referral):
    """A patient referred by NHS 111 or same-day triage.

    Goes to the named provider, else to the service that the pathway and its reason ask for; the
    patient's GP practice, if it is known, gets a copy. The more urgent of what you ask for and what
    the pathway asks for counts.
    """

    pathway: Annotated[Line, AfterValidator(known_pathway), pathways_of("urgent-care")]
    """What the patient is referred on: an id of the catalogue (`GET /pathways`)."""


class UrgentCareUpdate(OfUrgentCare, Update):
    """What NHS 111 or same-day triage tells the practice.

    It goes to the registered practice, for the record. What is asked of the practice, by you or by
    what was measured, is a referral of its own that no routine queue delays.
    """

    practice: Organisation
    """The patient's registered GP practice, whose record it is for."""


REFERRALS: Final[Adapter] = Referrals(UrgentCareReferral)
UPDATES: Final[Adapter] = Updates(UrgentCareUpdate)
