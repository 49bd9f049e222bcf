"""Dentistry refers: within dentistry, to hospitals and to the community."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, Field

from adapters.pillars.outcomes.door import Outcomes
from adapters.pillars.outcomes.form import Outcome
from adapters.pillars.parts import OfTeeth
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
from fhir_profiles.values import GdcNumber, Line


class Dentist(Clinician):
    """The dentist or dental care professional who refers."""

    gdc_number: GdcNumber = Field(examples=["123456"])
    """GDC registration number."""

    registers: ClassVar[Mapping[str, str]] = {"gdc_number": codes.identifier_system("gdc-number")}


class OfDentistry(Who):
    """Who speaks for the pillar."""

    pillar: ClassVar[str] = "dentistry"
    sender_field: ClassVar[str] = "dental_practice"

    dental_practice: Organisation
    """The dental practice: the organisation of your token."""
    practice: Organisation | None = None
    """The patient's registered GP practice, if it is known. It gets a copy."""
    clinician: Dentist
    """The clinician."""


class DentalReferral(OfDentistry, OfTeeth, Referral):
    """A patient referred by a dental practice.

    Goes to the named provider, else to the service that the pathway and its reason ask for; the
    patient's GP practice, if it is known, gets a copy. The more urgent of what you ask for and what
    the pathway asks for counts.
    """

    pathway: Annotated[Line, AfterValidator(known_pathway), pathways_of("dentistry")]
    """What the patient is referred on: an id of the catalogue (`GET /pathways`)."""


class DentalUpdate(OfDentistry, Update):
    """What a dental practice tells the practice.

    It goes to the registered practice, for the record. What is asked of the practice, by you or by
    what was measured, is a referral of its own that no routine queue delays.
    """

    practice: Organisation
    """The patient's registered GP practice, whose record it is for."""


class DentalOutcome(OfDentistry, OfTeeth, Outcome):
    """What a dental practice found and did for a patient who was referred to it.

    It goes to the registered practice and to who referred, on some pathways also to the patient's
    optometrist or dentist. It ends the referral that it answers, or leaves it in progress. Each
    thing that the practice is asked to do is a referral of its own.
    """

    practice: Organisation | None = None
    """The patient's registered GP practice, whose record it is for."""


REFERRALS: Final[Adapter] = Referrals(DentalReferral)
UPDATES: Final[Adapter] = Updates(DentalUpdate)
OUTCOMES: Final[Adapter] = Outcomes(DentalOutcome)
