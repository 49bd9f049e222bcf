"""A referral after a sight test, in an optometrist's own words, with every problem told at once.

The fields follow item 23 of the first issue and section 6 of the reference pharmacy-mesh-pds.md
(the data set of EeRS and the minimum set proposed there). What is left out is not said; nothing is
assumed. Numbers keep their digits. The rules themselves are `fhir_profiles.eye`; here they meet
one request, or a body that is not taken.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from typing import Annotated, Any, ClassVar, Final, Literal

from fhir.resources.R4B.codeableconcept import CodeableConcept
from pydantic import AfterValidator, Field, WithJsonSchema

from adapters.pillars.optometry.who import OfOptometry
from adapters.pillars.referrals.request import Meant, Request
from adapters.pillars.who import Speaker
from fhir_profiles import codes, glance, make, resources
from fhir_profiles.blocks import URGENCIES, Block, Fault, Finding, rule
from fhir_profiles.eye import Judgement, Reading, Tonometer, conditions, judge, of_snomed
from fhir_profiles.values import (
    Flagged,
    GocNumber,
    Line,
    Number,
    PastDate,
    SnomedCode,
    Text,
    When,
    refusal,
)
from fhir_profiles.working_days import london

# Confirmed by the project's references (UK Core value sets and code systems).
_OPTOMETRIST: Final = make.CodeableConcept(
    coding=[
        resources.coding(codes.SNOMED, "28229004", "Optometrist"),
        resources.coding(codes.JOB_ROLE, "R1280", "Optometrist"),
    ]
)

Side = Literal["right", "left"]
SIDES: Final[tuple[Side, ...]] = ("right", "left")


def _member_of(system: str, todo: str) -> Callable[[str], str]:
    def check(code: str) -> str:
        if code not in codes.system(system):
            raise refusal("not-in-list", f"This is not a code of the system {system}.", todo)
        return code

    return check


def _listed(system: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "enum": list(codes.system(system).displays)})


ConditionCode = Annotated[
    str,
    AfterValidator(
        _member_of("eye-condition", "Send one of its codes, or a SNOMED CT concept as `snomed`.")
    ),
    _listed("eye-condition"),
]
Subspecialty = Annotated[
    str,
    AfterValidator(
        _member_of("eye-subspecialty", "Send one of its codes, or leave the field out.")
    ),
    _listed("eye-subspecialty"),
]
GpAction = Annotated[
    str,
    AfterValidator(_member_of("eye-gp-action", "Send one of its codes, or leave the field out.")),
    _listed("eye-gp-action"),
]
Dioptres = Annotated[Number, Field(ge=-60, le=60)]
Prism = Annotated[Number, Field(ge=0, le=60)]


class Condition(Block):
    """What the referral is about: a code of our CodeSystem eye-condition, or of SNOMED CT."""

    code: ConditionCode | None = Field(default=None, examples=["suspected-wet-amd"])
    """Our own code. Its row in the table of eye conditions gives urgency and receiver."""
    snomed: SnomedCode | None = Field(default=None, examples=["4740000"])
    """SNOMED CT concept, as text. One that has no row in the table is kept and warned of."""
    text: Line | None = Field(default=None, examples=["New distortion, fluid on OCT"])
    """The condition in the performer's words."""

    @property
    def known(self) -> str | None:
        """Our own code, given or found by the SNOMED CT concept."""
        if self.code is not None or self.snomed is None:
            return self.code
        return of_snomed(self.snomed)

    @rule
    def _is_coded(self, _: datetime) -> Iterator[Finding]:
        if self.code is None and self.snomed is None:
            yield Finding(
                ("code",),
                "missing",
                "The condition has no code.",
                "Send `code` (our list; `other-eye-condition` if nothing fits) or `snomed`.",
            )

    @rule
    def _codes_agree(self, _: datetime) -> Iterator[Finding]:
        if self.code is None or self.snomed is None:
            return
        meant = of_snomed(self.snomed)
        if meant is not None and meant != self.code:
            yield Finding(
                ("snomed",),
                "codes-differ",
                f"This SNOMED CT concept is our {meant}, and `code` says something else.",
                "Send the two for the same condition, or one of them.",
            )


class PrismCorrection(Block):
    """A prism, by the direction of its base, in prism dioptres."""

    base_in: Prism | None = Field(default=None, examples=[1.25])
    """Base in."""
    base_out: Prism | None = None
    """Base out."""
    base_up: Prism | None = None
    """Base up."""
    base_down: Prism | None = Field(default=None, examples=[0.75])
    """Base down."""


class Refraction(Block):
    """What corrects one eye."""

    sphere: Dioptres | None = Field(default=None, examples=[-2.00])
    """Sphere, dioptres."""
    cylinder: Dioptres | None = Field(default=None, examples=[0.75])
    """Cylinder, dioptres."""
    axis: Annotated[Number, Field(ge=0, le=180)] | None = Field(default=None, examples=[70])
    """Axis of the cylinder, degrees from 0 to 180."""
    addition: Dioptres | None = Field(default=None, examples=[1.75])
    """Reading addition, dioptres."""
    distance_prism: PrismCorrection | None = None
    """Prism for distance."""
    near_prism: PrismCorrection | None = None
    """Prism for near."""

    @rule
    def _cylinder_has_an_axis(self, _: datetime) -> Iterator[Finding]:
        if self.cylinder and self.axis is None:
            yield Finding(
                ("axis",), "missing", "The cylinder has no axis.", "Send the axis in degrees."
            )


class Pressure(Block):
    """One intraocular pressure, with what it was taken with and when."""

    value: Annotated[Number, Field(ge=0, le=120)] = Field(examples=[26])
    """The pressure in mmHg."""
    method: Tonometer | None = Field(default=None, examples=["goldmann"])
    """The tonometer. `goldmann` and `perkins` are contact applanation (Goldmann-type)."""
    taken_at: When | None = Field(default=None, examples=["2026-10-01T10:15:00+01:00"])
    """When it was taken, if the time is known."""
    repeated: Flagged = False
    """Whether it was confirmed by measuring this pressure again."""


class EyeFindings(Block):
    """What was found in one eye."""

    acuity: Line | None = Field(default=None, examples=["6/9"])
    """Visual acuity with the best correction, as it is written: 6/9, 6/18-2, 0.30, CF, HM, PL."""
    unaided_vision: Line | None = Field(default=None, examples=["6/18-2"])
    """Vision without correction."""
    pinhole: Line | None = Field(default=None, examples=["6/6"])
    """Acuity through a pinhole."""
    near_acuity: Line | None = Field(default=None, examples=["N5"])
    """Near acuity."""
    previous_acuity: Line | None = Field(default=None, examples=["6/9-3"])
    """Corrected acuity at an earlier test."""
    previous_acuity_date: PastDate | None = Field(default=None, examples=["2025-09-12"])
    """Date of that earlier test."""
    refraction: Refraction | None = None
    """Refraction."""
    pressures: tuple[Pressure, ...] = Field(default=(), max_length=20)
    """Intraocular pressures, each with its method and time."""
    cup_disc_ratio: Annotated[Number, Field(ge=0, le=1)] | None = Field(
        default=None, examples=[0.30]
    )
    """Cup-disc ratio, from 0 to 1."""
    optic_disc: Line | None = Field(default=None, examples=["Pink and healthy"])
    """How the optic disc looks."""
    visual_field: Line | None = Field(default=None, examples=["Superior arcuate defect"])
    """What the visual field showed."""
    other: Text | None = Field(default=None, examples=["Subretinal fluid on OCT"])
    """Anything else that was found in this eye."""


class Performer(Speaker):
    """Who performed a sight test."""

    goc_number: GocNumber = Field(examples=["01-12345"])
    """GOC number, like 01-12345."""

    registers: ClassVar[Mapping[str, str]] = {"goc_number": codes.GOC}

    @property
    def job(self) -> CodeableConcept:
        return _OPTOMETRIST


class SightTestReferral(OfOptometry, Request):
    """A patient referred for the eyes after a sight test.

    Goes to the named provider, else to the service that the condition asks for; the patient's GP
    practice, if it is known, gets a copy. The higher of your urgency and the table's counts.
    """

    performer: Performer
    """Who performed the sight test and refers."""
    date_of_sight_test: When = Field(examples=["2026-10-01"])
    """When the eyes were tested: a date, or a time with its offset. The clocks start here."""
    subspecialty: Subspecialty | None = Field(default=None, examples=["cataract"])
    """The clinic that is wanted, if one is."""
    condition: Condition
    """What the referral is about."""
    eye: Literal["right", "left", "both"] = Field(examples=["right"])
    """Which eye it is about."""
    reason: Text | None = Field(default=None, examples=["Wishes to discuss surgery"])
    """Why the patient is referred, in your words."""
    right: EyeFindings | None = None
    """What was found in the right eye."""
    left: EyeFindings | None = None
    """What was found in the left eye."""
    field_instrument: Line | None = Field(default=None, examples=["Humphrey 24-2"])
    """What the visual fields were tested with."""
    dilated: Flagged | None = None
    """Whether the fundus was examined through a dilated pupil."""
    cycloplegic: Flagged | None = None
    """Whether the refraction was cycloplegic."""
    under_hospital: Flagged | None = None
    """Whether the patient is under the hospital for this already."""
    gp_action: GpAction | None = Field(default=None, examples=["information-only"])
    """What is asked of the GP."""
    # -- what it means ---------------------------------------------------------------------------

    @property
    def speaker(self) -> Performer:
        return self.performer

    @property
    def happened(self) -> date | datetime:
        return self.date_of_sight_test

    @property
    def reason_code(self) -> str:
        return self.condition.known or self.condition.snomed or ""

    @property
    def meant(self) -> Meant:
        return _meant(self.judgement, self.subspecialty or "")

    @property
    def judgement(self) -> Judgement:
        """What the rules of the eye make of it."""
        return judge(
            URGENCIES[self.urgency],
            code=self.condition.known,
            readings=self.readings,
            why_not_gp=_why_not_gp(
                self.practice.ods if self.practice else None,
                self.provider.ods if self.provider else None,
            ),
        )

    def warnings(self, now: datetime) -> Iterator[Fault]:
        judgement = self.judgement
        for one in judgement.remarks:
            yield Fault(one.path, one.code, one.detail, one.todo)
        sent = judgement.due(self.tested_on).get("sent")
        if sent is not None and now > sent.at:
            yield Fault(
                "date_of_sight_test",
                "sent-late",
                f"Sent later than the sight test allows ({sent.span.source}).",
                "Telephone the receiver; the clocks for being seen and treated run on.",
            )

    @classmethod
    def glance(cls, raw: Mapping[str, Any]) -> Meant:
        condition, subspecialty = glance.block(raw.get("condition")), raw.get("subspecialty")
        code: str | None = glance.word(condition.get("code"))
        snomed = condition.get("snomed")
        if code not in conditions():
            code = of_snomed(snomed) if isinstance(snomed, str) else None
        judgement = judge(
            glance.urgency(raw.get("urgency")),
            code=code,
            readings=tuple(_pressures(raw)),
            why_not_gp=_why_not_gp(
                glance.block(raw.get("practice")).get("ods"),
                glance.block(raw.get("provider")).get("ods"),
            ),
        )
        return _meant(judgement, subspecialty if isinstance(subspecialty, str) else "")

    @property
    def tested_on(self) -> date:
        """The London date of the sight test."""
        when = self.date_of_sight_test
        return london(when).date() if isinstance(when, datetime) else when

    @property
    def eyes(self) -> tuple[Side, ...]:
        """The sides that the referral is about."""
        return tuple(side for side in SIDES if self.eye in {side, "both"})

    def findings(self, side: Side) -> EyeFindings:
        """Return what was found in one eye; empty if nothing is said of it."""
        return (self.right if side == "right" else self.left) or EyeFindings.model_construct()

    @property
    def readings(self) -> tuple[Reading, ...]:
        """Every pressure, with the field in which it stands."""
        return tuple(
            Reading(f"{side}.pressures[{at}]", it.value, it.method, repeated=it.repeated)
            for side in SIDES
            for at, it in enumerate(self.findings(side).pressures)
        )


def _meant(judgement: Judgement, clinic: str) -> Meant:
    words = codes.system("eye-subspecialty").displays.get(clinic, "")
    return Meant(judgement, "condition", clinic, words)


def _why_not_gp(practice: object, provider: object) -> str | None:
    if not practice:
        return "the practice is not known"
    if provider and provider != practice:
        return "another provider is named"
    return None


def _pressures(raw: Mapping[str, Any]) -> Iterator[Reading]:
    for side in SIDES:
        for it in glance.blocks(glance.block(raw.get(side)).get("pressures")):
            value = glance.number(it.get("value"))
            if value is not None:
                yield Reading(side, value, None, repeated=False)
