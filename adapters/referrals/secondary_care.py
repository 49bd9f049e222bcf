"""Hospitals refer: back to the pillars, on to other clinics, and medicines at discharge."""

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


class HospitalClinician(Clinician):
    """The hospital's clinician who refers."""

    gmc_number: GmcNumber | None = Field(default=None, examples=["7654321"])
    """GMC number, 7 digits, of a doctor."""

    registers: ClassVar[Mapping[str, str]] = {"gmc_number": codes.identifier_system("gmc-number")}


class HospitalReferral(OfTeeth, OfBody, Referral):
    """A patient referred by a hospital.

    Goes to the named provider, else to the service that the pathway and its reason ask for; the
    patient's GP practice, if it is known, gets a copy. The more urgent of what you ask for and what
    the pathway asks for counts.
    """

    pillar: ClassVar[str] = "secondary-care"
    sender_field: ClassVar[str] = "hospital"

    pathway: Annotated[Line, AfterValidator(known_pathway), pathways_of("secondary-care")]
    """What the patient is referred on: an id of the catalogue (`GET /pathways`)."""
    hospital: Organisation
    """The hospital that refers: the organisation of your token."""
    practice: Organisation | None = None
    """The patient's registered GP practice, if it is known. It gets a copy."""
    clinician: HospitalClinician
    """Who refers."""


ADAPTER: Final[Adapter] = Referrals(HospitalReferral)
