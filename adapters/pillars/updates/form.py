"""What a pillar tells the registered practice for the record, with or without an action asked."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Final

from pydantic import AfterValidator, Field, WithJsonSchema

from adapters.pillars.parts import Pressed, Wound
from adapters.pillars.who import Who
from fhir_profiles import codes
from fhir_profiles.blocks import (
    Allergy,
    Block,
    Finding,
    Observation,
    Organisation,
    TakenMedicine,
    TracedPatient,
    Urgency,
    rule,
)
from fhir_profiles.values import Flagged, Line, Text, When, refusal

TOPICS: Final = "update-topic"


def _topic(code: str) -> str:
    if code not in codes.system(TOPICS):
        known = ", ".join(codes.system(TOPICS).displays)
        raise refusal("not-in-list", "This is no topic of an update.", f"Send one of: {known}.")
    return code


class Action(Block):
    """What the practice is asked to do, and how soon."""

    what: Text = Field(examples=["Please review the dose of amlodipine."])
    """What is asked."""
    urgency: Urgency = Field(examples=["routine"])
    """How soon. What was measured may raise it, and never lowers it."""


class Update(Who):
    """What all updates have in common; a pillar adds who tells."""

    reference: Line = Field(examples=["2026-004712"])
    """Your own reference for this update: unique within your organisation, for ever."""
    topic: Annotated[
        Line,
        AfterValidator(_topic),
        WithJsonSchema({"type": "string", "enum": list(codes.system(TOPICS).displays)}),
    ] = Field(examples=["blood-pressure-reading"])
    """What it is about."""
    patient: TracedPatient
    """The patient. Without a traced NHS number nothing may be filed."""
    practice: Organisation
    """The patient's registered GP practice, whose record it is for."""
    consent: Flagged
    """Whether the patient agrees that the practice is told. If not, nothing is sent and nothing
    clinical is kept."""
    seen_at: When = Field(examples=["2026-11-20T10:30:00+00:00"])
    """When the patient was seen: a date, or a time with its offset."""
    clinical_summary: Text
    """What the practice should know, in your words."""
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
    action: Action | None = None
    """What the practice is asked to do, if anything. It makes a referral of its own, joined to this
    update, which no routine queue delays."""
    information_for_patient: Text | None = None
    """What the patient was told."""
    additional_information: Text | None = None
    """Anything else that the practice should know."""

    @rule
    def _says_what_it_is_about(self, _: datetime) -> Iterator[Finding]:
        for topic, field in (
            ("blood-pressure-reading", "blood_pressure"),
            ("wound-progress", "wound"),
            ("medication-side-effect", "medicines"),
        ):
            if self.topic == topic and not getattr(self, field):
                yield Finding(
                    (field,),
                    "missing",
                    f"An update on {codes.system(TOPICS).display(topic)[0].lower()}"
                    f"{codes.system(TOPICS).display(topic)[1:]} says nothing of it.",
                    f"Send `{field}`.",
                )
