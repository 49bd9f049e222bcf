"""A hospital's letters: an outcome, a clinic letter or a discharge, in parts beside its text.

A discharge with changed medicines also asks the pharmacy that the patient names to reconcile them:
the discharge medicines service, a referral of its own whose loop the pharmacy closes.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import ClassVar, Final, Literal

from pydantic import Field

from adapters.pillars.outcomes.form import Outcome
from adapters.pillars.referrals.form import Referral
from fhir_profiles.blocks import ChangedMedicine, Finding, Organisation, rule
from fhir_profiles.values import Flagged, PastDate, Text

DISCHARGE: Final = "discharge"


class Letter(Outcome):
    """What all letters have in common; a pillar adds who writes."""

    refers_with: ClassVar[type[Referral]]
    """The form by which its pillar refers."""

    kind: Literal["outcome", "clinic-letter", "discharge"] = Field(examples=["discharge"])
    """What kind of letter it is."""
    letter: Text | None = None
    """The letter itself, as it is written, beside the parts."""
    admitted_on: PastDate | None = None
    """When the patient was admitted."""
    discharged_on: PastDate | None = None
    """When the patient was discharged. A discharge needs it."""
    pharmacy: Organisation | None = None
    """The pharmacy that the patient names. A discharge with medicines started, changed or stopped
    asks it to reconcile them, if the patient agrees."""
    consent_to_inform_pharmacy: Flagged | None = None
    """Whether the patient agrees that the pharmacy is told of the medicines."""

    @property
    def told(self) -> str:
        return self.kind

    @property
    def changed(self) -> tuple[ChangedMedicine, ...]:
        """The medicines that are not as they were before."""
        return tuple(one for one in self.medicines or () if one.change != "unchanged")

    @property
    def asks_the_pharmacy(self) -> bool:
        """Whether a pharmacy is asked to reconcile the medicines."""
        agrees = self.consent_to_inform_pharmacy is True and self.pharmacy is not None
        return self.kind == DISCHARGE and bool(self.changed) and agrees

    @property
    def why_no_pharmacy(self) -> str | None:
        """Why no pharmacy is told of a discharge, in a sentence; None where one is."""
        if self.kind != DISCHARGE or self.asks_the_pharmacy:
            return None
        if not self.changed:
            nothing = "No pharmacy was told: no medicine was started, changed or stopped."
            return nothing if self.pharmacy is not None else None
        if self.pharmacy is None:
            why = "none is named"
        elif self.consent_to_inform_pharmacy is None:
            why = "it is not said whether the patient agrees"
        else:
            why = "the patient does not agree"
        return f"No pharmacy was told of the changed medicines: {why}."

    @rule
    def _tells_a_pharmacy_of_a_discharge_only(self, _: datetime) -> Iterator[Finding]:
        for field in ("pharmacy", "consent_to_inform_pharmacy", "discharged_on"):
            if self.kind != DISCHARGE and getattr(self, field) is not None:
                yield Finding(
                    (field,), "only-of-a-discharge", "Only a discharge has this.", "Leave it out."
                )

    @rule
    def _says_when_the_patient_left(self, _: datetime) -> Iterator[Finding]:
        if self.kind == DISCHARGE and self.discharged_on is None:
            yield Finding(
                ("discharged_on",),
                "missing",
                "A discharge does not say when.",
                "Send `discharged_on`.",
            )

    @rule
    def _left_after_coming(self, _: datetime) -> Iterator[Finding]:
        came, left = self.admitted_on, self.discharged_on
        if came is not None and left is not None and left < came:
            yield Finding(
                ("discharged_on",), "before", "The patient left before coming.", "Check both dates."
            )
