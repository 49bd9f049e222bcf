"""Hospitals refer: back to the pillars, on to other clinics, and medicines at discharge."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, Field

from adapters.pillars.outcomes.door import Outcomes
from adapters.pillars.outcomes.letter import Letter
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


class HospitalClinician(Clinician):
    """The hospital's clinician who refers."""

    gmc_number: GmcNumber | None = Field(default=None, examples=["7654321"])
    """GMC number, 7 digits, of a doctor."""

    registers: ClassVar[Mapping[str, str]] = {"gmc_number": codes.identifier_system("gmc-number")}


class OfHospital(Who):
    """Who speaks for the pillar."""

    pillar: ClassVar[str] = "secondary-care"
    sender_field: ClassVar[str] = "hospital"

    hospital: Organisation
    """The hospital: the organisation of your token."""
    practice: Organisation | None = None
    """The patient's registered GP practice, if it is known. It gets a copy."""
    clinician: HospitalClinician
    """The clinician."""


class HospitalReferral(OfHospital, OfTeeth, OfBody, Referral):
    """A patient referred by a hospital.

    Goes to the named provider, else to the service that the pathway and its reason ask for; the
    patient's GP practice, if it is known, gets a copy. The more urgent of what you ask for and what
    the pathway asks for counts.
    """

    pathway: Annotated[Line, AfterValidator(known_pathway), pathways_of("secondary-care")]
    """What the patient is referred on: an id of the catalogue (`GET /pathways`)."""


class HospitalUpdate(OfHospital, Update):
    """What a hospital tells the practice.

    It goes to the registered practice, for the record. What is asked of the practice, by you or by
    what was measured, is a referral of its own that no routine queue delays.
    """

    practice: Organisation
    """The patient's registered GP practice, whose record it is for."""


class HospitalLetter(OfHospital, Letter):
    """What a hospital found and did: an outcome, a clinic letter or a discharge.

    It goes to the registered practice and to who referred, on some pathways also to the patient's
    optometrist or dentist. It ends the referral that it answers, or leaves it in progress. What the
    practice is asked to do is a referral of its own for each thing, and so is what the pharmacy is
    asked about changed medicines.
    """

    refers_with = HospitalReferral

    practice: Organisation | None = None
    """The patient's registered GP practice, whose record it is for."""


REFERRALS: Final[Adapter] = Referrals(HospitalReferral)
UPDATES: Final[Adapter] = Updates(HospitalUpdate)
LETTERS: Final[Adapter] = Outcomes(HospitalLetter)
