"""What every pillar sends when it refers a patient, and the parts that only some need.

A pillar's own form (its module here) is made of these: who refers, in its own words, and those
parts that its pathways ask for. Which of them a referral must hold says the catalogue
(`minimum` of the pathway's entry). What is left out is not said; nothing is assumed.
"""

from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, WithJsonSchema

from adapters.pillars.referrals.request import Meant, Request
from fhir_profiles import codes, glance
from fhir_profiles.blocks import URGENCIES, Block, Fault, Finding, Observation, rule
from fhir_profiles.pathways.catalogue import ITEMS, catalogue
from fhir_profiles.pathways.entry import Entry
from fhir_profiles.pathways.judgement import Judgement, judge
from fhir_profiles.pathways.parts import words
from fhir_profiles.values import Flagged, Line, SnomedCode, Text, When, refusal

# Where a referral holds an item of the catalogue's `minimum`.
FIELDS: Final[Mapping[str, str]] = {
    **{item: item.replace("-", "_") for item in codes.system(ITEMS).displays},
    "reason": "reason.code",
    "telephone": "patient.telephone",
}


class Reason(Block):
    """Why the patient is referred: a code of the pathway's own reasons."""

    code: Line = Field(examples=["cataract"])
    """One of the pathway's reasons (`GET /pathways/{pathway}`). It may make the referral more
    urgent, and decide to which of the pathway's services it goes."""
    snomed: SnomedCode | None = None
    """SNOMED CT concept of the condition, as text, if you have one."""
    text: Line | None = Field(default=None, examples=["Glare at night; reading is hard"])
    """The condition in your words."""


def known_pathway(code: str) -> str:
    if code not in catalogue().entries:
        raise refusal(
            "unknown-pathway",
            "The catalogue has no such pathway.",
            "GET /pathways lists them all, and those that you may send.",
        )
    return code


def may_act(practice: str | None, sender: str | None, provider: str | None) -> bool:
    """Whether the patient's practice can be who acts: it is known, does not refer the patient
    itself, and nobody else is named."""
    return practice is not None and practice != sender and provider in {None, practice}


class Referral(Request):
    """A referral on a pathway of the catalogue, in the form that all pillars share."""

    pathway: Annotated[Line, AfterValidator(known_pathway)] = Field(examples=["specialty-referral"])
    """What the patient is referred on: an id of the catalogue (`GET /pathways`)."""
    reason: Reason
    """Why."""
    assessed_at: When = Field(examples=["2026-11-20T10:30:00+00:00"])
    """When the patient was assessed: a date, or a time with its offset. The clocks start here."""
    red_flags: tuple[Line, ...] = Field(default=(), max_length=20)
    """Red flags of the pathway that the patient has, by code. Each makes the referral same-day at
    least, and the answer says what must not wait for it."""
    findings: Text | None = None
    """What was found on examination."""
    observations: tuple[Observation, ...] = Field(default=(), max_length=100)
    """What was measured or seen."""
    question: Text | None = None
    """What is asked of the receiver."""
    may_convert: Flagged | None = None
    """Of a request for advice: whether its receiver may make a referral of it without asking you
    again."""
    patient_informed: Flagged | None = None
    """Whether the patient knows what is suspected."""

    @classmethod
    def may_send(cls, entry: Entry) -> bool:
        """Whether the catalogue lets this pillar refer on a pathway."""
        return cls.pillar in entry.senders

    # -- what the catalogue makes of it ----------------------------------------------------------

    def entry(self) -> Entry:
        """Return what the catalogue says of its pathway."""
        return catalogue().entries[self.pathway]

    @property
    def happened(self) -> date | datetime:
        return self.assessed_at

    @property
    def reason_code(self) -> str:
        return self.reason.code

    def is_at_risk(self, now: datetime) -> bool:
        return bool(self.red_flags) or super().is_at_risk(now)

    @property
    def meant(self) -> Meant:
        return _meant(self.judgement)

    @property
    def judgement(self) -> Judgement:
        """How soon and to whom, by the catalogue."""
        practice, provider = self.practice, self.provider
        return judge(
            self.entry(),
            reason=self.reason.code,
            asked=URGENCIES[self.urgency],
            red_flags=self.red_flags,
            practice_may_act=may_act(
                practice.ods if practice is not None else None,
                self.organisation.ods,
                provider.ods if provider is not None else None,
            ),
        )

    def warnings(self, now: datetime) -> Iterator[Fault]:
        judgement = self.judgement
        if judgement.urgency != judgement.asked:
            yield Fault(
                "urgency",
                "urgency-raised",
                f"Asked for as {words(judgement.asked)}; goes as {words(judgement.urgency)} by "
                f"the rule {judgement.rule}.",
                "Nothing to do; both urgencies are on the message.",
            )

    @classmethod
    def glance(cls, raw: Mapping[str, Any]) -> Meant | None:
        entry = catalogue().entries.get(glance.word(raw.get("pathway")))
        if entry is None:
            return None
        flags = raw.get("red_flags")
        listed = flags if isinstance(flags, list | tuple) else ()
        judgement = judge(
            entry,
            reason=glance.word(glance.block(raw.get("reason")).get("code")),
            asked=glance.urgency(raw.get("urgency")),
            red_flags=[glance.word(one) for one in listed],
            practice_may_act=may_act(
                glance.ods(raw.get("practice")),
                glance.ods(raw.get(cls.sender_field)),
                glance.ods(raw.get("provider")),
            ),
        )
        return _meant(judgement)

    def holds(self, item: str) -> bool:
        """Whether it says anything of an item of the catalogue's `minimum`."""
        found: Any = self
        for name in FIELDS[item].split("."):
            found = getattr(found, name, None)
        return found is not None

    # -- rules -----------------------------------------------------------------------------------

    @rule
    def _may_be_sent(self, _: datetime) -> Iterator[Finding]:
        if not self.may_send(self.entry()):
            yield Finding(
                ("pathway",),
                "not-a-sender",
                f"{self.entry().name} is not for {self.pillar.replace('-', ' ')} to refer to.",
                "GET /pathways says which pathways you may send.",
            )

    @rule
    def _may_be_converted(self, _: datetime) -> Iterator[Finding]:
        if self.may_convert and not self.entry().becomes_referral:
            yield Finding(
                ("may_convert",),
                "not-for-advice",
                f"{self.entry().name} is a referral already.",
                "Leave it out.",
            )

    @rule
    def _has_its_reason(self, _: datetime) -> Iterator[Finding]:
        if self.entry().reason(self.reason.code) is None:
            known = ", ".join(one.code for one in self.entry().reasons)
            yield Finding(
                ("reason", "code"),
                "not-in-list",
                f"This is not a reason of the pathway {self.pathway}.",
                f"Send one of: {known}.",
            )

    @rule
    def _has_its_red_flags(self, _: datetime) -> Iterator[Finding]:
        known = [one.code for one in self.entry().red_flags]
        for at, code in enumerate(self.red_flags):
            if code not in known:
                yield Finding(
                    ("red_flags", at),
                    "not-in-list",
                    f"This is not a red flag of the pathway {self.pathway}.",
                    f"Send one of: {', '.join(known)}." if known else "Leave it out: it has none.",
                )

    @rule
    def _holds_what_it_must(self, _: datetime) -> Iterator[Finding]:
        for item in self.entry().minimum:
            if not self.holds(item):
                display = codes.system(ITEMS).display(item)
                yield Finding(
                    tuple(FIELDS[item].split(".")),
                    "missing",
                    f"{self.entry().name} cannot be decided on without this: {display}.",
                    f"Send `{FIELDS[item]}`.",
                )


def _meant(judgement: Judgement) -> Meant:
    return Meant(judgement, "reason.code", judgement.subspecialty, judgement.entry.name)


def pathways_of(pillar: str) -> WithJsonSchema:
    """Return the schema of `pathway` at a pillar's door: those that it may send."""
    ids = [one.id for one in catalogue().entries.values() if pillar in one.senders]
    return WithJsonSchema({"type": "string", "enum": ids})
