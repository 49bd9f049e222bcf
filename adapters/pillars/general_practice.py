"""General practice refers: to the other pillars, to hospitals and to the community."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, Field

from adapters.pillars.outcomes.door import Outcomes
from adapters.pillars.outcomes.form import Outcome
from adapters.pillars.parts import OfBody, OfEyes, OfTeeth
from adapters.pillars.referrals.door import Referrals
from adapters.pillars.referrals.form import (
    Referral,
    known_pathway,
    pathways_of,
)
from adapters.pillars.who import Clinician, Who
from broker.ports import Adapter
from fhir_profiles import codes
from fhir_profiles.blocks import Organisation
from fhir_profiles.values import GmcNumber, Line


class GeneralPractitioner(Clinician):
    """A clinician of the practice."""

    gmc_number: GmcNumber | None = Field(default=None, examples=["7654321"])
    """GMC number, 7 digits, of a doctor."""

    registers: ClassVar[Mapping[str, str]] = {"gmc_number": codes.identifier_system("gmc-number")}


class OfGeneralPractice(Who):
    """Who speaks for the pillar."""

    pillar: ClassVar[str] = "general-practice"
    sender_field: ClassVar[str] = "practice"

    practice: Organisation
    """The practice that refers, with which the patient is registered: the organisation of your
    token."""
    clinician: GeneralPractitioner
    """The clinician."""


class GeneralPracticeReferral(OfGeneralPractice, OfEyes, OfTeeth, OfBody, Referral):
    """A patient referred by their general practice.

    Goes to the named provider, else to the service that the pathway and its reason ask for. The
    more urgent of what you ask for and what the pathway asks for counts.
    """

    pathway: Annotated[Line, AfterValidator(known_pathway), pathways_of("general-practice")]
    """What the patient is referred on: an id of the catalogue (`GET /pathways`)."""


class GeneralPracticeOutcome(OfGeneralPractice, Outcome):
    """What a general practice found and did for a patient who was referred to it.

    It goes to the registered practice and to who referred, on some pathways also to the patient's
    optometrist or dentist. It ends the referral that it answers, or leaves it in progress. Each
    thing that the practice is asked to do is a referral of its own.
    """


REFERRALS: Final[Adapter] = Referrals(GeneralPracticeReferral)
OUTCOMES: Final[Adapter] = Outcomes(GeneralPracticeOutcome)
