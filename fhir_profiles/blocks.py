"""The parts of a native body that all pillars share: people, places, what was found.

Each is a `Block` (see `rules`): validate with `context={"now": aware datetime}`; `to_problems`
turns what is raised into sentences in the sender's own words.
"""

from collections.abc import Iterator, Mapping
from datetime import date, datetime
from functools import cache
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BeforeValidator, Field

from fhir_profiles import codes, identifiers
from fhir_profiles.faults import Fault, to_problems
from fhir_profiles.pathways.parts import Level
from fhir_profiles.rules import Block, Finding, rule
from fhir_profiles.values import (
    BirthDate,
    Flagged,
    GphcNumber,
    Language,
    Line,
    NhsNumber,
    Number,
    OdsCode,
    Postcode,
    Sha256,
    SnomedCode,
    Text,
    Unit,
    UploadId,
    When,
    refusal,
)
from fhir_profiles.working_days import london

__all__ = [
    "URGENCIES",
    "Address",
    "Allergy",
    "AnyPatient",
    "Attachment",
    "Block",
    "ChangedMedicine",
    "Coded",
    "Diagnosis",
    "Fault",
    "Finding",
    "Guardian",
    "Observation",
    "Organisation",
    "Patient",
    "PersonName",
    "Pharmacist",
    "Provider",
    "TakenMedicine",
    "TracedPatient",
    "Urgency",
    "WithAttachments",
    "rule",
    "to_problems",
]

ADULT: Final = 18
"""From which age a patient is no child."""

# -- people and places ---------------------------------------------------------------------------

Sex = Literal["male", "female", "other", "unknown"]
NumberStatus = Literal["01", "02", "03", "04", "05", "06", "07", "08"]
Traced = Literal["01", "02"]
Contact = Literal[
    "letter",
    "visit",
    "telephone",
    "email",
    "textphone",
    "telephone-via-proxy",
    "sign-language",
    "no-telephone",
    "sms",
]
Ethnicity = Literal[
    "A", "B", "C", "D", "E", "F", "G", "H", "J", "K", "L", "M", "N", "P", "R", "S", "Z", "99"
]


Urgency = Literal["same-day", "urgent", "within-7-days", "routine"]
# The words of the native doors, each with the level that it stands for.
URGENCIES: Final[Mapping[Urgency, Level]] = {
    "same-day": "stat",
    "urgent": "urgent",
    "within-7-days": "asap",
    "routine": "routine",
}


class PersonName(Block):
    """A person's name, in its parts."""

    family: Line = Field(examples=["Okafor"])
    """Family name."""
    given: Line | None = Field(default=None, examples=["Adaeze"])
    """Given names, as they are written."""
    prefix: Line | None = Field(default=None, examples=["Ms"])
    """Title."""


class Address(Block):
    """Where the patient lives."""

    lines: tuple[Line, ...] = Field(default=(), max_length=6, examples=[["12 Canal Row", "Leeds"]])
    """House, street, town: one line each."""
    postcode: Postcode | None = Field(default=None, examples=["LS1 4AP"])
    """Postcode. ZZ99 3VZ stands for no fixed abode."""


class Guardian(Block):
    """Who speaks for the patient."""

    name: PersonName
    """The guardian's name."""
    relationship: Line = Field(examples=["mother"])
    """What the guardian is to the patient."""
    telephone: Line | None = Field(default=None, examples=["0113 496 0003"])
    """Where the guardian can be reached."""


class Organisation(Block):
    """An organisation, by its ODS code."""

    ods: OdsCode = Field(examples=["G99001"])
    """ODS code."""
    name: Line | None = Field(default=None, examples=["Riverside Medical Practice"])
    """Its name, as the sender knows it."""
    telephone: Line | None = Field(default=None, examples=["0113 496 0100"])
    """Its telephone number, as the sender knows it."""


class Provider(Block):
    """The provider that the referral is to go to, instead of the one that routing would find."""

    ods: OdsCode = Field(examples=["RXX01"])
    """ODS code of the provider."""
    service: Line | None = Field(default=None, examples=["RXX01-SPA"])
    """The service there, by its code in the directory, if it has several."""
    chosen_by_patient: Flagged = False
    """Whether the patient chose it."""


class Patient(Block):
    """The patient. Which parts are required depends on the pillar."""

    name: PersonName
    """The patient's name."""
    birth_date: BirthDate = Field(examples=["1984-02-29"])
    """Date of birth."""
    sex: Sex | None = Field(default=None, examples=["female"])
    """Sex, as the patient's record has it."""
    nhs_number: NhsNumber | None = Field(default=None, examples=["9990000018"])
    """NHS number: 10 digits, spaces and hyphens allowed."""
    nhs_number_status: NumberStatus | None = Field(default=None, examples=["01"])
    """How far the number was verified: 01 present and verified, 02 present but not traced,
    03 trace required … 08 trace postponed (UK Core, England)."""
    address: Address | None = None
    """Where the patient lives."""
    telephone: Line | None = Field(default=None, examples=["07700 900123"])
    """Where the patient can be reached."""
    preferred_contact: Contact | None = Field(default=None, examples=["telephone"])
    """How the patient prefers to be contacted."""
    interpreter_required: Flagged | None = None
    """Whether the patient needs an interpreter."""
    language: Language | None = Field(default=None, examples=["pl"])
    """The patient's language, as a BCP 47 tag."""
    needs: tuple[Text, ...] = Field(default=(), max_length=20, examples=[["Large print"]])
    """Other needs: access, communication, carers."""
    flags: tuple[Text, ...] = Field(default=(), max_length=20, examples=[["Lives alone"]])
    """What anybody who meets the patient should know beforehand."""
    guardian: Guardian | None = None
    """Who speaks for the patient, where somebody does."""
    safeguarding: Text | None = None
    """A safeguarding concern, in the clinician's words."""
    sensitive: Flagged = False
    """Whether the patient's record is marked as sensitive."""
    ethnicity: Ethnicity | None = Field(default=None, examples=["A"])
    """Ethnic category, as the NHS Data Dictionary codes it (99: not known)."""

    @property
    def verified(self) -> bool:
        """Whether the NHS number was traced and verified (status 01)."""
        return self.nhs_number is not None and self.nhs_number_status == "01"

    def is_at_risk(self, now: datetime) -> bool:
        """Whether the patient is a child at this time, or somebody worries about their safety."""
        return self.safeguarding is not None or self.age(now) < ADULT

    def age(self, at: date | datetime) -> int:
        """Return the patient's age in whole years, as London counts."""
        born = self.birth_date
        today = london(at).date() if isinstance(at, datetime) else at
        return today.year - born.year - ((today.month, today.day) < (born.month, born.day))

    @property
    def postcode(self) -> str | None:
        """The postcode, if it has the shape of a British one."""
        if self.address is None or self.address.postcode is None:
            return None
        return identifiers.postcode(self.address.postcode)

    def warnings(self, prefix: str = "patient") -> Iterator[Fault]:
        """Yield what is doubtful about the patient's identity; codes of the system `warning`."""
        if self.nhs_number is None or self.nhs_number_status not in {"01", "02"}:
            yield Fault(
                f"{prefix}.nhs_number",
                "identity-not-verified",
                "Identity not verified: there is no traced NHS number.",
                "The receiver matches the patient by name, birth date and address.",
            )
        elif self.nhs_number_status == "02":
            yield Fault(
                f"{prefix}.nhs_number_status",
                "nhs-number-not-traced",
                "The NHS number is present but not traced (02).",
                "Trace the patient (PDS) before the next message.",
            )
        if self.address and self.address.postcode and self.postcode is None:
            yield Fault(
                f"{prefix}.address.postcode",
                "postcode-not-recognised",
                "This postcode does not have the shape of a British one.",
                "Correct it at the next contact.",
            )


def _traced(status: Any) -> Any:
    """Refuse a status that is known and not safe to file under, in its own words."""
    if status in get_args(NumberStatus) and status not in get_args(Traced):
        words = codes.system("nhs-number-verification-status").display(status)
        raise refusal(
            "not-traced",
            f"Status {status} ({words}) is not safe to file under.",
            "Trace the patient first (PDS), then send the number with status 01.",
        )
    return status


class TracedPatient(Patient):
    """A patient whose NHS number was traced: without one nothing may be filed."""

    nhs_number: NhsNumber = Field(examples=["9990000018"])
    """The NHS number that the trace returned. Trace the patient first (PDS)."""
    nhs_number_status: Annotated[Traced, BeforeValidator(_traced)] = Field(examples=["01"])
    """01 present and verified, or 02 present but not traced (draws a warning). Anything else is
    refused: trace the patient first (PDS)."""


class AnyPatient(Patient):
    """A patient who may have no NHS number; then who it is must be plain from all the rest."""

    @rule
    def _is_somebody(self, _: datetime) -> Iterator[Finding]:
        if self.nhs_number is not None:
            return
        address = self.address or Address.model_construct()
        for where, given in (
            (("sex",), self.sex),
            (("address", "lines"), address.lines),
            (("address", "postcode"), address.postcode and identifiers.postcode(address.postcode)),
            (("telephone",), self.telephone),
        ):
            if not given:
                yield Finding(
                    where,
                    "needed-without-nhs-number",
                    f"Without an NHS number, `{where[-1]}` is needed to know who the patient is.",
                    f"Send `{where[-1]}`, or the NHS number.",
                )


class Attachment(Block):
    """An image or document that you uploaded (`POST /attachments`), which goes with the message."""

    id: UploadId = Field(examples=["01932f6e-5b1c-7d2e-9f3a-4b5c6d7e8f90"])
    """The id that the upload was answered with."""
    sha256: Sha256 = Field(
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"]
    )
    """SHA-256 of the file, in hexadecimal."""
    title: Line = Field(examples=["OCT of the right macula"])
    """What to call it."""
    dated: When | None = Field(default=None, examples=["2026-11-02"])
    """When the image was taken or the document written."""
    shows: Line | None = Field(default=None, examples=["Subretinal fluid at the fovea"])
    """What it shows."""


class WithAttachments(Block):
    """The part of a form that names attachments."""

    attachments: tuple[Attachment, ...] = Field(default=(), max_length=20)
    """Images and documents that go with it; each must be there, and be what its SHA-256 says."""

    @rule
    def _names_each_once(self, _: datetime) -> Iterator[Finding]:
        seen: set[str] = set()
        for at, one in enumerate(self.attachments):
            if one.id in seen:
                yield Finding(
                    ("attachments", at, "id"), "repeated", "It is named above.", "Name it once."
                )
            seen.add(one.id)


class Pharmacist(Block):
    """A registered pharmacist."""

    name: PersonName
    """The pharmacist's name."""
    gphc_number: GphcNumber = Field(examples=["2099001"])
    """GPhC registration number, 7 digits."""


# -- what was found ------------------------------------------------------------------------------


class Coded(Block):
    """Words, with a SNOMED CT code beside them where there is one."""

    text: Line = Field(examples=["Sore throat"])
    """The clinician's words."""
    code: SnomedCode | None = Field(default=None, examples=["363746003"])
    """SNOMED CT concept, as text."""


class Allergy(Block):
    """An allergy or intolerance that the patient tells of."""

    substance: Coded
    """What the patient does not tolerate."""
    reaction: Line | None = Field(default=None, examples=["Rash"])
    """What happened."""


class TakenMedicine(Block):
    """A medicine that the patient takes."""

    name: Line = Field(examples=["Tamsulosin 400 microgram capsules"])
    """The medicine, as the patient or the label names it."""
    dmd_code: SnomedCode | None = None
    """Its dm+d code, as text, if it is known."""
    dose: Line | None = Field(default=None, examples=["One in the morning"])
    """How the patient takes it."""


class ChangedMedicine(TakenMedicine):
    """A medicine, and what was done about it."""

    change: Literal["started", "changed", "stopped", "unchanged"] = Field(examples=["started"])
    """What was done about it."""
    why: Line | None = Field(default=None, examples=["Blood pressure too low"])
    """Why."""

    @property
    def in_words(self) -> str:
        """The change as a person reads it: `Started: …, one in the morning (why)`."""
        dose = f", {self.dose}" if self.dose else ""
        return (
            f"{self.change.capitalize()}: {self.name}{dose}{f' ({self.why})' if self.why else ''}"
        )

    @rule
    def _says_why_it_ended(self, _: datetime) -> Iterator[Finding]:
        if self.change in {"changed", "stopped"} and self.why is None:
            yield Finding(
                ("why",),
                "missing",
                f"It is not said why this medicine was {self.change}.",
                "Send `why`: whoever prescribes next must know.",
            )
        if self.change in {"started", "changed"} and self.dose is None:
            yield Finding(
                ("dose",),
                "missing",
                f"It is not said how the patient takes what was {self.change}.",
                "Send `dose`.",
            )


class Diagnosis(Coded):
    """A diagnosis: the clinician's words, with a SNOMED CT code beside them where there is one."""

    suspected: Flagged = False
    """Whether it is only suspected."""


ObservationKind = Literal[
    "temperature",
    "pulse-rate",
    "height",
    "self-reported-height",
    "weight",
    "self-reported-weight",
    "bmi",
    "other",
]


class Observation(Block):
    """One thing measured or seen: a number with its unit, or a finding in words."""

    kind: ObservationKind = Field(examples=["temperature"])
    """What was observed; `other` with a `name`."""
    name: Coded | None = None
    """What was observed, if `kind` is `other`."""
    value: Number | None = Field(default=None, examples=[37.4])
    """The number. Its digits are kept: 1.50 stays 1.50."""
    unit: Unit | None = Field(default=None, examples=["Cel"])
    """The number's unit: UCUM (mm[Hg], Cel, kg, cm, {beats}/min) or its usual spelling."""
    finding: Line | None = Field(default=None, examples=["Positive"])
    """The finding, where there is no number."""
    taken_at: When | None = Field(default=None, examples=["2026-10-01T14:20:00+01:00"])
    """When it was observed, if not at the time of the consultation."""

    @rule
    def _says_what(self, _: datetime) -> Iterator[Finding]:
        if self.kind == "other" and self.name is None:
            yield Finding(
                ("name",),
                "missing",
                "An observation of kind `other` has no `name`.",
                "Say what was observed.",
            )

    @rule
    def _has_one_result(self, _: datetime) -> Iterator[Finding]:
        if (self.value is None) == (self.finding is None):
            yield Finding(
                ("value",),
                "no-one-result",
                "An observation needs either a number (`value`) or words (`finding`).",
                "Send exactly one of the two.",
            )

    @rule
    def _has_its_unit(self, _: datetime) -> Iterator[Finding]:
        if self.value is None:
            return
        if self.unit is None:
            yield Finding(
                ("unit",),
                "unit-missing",
                "This observation has a number and no unit; it cannot be filed safely.",
                "Send the unit in which it was measured.",
            )
        elif self.kind != "other" and self.unit not in _units(self.kind):
            yield Finding(
                ("unit",),
                "unit-unfit",
                f"`{self.kind}` is not measured in this unit.",
                f"Send it in {' or '.join(_units(self.kind))}.",
            )


@cache
def _units(kind: str) -> tuple[str, ...]:
    return tuple(codes.system("observation-kind").properties[kind]["units"].split(" "))
