"""What a receiver found and did, and how the referral ended: to who referred and to the practice.

A pillar's own form adds who tells it. `letter` has what only hospitals say.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from pydantic import AfterValidator, Field, WithJsonSchema

from adapters.pillars.outcomes.actions import Action
from adapters.pillars.referrals.form import known_pathway
from adapters.pillars.said import Said
from fhir_profiles import codes
from fhir_profiles.blocks import (
    AnyPatient,
    Block,
    ChangedMedicine,
    Diagnosis,
    Finding,
    Organisation,
    rule,
)
from fhir_profiles.pathways.catalogue import OUTCOMES, catalogue
from fhir_profiles.pathways.parts import Reader
from fhir_profiles.values import Flagged, Line, OdsCode, Text, refusal

KINDS: Final = "outcome-kind"
# Who else looks after the patient: the field that names them, and the pillar that they are of.
CARERS: Final[tuple[tuple[Reader, str], ...]] = (
    ("optometrist", "optometry"),
    ("dentist", "dentistry"),
)


def _known_outcome(code: str) -> str:
    if code not in codes.system(OUTCOMES):
        raise refusal(
            "not-in-list",
            "This is no outcome of a referral.",
            "GET /pathways/{pathway} lists how a referral may end.",
        )
    return code


Pathway = Annotated[
    Line,
    AfterValidator(known_pathway),
    WithJsonSchema({"type": "string", "enum": list(catalogue().entries)}),
]
"""An id of the catalogue (`GET /pathways`)."""
Ended = Annotated[
    Line,
    AfterValidator(_known_outcome),
    WithJsonSchema({"type": "string", "enum": list(codes.system(OUTCOMES).displays)}),
]
"""A code of how referrals end."""


class Answered(Block):
    """The referral that this answers: by its id, or by the reference that its sender gave it."""

    id: UUID | None = None
    """The id of the referral or of its message, as your inbox has it."""
    sender: OdsCode | None = Field(default=None, examples=["TPX01"])
    """ODS code of who sent it."""
    reference: Line | None = Field(default=None, examples=["2026-004711"])
    """Its sender's own reference of it."""

    @rule
    def _names_it_in_one_way(self, _: datetime) -> Iterator[Finding]:
        by_reference = self.sender is not None and self.reference is not None
        if self.id is None and not by_reference:
            yield Finding(
                ("id",), "missing", "Nothing names it.", "Send `id`, or `sender` and `reference`."
            )
        elif self.id is not None and (self.sender is not None or self.reference is not None):
            yield Finding(("id",), "said-twice", "It is named twice.", "Send only `id`.")


class Outcome(Said):
    """What all outcomes have in common; a pillar adds who tells."""

    pathway: Pathway | None = None
    """What the patient was referred on, or would have been."""
    outcome: Ended | None = None
    """How it ended, or stands: one of the pathway's (`GET /pathways/{pathway}`)."""
    patient: AnyPatient
    """The patient. Without an NHS number, name, birth date, sex, address, postcode and telephone
    are needed, and the message says that the identity is not verified."""
    referral: Answered | None = None
    """The referral that this answers, if it came to you by the broker: who sent it gets this."""
    ends_referral: Flagged | None = None
    """Whether this ends the referral. Left out, the outcome decides; without one, or where the
    patient stays in your care (`under-follow-up`, `listed-for-surgery`), it goes on."""
    referrer: Organisation | None = None
    """Who referred the patient, if the referral did not come to you by the broker."""
    optometrist: Organisation | None = None
    """The patient's own optometrist, on the pathways whose outcomes go there."""
    dentist: Organisation | None = None
    """The patient's own dentist, on the pathways whose outcomes go there."""
    diagnoses: tuple[Diagnosis, ...] = Field(default=(), max_length=50)
    """What the patient has, or is suspected to have."""
    treatment: Text | None = Field(default=None, examples=["Phacoemulsification, right eye."])
    """What was done."""
    results: Text | None = None
    """What was examined, and what it showed."""
    medicines: tuple[ChangedMedicine, ...] | None = Field(default=None, max_length=100)
    """Medicines: those that were started, changed or stopped, and those that go on."""
    actions: tuple[Action, ...] = Field(default=(), max_length=20)
    """What is to be done, by whom, how soon. Each that the practice is asked is a referral of its
    own, joined to this, which no routine queue delays."""
    follow_up: Text | None = None
    """What happens next with you."""

    @property
    def told(self) -> str:
        """What it is: a code of the kinds."""
        return "outcome"

    @property
    def ends(self) -> bool:
        """Whether it ends the referral that it answers. What nobody says leaves it open: it stays
        on the work-list, where an end that was not meant would take it away unseen."""
        if self.ends_referral is not None:
            return self.ends_referral
        properties = codes.system(OUTCOMES).properties.get(self.outcome or "", {})
        return self.outcome is not None and "leaves-open" not in properties

    @property
    def hands_back(self) -> bool:
        """Whether who referred is to act on it: their referral does not end before they do."""
        return "hands-back" in codes.system(OUTCOMES).properties.get(self.outcome or "", {})

    @property
    def diagnosis(self) -> str:
        """What a patient with a suspected cancer was told, where the outcome is that."""
        properties = codes.system(OUTCOMES).properties.get(self.outcome or "", {})
        return self.outcome or "" if "is-diagnosis" in properties else ""

    @property
    def keeper(self) -> Organisation | None:
        """The registered practice, where that is somebody else, who keeps the patient's record."""
        practice = self.practice
        own = practice is None or practice.ods == self.organisation.ods
        return None if own else practice

    @property
    def readers(self) -> tuple[Reader, ...]:
        """Who gets it, by the catalogue."""
        return catalogue().outcome_to(self.pathway or "")

    # -- rules -----------------------------------------------------------------------------------

    @rule
    def _ends_as_its_pathway_may(self, _: datetime) -> Iterator[Finding]:
        if self.pathway is None or self.outcome is None:
            return
        known = catalogue().entries[self.pathway].outcomes
        if self.outcome not in known:
            yield Finding(
                ("outcome",),
                "not-in-list",
                f"This is not an outcome of the pathway {self.pathway}.",
                f"Send one of: {', '.join(known)}.",
            )

    @rule
    def _says_what_it_is_an_outcome_of(self, _: datetime) -> Iterator[Finding]:
        is_outcome = self.outcome is not None or self.told == "outcome"
        if self.pathway is None and (is_outcome or self.referral is not None):
            yield _missing("pathway", "It is not said what the patient was referred on.")

    @rule
    def _says_how_it_ended(self, _: datetime) -> Iterator[Finding]:
        if self.outcome is None and self.told == "outcome":
            yield _missing("outcome", "It is not said how it ended.")
        elif self.outcome is None and self.ends_referral and self.referral is not None:
            yield _missing("outcome", "It ends the referral, and it is not said how.")

    @rule
    def _has_a_referral_to_end(self, _: datetime) -> Iterator[Finding]:
        if self.ends_referral is not None and self.referral is None:
            yield Finding(
                ("ends_referral",), "no-referral", "No referral is named.", "Send `referral`."
            )

    @rule
    def _names_who_referred_once(self, _: datetime) -> Iterator[Finding]:
        if self.referral is not None and self.referrer is not None:
            yield Finding(
                ("referrer",),
                "said-twice",
                "Who sent the referral is known by it.",
                "Send `referral` or `referrer`, not both.",
            )

    @rule
    def _has_somebody_to_tell(self, _: datetime) -> Iterator[Finding]:
        if self.keeper is None and self.referral is None and self.referrer is None:
            yield Finding(
                ("practice",),
                "nobody-to-tell",
                "It names neither a practice other than yours nor who referred.",
                "Send `practice`, `referral` or `referrer`.",
            )

    @rule
    def _goes_to_whom_the_catalogue_says(self, _: datetime) -> Iterator[Finding]:
        for field, _pillar in CARERS:
            if getattr(self, field) is not None and field not in self.readers:
                yield Finding(
                    (field,),
                    "not-a-reader",
                    f"Outcomes on this pathway do not go to the patient's {field}.",
                    "Leave it out; `outcome_to` of GET /pathways/{pathway} says who gets it.",
                )

    @rule
    def _asks_whom_it_reaches(self, _: datetime) -> Iterator[Finding]:
        keeper = self.keeper
        for at, action in enumerate(self.actions):
            if action.whom == "practice" and keeper is None:
                yield Finding(
                    ("actions", at, "whom"),
                    "nobody-to-ask",
                    "No practice other than yours is named that could do this.",
                    "Send `practice`, or ask somebody else.",
                )
            elif action.whom == "referrer" and self.referral is None and self.referrer is None:
                yield Finding(
                    ("actions", at, "whom"),
                    "nobody-to-ask",
                    "It is not said who referred.",
                    "Send `referral` or `referrer`, or ask somebody else.",
                )

    @rule
    def _asks_each_thing_once(self, _: datetime) -> Iterator[Finding]:
        seen = set[str]()
        for at, action in enumerate(self.actions):
            if action.key in seen:
                yield Finding(
                    ("actions", at),
                    "said-twice",
                    "This is asked twice.",
                    "Send it once, or each with an `id` of its own.",
                )
            seen.add(action.key)


def _missing(field: str, detail: str) -> Finding:
    return Finding((field,), "missing", detail, f"Send `{field}`.")
