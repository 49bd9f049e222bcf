"""POST /pharmacy/consultations: a consultation in the words that a pharmacy system has.

Refused is only what is unsafe to file; what contradicts its pathway is a warning (see `rules`).
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field

from fhir_profiles.blocks import (
    Allergy,
    Block,
    Coded,
    Finding,
    Observation,
    Organisation,
    PersonName,
    Pharmacist,
    TracedPatient,
    rule,
)
from fhir_profiles.pathways.pharmacy import pharmacy
from fhir_profiles.values import (
    Flagged,
    GphcNumber,
    Line,
    Number,
    OdsCode,
    SnomedCode,
    Text,
    Unit,
    When,
)

Service = Literal[
    "uncomplicated-uti",
    "shingles",
    "impetigo",
    "infected-insect-bite",
    "acute-sore-throat",
    "acute-sinusitis",
    "acute-otitis-media",
    "minor-illness",
    "blood-pressure-check",
    "contraception-initiation",
    "contraception-ongoing",
    "contraception-emergency",
]
Outcome = Literal[
    "advice-only",
    "advice-and-sale",
    "supply",
    "no-supply",
    "onward-service",
    "gp-same-day",
    "gp-routine",
    "emergency",
]
Urgency = Literal["same-day", "urgent", "within-7-days", "routine"]
Exclusion = Literal[
    "catheter",
    "recurrent",
    "bullous",
    "immunosuppressed",
    "chronic",
    "human-or-animal-bite",
    "bite-abroad",
    "tick-bite",
    "scarlet-fever",
    "quinsy",
    "glandular-fever",
    "suspected-cancer",
    "hypertension-diagnosed",
    "other",
]
NoSupply = Literal[
    "not-indicated",
    "not-eligible",
    "raised-blood-pressure",
    "contraindicated",
    "allergy",
    "declined",
    "out-of-stock",
    "referred",
    "other",
]


Contraceptive = Literal["combined", "progestogen-only", "emergency"]


class Clinician(Block):
    """Who saw the patient."""

    name: PersonName
    """The clinician's name."""
    role: Literal["pharmacist", "pharmacy-technician", "pharmacy-assistant"] = "pharmacist"
    """What the clinician is."""
    gphc_number: GphcNumber | None = Field(default=None, examples=["2099001"])
    """GPhC registration number, 7 digits. An assistant has none."""
    responsible_pharmacist: Pharmacist | None = None
    """The responsible pharmacist, where the clinician is supervised."""

    @rule
    def _somebody_is_registered(self, _: datetime) -> Iterator[Finding]:
        if self.gphc_number is None and self.responsible_pharmacist is None:
            yield Finding(
                ("gphc_number",),
                "no-clinician",
                "No registered clinician stands for this consultation.",
                "Send the clinician's GPhC number; for a supervised assistant send the "
                "`responsible_pharmacist` with theirs.",
            )


class Source(Block):
    """Who sent the patient to the pharmacy."""

    kind: Literal[
        "self",
        "general-practice",
        "nhs-111",
        "urgent-care",
        "pharmacist",
        "sexual-health",
        "other",
    ] = Field(examples=["general-practice"])
    """Which way the patient came."""
    organisation: OdsCode | None = Field(default=None, examples=["G99001"])
    """ODS code of the referrer."""
    reference: Line | None = Field(default=None, examples=["REF-2026-10-0077"])
    """The referrer's own reference."""
    referred_at: When | None = Field(default=None, examples=["2026-10-01T11:40:00+01:00"])
    """When the referrer referred the patient."""
    referral: UUID | None = None
    """The referral that came to you by the broker, by its id or its message's: this ends it."""


class BloodPressure(Block):
    """One blood pressure: both numbers, in mmHg."""

    method: Literal[
        "clinic", "sitting", "standing", "lying", "baseline", "abpm-average", "self-measured"
    ] = Field(examples=["clinic"])
    """How it was taken. `abpm-average` is the average of an ambulatory measurement."""
    systolic: Number = Field(gt=0, lt=1000, examples=[142])
    """Systolic pressure."""
    diastolic: Number = Field(gt=0, lt=1000, examples=[91])
    """Diastolic pressure."""
    unit: Unit = Field(examples=["mm[Hg]"])
    """The unit of both numbers: mm[Hg] (or mmHg). A pressure without it cannot be filed safely."""
    taken_at: When | None = Field(default=None, examples=["2026-10-01T14:20:00+01:00"])
    """When it was taken, if not at the time of the consultation."""

    @rule
    def _is_in_mmhg(self, _: datetime) -> Iterator[Finding]:
        yield from _in_unit(self.unit, "mm[Hg]")


class Pulse(Block):
    """One pulse reading."""

    rate: Number | None = Field(default=None, gt=0, lt=1000, examples=[72])
    """Beats per minute."""
    unit: Unit | None = Field(default=None, examples=["{beats}/min"])
    """The unit of the rate: {beats}/min (or bpm). Required with a rate."""
    rhythm: Literal["regular", "irregular"] | None = Field(default=None, examples=["regular"])
    """Whether the pulse was regular."""
    taken_at: When | None = Field(default=None, examples=["2026-10-01T14:20:00+01:00"])
    """When it was taken, if not at the time of the consultation."""

    @rule
    def _is_per_minute(self, _: datetime) -> Iterator[Finding]:
        if self.rate is not None and self.unit is None:
            detail = "This rate has no unit; it cannot be filed safely."
            yield Finding(("unit",), "unit-missing", detail, "Send the unit: {beats}/min.")
        elif self.unit is not None:
            yield from _in_unit(self.unit, "{beats}/min")


def _in_unit(unit: str, expected: str) -> Iterator[Finding]:
    if unit != expected:
        detail = "This is not measured in this unit."
        yield Finding(("unit",), "unit-unfit", detail, f"Send it in {expected}.")


class Medicine(Block):
    """One medicine that was supplied or sold."""

    name: Line = Field(examples=["Nitrofurantoin 100mg modified-release capsules (Advanz Pharma)"])
    """The product's name, as dm+d has it."""
    code: SnomedCode | None = Field(default=None, examples=["41334211000001109"])
    """dm+d code of the actual product (AMP), as text."""
    level: Literal["AMP", "VMP"] = "AMP"
    """The dm+d level of the code: AMP, the actual product; VMP draws a warning."""
    quantity: Number | None = Field(default=None, gt=0, examples=[6])
    """How much was supplied."""
    quantity_unit: Unit | None = Field(default=None, examples=["capsule"])
    """What the quantity counts."""
    days: Number | None = Field(default=None, gt=0, examples=[3])
    """For how many days it lasts."""
    dose: Text | None = Field(default=None, examples=["One capsule twice a day for 3 days"])
    """Dose, as on the label."""
    patient_instruction: Text | None = Field(default=None, examples=["Take with food"])
    """What the patient was told about taking it."""
    supply_route: Literal[
        "patient-group-direction",
        "clinical-protocol",
        "over-the-counter",
        "emergency-supply",
        "minor-ailments-scheme",
        "prescription",
    ] = Field(examples=["patient-group-direction"])
    """Under what it was supplied."""
    pgd_version: Line | None = Field(default=None, examples=["Nitrofurantoin PGD 2.0"])
    """Title and version of the PGD or protocol."""
    supplied_at: When | None = Field(default=None, examples=["2026-10-01T14:30:00+01:00"])
    """When it was handed over, if not at the time of the consultation."""


class Onward(Block):
    """Where the patient was sent on to."""

    to: Line = Field(examples=["Leeds Sexual Health"])
    """The service, in words."""
    organisation: OdsCode | None = Field(default=None, examples=["RXX01"])
    """Its ODS code."""
    urgency: Urgency | None = Field(default=None, examples=["routine"])
    """How soon the patient is to be seen there."""
    details: Text | None = None
    """What else the practice should know of it."""


class Consultation(Block):
    """A consultation in a community pharmacy, for the patient's record."""

    reference: Line = Field(examples=["C-2026-10-01-0042"])
    """Your own reference for this consultation; unique within your organisation."""
    service: Service = Field(examples=["uncomplicated-uti"])
    """The service under which the patient was seen."""
    pathway_version: Line | None = Field(default=None, examples=["2.5"])
    """Version of the pathway document that the pharmacist worked from."""
    consent_to_inform_gp: Flagged
    """Whether the patient agrees that the registered practice is told. If false nothing is sent."""
    clinical_time: When = Field(examples=["2026-10-01T14:15:00+01:00"])
    """When the patient was seen."""
    mode: Literal["face-to-face", "telephone", "video", "home-visit"] = "face-to-face"
    """How the patient was seen."""
    source: Source | None = None
    """Who sent the patient."""
    pharmacy: Organisation
    """The pharmacy: the organisation of your token."""
    clinician: Clinician
    """Who saw the patient."""
    patient: TracedPatient
    """The patient, traced."""
    practice: Organisation
    """The practice where the patient is registered, as the trace (PDS) returned it."""
    presenting_complaint: Coded | None = None
    """What the patient came with."""
    clinical_summary: Text = Field(examples=["Dysuria and cloudy urine for 2 days, no loin pain."])
    """The clinician's summary of the consultation, as the practice should read it."""
    history: Text | None = None
    """Relevant history."""
    blood_pressures: tuple[BloodPressure, ...] = Field(default=(), max_length=50)
    """Blood pressures, all that were taken."""
    abpm_declined: Flagged | None = None
    """Whether the patient declined an ambulatory measurement."""
    pulse: Pulse | None = None
    """The pulse."""
    repeat_pulse: Pulse | None = None
    """The pulse taken again, 5 minutes or more after the first."""
    acute_symptoms: Flagged | None = None
    """Whether there were acute symptoms with a very high pressure: headache, chest pain,
    confusion, loss of vision, breathlessness."""
    fainting_or_falls: Flagged | None = None
    """Whether the patient tells of fainting or falls."""
    observations: tuple[Observation, ...] = Field(default=(), max_length=100)
    """Everything else that was measured or seen."""
    pregnancy: Literal["pregnant", "not-pregnant", "not-known"] | None = Field(
        default=None, examples=["not-pregnant"]
    )
    """Pregnancy status."""
    allergies: tuple[Allergy, ...] = Field(default=(), max_length=50)
    """Allergies and intolerances that the patient tells of."""
    no_known_allergies: Flagged | None = None
    """Whether the patient was asked and knows of no allergy."""
    red_flags: tuple[Text, ...] = Field(default=(), max_length=20, examples=[["Rigors"]])
    """Red flags that were found. Leave out if none."""
    gateway_met: Flagged | None = None
    """Whether the gateway of the clinical pathway was met."""
    exclusions: tuple[Exclusion, ...] = Field(default=(), max_length=20)
    """Exclusions of the pathway that were found. Leave out if none."""
    outcome: Outcome = Field(examples=["supply"])
    """How the consultation ended."""
    urgency: Urgency | None = Field(default=None, examples=["within-7-days"])
    """If you ask the practice to act: how soon. Never lowered."""
    medicines: tuple[Medicine, ...] = Field(default=(), max_length=20)
    """What was supplied or sold."""
    no_supply_reason: NoSupply | None = Field(default=None, examples=["not-indicated"])
    """Why nothing was supplied."""
    contraceptive: Contraceptive | None = Field(default=None, examples=["combined"])
    """Which kind of contraceptive it is about."""
    advice: Text | None = Field(default=None, examples=["Drink plenty; come back if worse."])
    """Information and advice given."""
    plan: Text | None = None
    """Plan, and what the practice is asked to do."""
    onward_referral: Onward | None = None
    """Where the patient was sent on to."""

    @rule
    def _supplied_something(self, _: datetime) -> Iterator[Finding]:
        if pharmacy().outcomes[self.outcome].needs_medicine and not self.medicines:
            yield Finding(
                ("medicines",),
                "supply-without-medicine",
                "The outcome is a supply, and no medicine is named.",
                "Send what was supplied, or another outcome.",
            )
