"""Patients refer themselves, by a patient-facing service, on the pathways that allow it."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, Field, WithJsonSchema

from adapters.pillars.parts import OfEyes
from adapters.pillars.referrals.door import Referrals
from adapters.pillars.referrals.form import Referral, known_pathway
from broker.ports import Adapter
from fhir_profiles.blocks import Fault, Finding, Organisation, rule
from fhir_profiles.pathways.catalogue import catalogue
from fhir_profiles.pathways.entry import Entry
from fhir_profiles.values import Line

# What is shown to the patient, by where a red flag leads.
_AT_ONCE: Final[Mapping[str, str]] = {
    "999": "Call 999 now. This needs help at once, and nobody has been told of it.",
    "emergency-department": (
        "Go to A&E now, or call 999 if you cannot get there safely. Nobody has been told of this."
    ),
    "same-day-call": "Call NHS 111 now. This must be seen today, and nobody has been told of it.",
}
_PATHWAYS: Final = [one.id for one in catalogue().entries.values() if one.self_referral]


class SelfReferral(OfEyes, Referral):
    """A patient who refers themselves, by a patient-facing service.

    Goes to the named provider, else to the service that the pathway and its reason ask for; the
    patient's GP practice, if it is known, gets a copy. It says everywhere that no clinician has
    seen the patient. A red flag is refused with what to show the patient at once.
    """

    pillar: ClassVar[str] = "patients"
    sender_field: ClassVar[str] = "patient_service"

    pathway: Annotated[
        Line,
        AfterValidator(known_pathway),
        WithJsonSchema({"type": "string", "enum": _PATHWAYS}),
    ]
    """What the patient refers themselves on: an id of the catalogue (`GET /pathways`)."""
    patient_service: Organisation
    """The patient-facing service: the organisation of your token."""
    practice: Organisation | None = Field(default=None)
    """The patient's registered GP practice, if it is known. It gets a copy."""

    @classmethod
    def may_send(cls, entry: Entry) -> bool:
        return entry.self_referral

    def warnings(self, now: datetime) -> Iterator[Fault]:
        yield from super().warnings(now)
        yield Fault(
            "pathway",
            "not-seen-by-a-clinician",
            "The patient refers themselves: no clinician has verified what is said.",
            "Nothing to do; whoever reads it sees this.",
        )

    @rule
    def _is_no_emergency(self, _: datetime) -> Iterator[Finding]:
        for at, code in enumerate(self.red_flags):
            for flag in self.entry().red_flags:
                if flag.code == code:
                    yield Finding(
                        ("red_flags", at),
                        "emergency",
                        _AT_ONCE[flag.leads_to],
                        "Show this to the patient now.",
                    )


REFERRALS: Final[Adapter] = Referrals(SelfReferral, "/self-referrals")
