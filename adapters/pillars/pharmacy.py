"""Community pharmacy refers: what it may not treat itself, and to the community."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, Field

from adapters.pillars.outcomes.door import Outcomes
from adapters.pillars.outcomes.form import Outcome
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
from fhir_profiles.values import GphcNumber, Line


class ReferringPharmacist(Clinician):
    """The pharmacist who refers."""

    gphc_number: GphcNumber = Field(examples=["2099001"])
    """GPhC registration number, 7 digits."""

    registers: ClassVar[Mapping[str, str]] = {"gphc_number": codes.GPHC}


class OfPharmacy(Who):
    """Who speaks for the pillar."""

    pillar: ClassVar[str] = "pharmacy"
    sender_field: ClassVar[str] = "pharmacy"

    pharmacy: Organisation
    """The pharmacy: the organisation of your token."""
    practice: Organisation | None = None
    """The patient's registered GP practice, if it is known. It gets a copy."""
    clinician: ReferringPharmacist
    """The clinician."""


class PharmacyReferral(OfPharmacy, OfEyes, OfBody, Referral):
    """A patient referred by a community pharmacy.

    Goes to the named provider, else to the service that the pathway and its reason ask for; the
    patient's GP practice, if it is known, gets a copy. The more urgent of what you ask for and what
    the pathway asks for counts.
    """

    pathway: Annotated[Line, AfterValidator(known_pathway), pathways_of("pharmacy")]
    """What the patient is referred on: an id of the catalogue (`GET /pathways`)."""


class PharmacyUpdate(OfPharmacy, Update):
    """What a community pharmacy tells the practice outside of a consultation.

    It goes to the registered practice, for the record. What is asked of the practice, by you or by
    what was measured, is a referral of its own that no routine queue delays.
    """

    practice: Organisation
    """The patient's registered GP practice, whose record it is for."""


class PharmacyOutcome(OfPharmacy, Outcome):
    """What a community pharmacy found and did for a patient who was referred to it.

    It goes to the registered practice and to who referred, on some pathways also to the patient's
    optometrist or dentist. It ends the referral that it answers, or leaves it in progress. Each
    thing that the practice is asked to do is a referral of its own.
    """

    practice: Organisation | None = None
    """The patient's registered GP practice, whose record it is for."""


REFERRALS: Final[Adapter] = Referrals(PharmacyReferral)
UPDATES: Final[Adapter] = Updates(PharmacyUpdate)
OUTCOMES: Final[Adapter] = Outcomes(PharmacyOutcome)
