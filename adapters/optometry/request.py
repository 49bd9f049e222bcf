"""What an optometry system sends: a referral in its own words, with every problem told at once.

The fields follow item 23 of the first issue and section 6 of the reference pharmacy-mesh-pds.md
(the data set of EeRS and the minimum set proposed there). What is left out is not said; nothing is
assumed. Numbers keep their digits.
"""

from collections.abc import Callable, Iterator
from datetime import date, datetime
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from fhir_profiles import codes
from fhir_profiles.blocks import (
    URGENCIES,
    Allergy,
    AnyPatient,
    Block,
    Finding,
    Optometrist,
    Organisation,
    Provider,
    TakenMedicine,
    Urgency,
    rule,
)
from fhir_profiles.eye import Reading, Tonometer, of_snomed
from fhir_profiles.pathways.parts import Level
from fhir_profiles.values import (
    Flagged,
    Line,
    Number,
    PastDate,
    SnomedCode,
    Text,
    When,
    refusal,
)
from fhir_profiles.working_days import london

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


class OptometryReferral(Block):
    """A patient referred by an optometrist after a sight test.

    Goes to the named provider, else to the service that the condition asks for; the patient's GP
    practice, if it is known, gets a copy. The higher of your urgency and the table's counts.
    """

    reference: Line = Field(examples=["CV-2026-004711"])
    """Your own reference for this referral: unique within your organisation, for ever."""
    patient: AnyPatient
    """The patient. Without an NHS number, name, birth date, sex, address, postcode and telephone
    are needed, and the message says that the identity is not verified."""
    practice: Organisation | None = None
    """The patient's registered GP practice, if it is known. It gets a copy."""
    performer: Optometrist
    """Who performed the sight test and refers."""
    optical_practice: Organisation
    """The optical practice that refers: the organisation of your token."""
    date_of_sight_test: When = Field(examples=["2026-10-01"])
    """When the eyes were tested: a date, or a time with its offset. The clocks start here."""
    urgency: Urgency = Field(examples=["routine"])
    """How soon you ask for. The table of eye conditions may raise it, and never lowers it."""
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
    symptoms: Text | None = Field(default=None, examples=["Distortion for 5 days"])
    """Symptoms, and for how long."""
    history: Text | None = Field(default=None, examples=["Type 2 diabetes since 2019"])
    """Ocular, medical and family history."""
    medicines: tuple[TakenMedicine, ...] = Field(default=(), max_length=100)
    """Medicines that the patient takes."""
    allergies: tuple[Allergy, ...] = Field(default=(), max_length=50)
    """Allergies and intolerances."""
    consent: Flagged
    """Whether the patient agrees to be referred and to have this shared. If not, nothing is sent
    and nothing clinical is kept."""
    gp_action: GpAction | None = Field(default=None, examples=["information-only"])
    """What is asked of the GP."""
    provider: Provider | None = None
    """The provider to send it to, if you or the patient name one."""
    information_for_patient: Text | None = Field(default=None, examples=["Call 111 if it worsens"])
    """What the patient was told to do meanwhile."""
    additional_information: Text | None = None
    """Anything else that the receiver should know."""

    @property
    def level(self) -> Level:
        """The urgency that the sender asks for, as a level of the rules."""
        return URGENCIES[self.urgency]

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
