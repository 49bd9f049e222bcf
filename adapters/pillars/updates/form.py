"""What a pillar tells the registered practice for the record, with or without an action asked."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Final

from pydantic import AfterValidator, Field, WithJsonSchema

from adapters.pillars.said import Said
from fhir_profiles import codes
from fhir_profiles.blocks import Block, Finding, Organisation, TracedPatient, Urgency, rule
from fhir_profiles.values import Line, Text, refusal

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


class Update(Said):
    """What all updates have in common; a pillar adds who tells."""

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
    action: Action | None = None
    """What the practice is asked to do, if anything. It makes a referral of its own, joined to this
    update, which no routine queue delays."""

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
