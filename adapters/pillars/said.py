"""What a pillar tells of a patient whom it has seen: the parts that every telling has in common.

An update adds what it is about, an outcome what was done and how the referral ended.
"""

from pydantic import Field

from adapters.pillars.parts import Pressed, Wound
from adapters.pillars.who import Who
from fhir_profiles.blocks import Allergy, Observation, Patient, TakenMedicine
from fhir_profiles.values import Flagged, Line, Text, When


class Said(Who):
    """What was seen and found, in the words of whoever tells it."""

    reference: Line = Field(examples=["2026-004712"])
    """Your own reference for this message: unique within your organisation, for ever."""
    patient: Patient
    """The patient."""
    consent: Flagged
    """Whether the patient agrees that this is told. If not, nothing is sent and nothing clinical is
    kept."""
    seen_at: When = Field(examples=["2026-11-20T10:30:00+00:00"])
    """When the patient was seen: a date, or a time with its offset."""
    clinical_summary: Text
    """What the readers should know, in your words."""
    findings: Text | None = None
    """What was found on examination."""
    blood_pressure: Pressed | None = None
    """A clinic blood pressure. One that is very high or low asks the practice to act."""
    acute_symptoms: Flagged | None = None
    """Whether there are acute symptoms with a very high pressure (headache, chest pain, vision)."""
    fainting_or_falls: Flagged | None = None
    """Whether the patient faints or falls, with a low pressure."""
    wound: Wound | None = None
    """A wound, and how it does."""
    observations: tuple[Observation, ...] = Field(default=(), max_length=100)
    """What was measured or seen."""
    medicines: tuple[TakenMedicine, ...] | None = Field(default=None, max_length=100)
    """Medicines that it is about, or that the patient takes."""
    allergies: tuple[Allergy, ...] | None = Field(default=None, max_length=50)
    """Allergies and intolerances."""
    information_for_patient: Text | None = None
    """What the patient was told."""
    additional_information: Text | None = None
    """Anything else that the readers should know."""
