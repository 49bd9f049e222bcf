"""Community services refer: among each other, to hospitals and to dentistry."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, Field

from adapters.referrals.door import Referrals
from adapters.referrals.form import (
    Clinician,
    OfBody,
    OfTeeth,
    Referral,
    known_pathway,
    pathways_of,
)
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


class CommunityReferral(OfTeeth, OfBody, Referral):
    """A patient referred by a community service.

    Goes to the named provider, else to the service that the pathway and its reason ask for; the
    patient's GP practice, if it is known, gets a copy. The more urgent of what you ask for and what
    the pathway asks for counts.
    """

    pillar: ClassVar[str] = "community"
    sender_field: ClassVar[str] = "community_service"

    pathway: Annotated[Line, AfterValidator(known_pathway), pathways_of("community")]
    """What the patient is referred on: an id of the catalogue (`GET /pathways`)."""
    community_service: Organisation
    """The community service that refers: the organisation of your token."""
    practice: Organisation | None = None
    """The patient's registered GP practice, if it is known. It gets a copy."""
    clinician: CommunityClinician
    """Who refers."""


ADAPTER: Final[Adapter] = Referrals(CommunityReferral)
