"""Parts of a form that only some pillars and pathways need: eyes, teeth, and what is measured."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from broker.ports import Enclosed
from fhir_profiles.blocks import Block, Finding, WithAttachments, rule
from fhir_profiles.values import Line, Number, PastDate, Text, UploadId


class Sides(Block):
    """Something that is said of each eye, as it is written."""

    right: Line | None = Field(default=None, examples=["6/9"])
    """The right eye."""
    left: Line | None = Field(default=None, examples=["6/18"])
    """The left eye."""

    @rule
    def _says_something(self, _: datetime) -> Iterator[Finding]:
        if self.right is None and self.left is None:
            yield Finding(("right",), "missing", "Nothing is said of either eye.", "Send one.")


class OfEyes(Block):
    """What a referral for the eyes says, by somebody who is no optometrist."""

    eye: Literal["right", "left", "both"] | None = None
    """Which eye it is about."""
    acuities: Sides | None = None
    """Visual acuity with glasses, of each eye, as it is written: 6/9, CF, HM."""
    pressures: Sides | None = None
    """Eye pressures in mmHg, if they were taken."""
    discs: Sides | None = None
    """How the optic discs look, if they were seen."""
    fields: Sides | None = None
    """What the visual fields showed, if they were tested."""


def enclosed(form: WithAttachments) -> tuple[Enclosed, ...]:
    """Return what a form names of attachments, and where it does."""
    return tuple(
        Enclosed(one.id, one.sha256, f"attachments[{at}]")
        for at, one in enumerate(form.attachments)
    )


class Radiograph(Block):
    """An image of the teeth, with its date."""

    kind: Literal["periapical", "bitewing", "panoramic", "occlusal", "cone-beam", "other"]
    """What kind of image."""
    taken_on: PastDate = Field(examples=["2026-11-02"])
    """When it was taken."""
    shows: Line | None = None
    """What it shows."""
    attachment: UploadId | None = None
    """The image itself, if it goes with the message: the `id` of one of `attachments`."""


class Iotn(Block):
    """Index of orthodontic treatment need."""

    dental_health: Annotated[int, Field(ge=1, le=5)] = Field(examples=[4])
    """Grade of the dental health component, 1 to 5."""
    qualifier: Annotated[Line, Field(pattern=r"^[a-z]$")] | None = Field(
        default=None, examples=["d"]
    )
    """The letter of the dental health component."""
    aesthetic: Annotated[int, Field(ge=1, le=10)] | None = Field(default=None, examples=[7])
    """Grade of the aesthetic component, 1 to 10."""


class Anaesthesia(Block):
    """How the patient should be kept without pain, and why not otherwise."""

    kind: Literal["local", "inhalation-sedation", "intravenous-sedation", "general"]
    """What is asked for."""
    reason: Line = Field(examples=["Severe anxiety; sedation failed in 2025"])
    """Why."""


class OfTeeth(WithAttachments):
    """What a referral for teeth and mouth says."""

    tooth_or_area: Line | None = Field(default=None, examples=["LR8"])
    """Which tooth (UR1 to LL8), or which area of the mouth."""
    dental_level: Literal[1, 2, 3] | None = None
    """Level of care that the work needs."""
    radiographs: tuple[Radiograph, ...] | None = Field(default=None, max_length=20)
    """Dated images; an empty list says that there are none."""
    medical_history: Text | None = None
    """Medical history, as far as it bears on treatment."""
    asa_grade: Annotated[int, Field(ge=1, le=5)] | None = None
    """Grade of the American Society of Anesthesiologists, 1 to 5."""
    anaesthesia: Anaesthesia | None = None
    """What kind of anaesthesia is asked for, if the patient needs more than local."""
    iotn: Iotn | None = None
    """Index of orthodontic treatment need."""

    @rule
    def _shows_what_goes_with_it(self, _: datetime) -> Iterator[Finding]:
        known = {one.id for one in self.attachments}
        for at, image in enumerate(self.radiographs or ()):
            if image.attachment is not None and image.attachment not in known:
                yield Finding(
                    ("radiographs", at, "attachment"),
                    "unknown-attachment",
                    "This is none of the attachments.",
                    "Name the image in `attachments` too, with its SHA-256.",
                )


class Pressed(Block):
    """A blood pressure in mmHg."""

    systolic: Annotated[Number, Field(ge=30, le=350)] = Field(examples=[152])
    """Systolic."""
    diastolic: Annotated[Number, Field(ge=10, le=250)] = Field(examples=[94])
    """Diastolic."""


class Wound(Block):
    """A wound that is to be cared for."""

    site: Line = Field(examples=["Left lower leg"])
    """Where it is."""
    since: PastDate | None = None
    """Since when."""
    size: Line | None = Field(default=None, examples=["3 cm by 2 cm"])
    """How large it is."""
    looks: Text | None = Field(default=None, examples=["Clean, granulating"])
    """How it looks, and how it is dressed."""


class OfBody(Block):
    """What community services ask for."""

    blood_pressure: Pressed | None = None
    """The last clinic blood pressure."""
    body_mass_index: Annotated[Number, Field(ge=5, le=150)] | None = Field(
        default=None, examples=[34.2]
    )
    """Body mass index in kg/m²."""
    hba1c: Annotated[Number, Field(ge=10, le=250)] | None = Field(default=None, examples=[44])
    """The last HbA1c, in mmol/mol."""
    wound: Wound | None = None
    """The wound."""
