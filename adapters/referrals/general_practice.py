"""General practice refers: to the other pillars, to hospitals and to the community."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, Field

from adapters.referrals.door import Referrals
from adapters.referrals.form import (
    Clinician,
    OfBody,
    OfEyes,
    OfTeeth,
    Referral,
    known_pathway,
    pathways_of,
)
from broker.ports import Adapter
from fhir_profiles import codes
from fhir_profiles.blocks import Organisation
from fhir_profiles.values import GmcNumber, Line


class GeneralPractitioner(Clinician):
    """Who refers at the practice."""

    gmc_number: GmcNumber | None = Field(default=None, examples=["7654321"])
    """GMC number, 7 digits, of a doctor."""

    registers: ClassVar[Mapping[str, str]] = {"gmc_number": codes.identifier_system("gmc-number")}


class GeneralPracticeReferral(OfEyes, OfTeeth, OfBody, Referral):
    """A patient referred by their general practice.

    Goes to the named provider, else to the service that the pathway and its reason ask for. The
    more urgent of what you ask for and what the pathway asks for counts.
    """

    pillar: ClassVar[str] = "general-practice"
    sender_field: ClassVar[str] = "practice"

    pathway: Annotated[Line, AfterValidator(known_pathway), pathways_of("general-practice")]
    """What the patient is referred on: an id of the catalogue (`GET /pathways`)."""
    practice: Organisation
    """The practice that refers, with which the patient is registered: the organisation of your
    token."""
    clinician: GeneralPractitioner
    """Who refers."""


ADAPTER: Final[Adapter] = Referrals(GeneralPracticeReferral)
