"""A clinical message: a question, an answer, advice, information or a chase, to one other party."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, Field, WithJsonSchema

from adapters.pillars.who import Clinician, Who
from fhir_profiles import codes, identifiers
from fhir_profiles.blocks import Block, Finding, Organisation, TracedPatient, Urgency, rule
from fhir_profiles.values import DueDate, Flagged, Line, OdsCode, Text, refusal

KINDS: Final = "communication-kind"
QUESTION: Final = "question"


def _kind(code: str) -> str:
    if code not in codes.system(KINDS):
        known = ", ".join(codes.system(KINDS).displays)
        raise refusal("not-in-list", "This is no kind of message.", f"Send one of: {known}.")
    return code


def _id(text: str) -> str:
    found = identifiers.uuid(text)
    if found is None:
        raise refusal("not-an-id", "This is not an id.", "Send the `id` as you were given it.")
    return found


Id = Annotated[Line, AfterValidator(_id), WithJsonSchema({"type": "string", "format": "uuid"})]
"""An id that the broker gave."""


class To(Block):
    """Whom it is for."""

    ods: OdsCode = Field(examples=["RXX01"])
    """ODS code."""
    service: Line | None = Field(default=None, examples=["RXX01-SPA"])
    """The service, where it is one of several."""


class Clinical(Who):
    """A clinical message about a patient, a referral or another message.

    It goes to one other party. What it answers, and all that follows, is one thread
    (`GET /communications/{id}/thread`). A question has a deadline, which its answer meets.
    """

    pillar: ClassVar[str] = "communications"
    sender_field: ClassVar[str] = "sent_by"

    reference: Line = Field(examples=["2026-004713"])
    """Your own reference for this message: unique within your organisation, for ever."""
    sent_by: Organisation
    """Who says it: the organisation of your token."""
    clinician: Clinician
    """The clinician who says it."""
    consent: Flagged
    """Whether the patient agrees that this is told. If not, nothing is sent and nothing clinical is
    kept."""
    kind: Annotated[
        Line,
        AfterValidator(_kind),
        WithJsonSchema({"type": "string", "enum": list(codes.system(KINDS).displays)}),
    ] = Field(examples=["question"])
    """What it is: a question, an answer, advice, information, or a chase."""
    in_reply_to: Id | None = None
    """The message of a thread that it answers, by its id. It goes back to who said that, unless you
    name another party of the thread."""
    about: Id | None = None
    """The referral or message that it is about, by its id, of which you are a party. It goes to the
    other party, a chase to whose turn it is, unless you name one of its parties."""
    patient: TracedPatient | None = None
    """The patient. Leave it out where the message answers, or is about, something: it is known."""
    to: To | None = None
    """Whom it is for. Needed where it is about a patient alone."""
    subject: Line = Field(examples=["Dose of amlodipine"])
    """What it is about, in a few words."""
    text: Text = Field(examples=["Is the dose of amlodipine still 5 mg?"])
    """What is said."""
    urgency: Urgency = Field(default="routine", examples=["routine"])
    """How soon somebody must see it."""
    answer_by: DueDate | None = None
    """By which day a question is to be answered. Else its urgency says so."""

    @rule
    def _is_about_somebody(self, _: datetime) -> Iterator[Finding]:
        if self.in_reply_to is not None and self.about is not None:
            yield Finding(
                ("about",),
                "said-twice",
                "What it answers says already what it is about.",
                "Send only `in_reply_to`.",
            )
        if self.in_reply_to is not None or self.about is not None:
            return
        for field, given in (("patient", self.patient), ("to", self.to)):
            if given is None:
                yield Finding(
                    (field,),
                    "missing",
                    "It answers nothing and is about nothing that is known here.",
                    f"Send `{field}`; or `about`, the id of a referral or message.",
                )

    @rule
    def _only_a_question_is_answered(self, _: datetime) -> Iterator[Finding]:
        if self.answer_by is not None and self.kind != QUESTION:
            yield Finding(
                ("answer_by",),
                "not-a-question",
                "Only a question has a day for its answer.",
                f"Leave it out, or send `kind`: {QUESTION}.",
            )

    @rule
    def _an_answer_answers(self, _: datetime) -> Iterator[Finding]:
        if self.kind == "answer" and self.in_reply_to is None:
            yield Finding(
                ("in_reply_to",),
                "missing",
                "An answer answers a message.",
                "Send the id of the message that it answers.",
            )
