"""Community services refer: among each other, to hospitals and to dentistry."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, Field

from adapters.pillars.outcomes.door import Outcomes
from adapters.pillars.outcomes.form import Outcome
from adapters.pillars.parts import OfBody, OfTeeth
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


class CommunityClinician(Clinician):
    """The nurse, therapist or doctor who refers."""

    nmc_number: Line | None = Field(default=None, examples=["12A3456E"])
    """NMC number, of a nurse."""

    hcpc_number: Line | None = Field(default=None, examples=["PH123456"])
    """HCPC number, of a therapist."""

    gmc_number: GmcNumber | None = Field(default=None, examples=["7654321"])
    """GMC number, 7 digits, of a doctor."""

    registers: ClassVar[Mapping[str, str]] = {
        "nmc_number": codes.identifier_system("nmc-number"),
        "hcpc_number": codes.identifier_system("hcpc-number"),
        "gmc_number": codes.identifier_system("gmc-number"),
    }


class OfCommunity(Who):
    """Who speaks for the pillar."""

    pillar: ClassVar[str] = "community"
    sender_field: ClassVar[str] = "community_service"

    community_service: Organisation
    """The community service: the organisation of your token."""
    practice: Organisation | None = None
    """The patient's registered GP practice, if it is known. It gets a copy."""
    clinician: CommunityClinician
    """The clinician."""


class CommunityReferral(OfCommunity, OfTeeth, OfBody, Referral):
    """A patient referred by a community service.

    Goes to the named provider, else to the service that the pathway and its reason ask for; the
    patient's GP practice, if it is known, gets a copy. The more urgent of what you ask for and what
    the pathway asks for counts.
    """

    pathway: Annotated[Line, AfterValidator(known_pathway), pathways_of("community")]
    """What the patient is referred on: an id of the catalogue (`GET /pathways`)."""


class CommunityUpdate(OfCommunity, Update):
    """What a community service tells the practice.

    It goes to the registered practice, for the record. What is asked of the practice, by you or by
    what was measured, is a referral of its own that no routine queue delays.
    """

    practice: Organisation
    """The patient's registered GP practice, whose record it is for."""


class CommunityOutcome(OfCommunity, Outcome):
    """What a community service found and did for a patient who was referred to it.

    It goes to the registered practice and to who referred, on some pathways also to the patient's
    optometrist or dentist. It ends the referral that it answers, or leaves it in progress. Each
    thing that the practice is asked to do is a referral of its own.
    """

    practice: Organisation | None = None
    """The patient's registered GP practice, whose record it is for."""


REFERRALS: Final[Adapter] = Referrals(CommunityReferral)
UPDATES: Final[Adapter] = Updates(CommunityUpdate)
OUTCOMES: Final[Adapter] = Outcomes(CommunityOutcome)
