"""Dentistry refers: within dentistry, to hospitals and to the community."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, Field

from adapters.referrals.door import Referrals
from adapters.referrals.form import (
    Clinician,
    OfTeeth,
    Referral,
    known_pathway,
    pathways_of,
)
from broker.ports import Adapter
from fhir_profiles import codes
from fhir_profiles.blocks import Organisation
from fhir_profiles.values import GdcNumber, Line


class Dentist(Clinician):
    """The dentist or dental care professional who refers."""

    gdc_number: GdcNumber = Field(examples=["123456"])
    """GDC registration number."""

    registers: ClassVar[Mapping[str, str]] = {"gdc_number": codes.identifier_system("gdc-number")}


class DentalReferral(OfTeeth, Referral):
    """A patient referred by a dental practice.

    Goes to the named provider, else to the service that the pathway and its reason ask for; the
    patient's GP practice, if it is known, gets a copy. The more urgent of what you ask for and what
    the pathway asks for counts.
    """

    pillar: ClassVar[str] = "dentistry"
    sender_field: ClassVar[str] = "dental_practice"

    pathway: Annotated[Line, AfterValidator(known_pathway), pathways_of("dentistry")]
    """What the patient is referred on: an id of the catalogue (`GET /pathways`)."""
    dental_practice: Organisation
    """The dental practice that refers: the organisation of your token."""
    practice: Organisation | None = None
    """The patient's registered GP practice, if it is known. It gets a copy."""
    clinician: Dentist
    """Who refers."""


ADAPTER: Final[Adapter] = Referrals(DentalReferral)
