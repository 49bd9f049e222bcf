"""What was found and is known of a patient, as FHIR: whatever a form has fields for."""

from collections.abc import Iterator
from datetime import date
from typing import Any, Final

from fhir.resources.R4B.codeableconcept import CodeableConcept
from fhir.resources.R4B.documentreference import DocumentReference
from fhir.resources.R4B.fhirresourcemodel import FHIRResourceModel
from fhir.resources.R4B.observation import Observation
from fhir.resources.R4B.quantity import Quantity

from adapters.pillars.message import Message
from adapters.pillars.parts import OfBody, OfEyes, OfTeeth, Pressed, Sides, Wound
from adapters.pillars.who import Who
from fhir_profiles import clinical, documents, make, resources
from fhir_profiles.blocks import Attachment
from fhir_profiles.pathways.catalogue import ITEMS

# The items that are one text, yes or no.
_WORDED: Final = ("symptoms", "findings", "history", "medical_history", "patient_informed")
_OF_EACH_EYE: Final = ("acuities", "pressures", "discs", "fields")


class Found:
    """Makes resources of what a form says of a patient."""

    def __init__(self, form: Who, message: Message) -> None:
        self._form = form
        self._patient, self._says = message.patient, message.says
        self._happened, self._context = message.happened, message.context
        self._url = message.entries.url

    def every(self) -> Iterator[tuple[str, FHIRResourceModel]]:
        """Yield all of it, each under a name of its own."""
        request: Any = self._form
        for field in _WORDED:
            said = getattr(request, field, None)
            if said is not None:
                yield field, self._item(field, said)
        if isinstance(request, OfEyes):
            yield from self._of_eyes(request)
        if isinstance(request, OfTeeth):
            yield from self._of_teeth(request)
        if isinstance(request, OfBody):
            yield from self._of_body(request)
        pressure: Pressed | None = getattr(request, "blood_pressure", None)
        if pressure is not None:
            yield "blood pressure", self._pressure(pressure)
        wound: Wound | None = getattr(request, "wound", None)
        if wound is not None:
            yield "wound", self._wound(wound)
        for at, block in enumerate(request.observations):
            yield (
                f"observation {at}",
                clinical.observed(
                    block,
                    patient=self._patient,
                    performer=self._says,
                    taken=self._happened,
                    encounter=None,
                ),
            )
        yield from self.taken()

    def taken(self) -> Iterator[tuple[str, FHIRResourceModel]]:
        """Yield medicines and allergies (that there are none is said too), and attachments."""
        request: Any = self._form
        for at, medicine in enumerate(request.medicines or ()):
            yield (
                f"medicine {at}",
                clinical.taken(medicine, self._patient, self._says, self._happened),
            )
        for at, allergy in enumerate(request.allergies or ()):
            yield (
                f"allergy {at}",
                clinical.allergy(allergy, self._patient, self._says, self._happened),
            )
        for attachment in request.attachments:
            yield f"attachment {attachment.id}", self._document(attachment)
        for field in ("medicines", "allergies"):
            if getattr(request, field) == ():
                yield f"no {field}", self._item(field, "None known")

    def _item(
        self,
        field: str,
        said: str | bool | Quantity,
        site: CodeableConcept | None = None,
        taken: date | None = None,
    ) -> Observation:
        """Return an item of the catalogue's `minimum` as it was said."""
        value = make.CodeableConcept(text=said) if isinstance(said, str) else said
        return clinical.observation(
            code=resources.defined(ITEMS, field.replace("_", "-")),
            patient=self._patient,
            performer=self._says,
            taken=taken or self._happened,
            value=value,
            category="exam",
            site=site,
        )

    def _document(self, said: Attachment) -> DocumentReference:
        known = self._context.attachments[said.id]
        return documents.document(
            said,
            content_type=known.content_type,
            size=known.size,
            url=known.url,
            patient=self._patient,
            author=self._says,
            written=self._context.now,
        )

    def _of_eyes(self, request: OfEyes) -> Iterator[tuple[str, Observation]]:
        for field in _OF_EACH_EYE:
            sides: Sides | None = getattr(request, field)
            for side, site in clinical.EYES.items():
                said = getattr(sides, side, None)
                if said is not None:
                    yield f"{field} {side}", self._item(field, said, site)

    def _of_teeth(self, request: OfTeeth) -> Iterator[tuple[str, Observation]]:
        if request.dental_level is not None:
            yield "dental level", self._item("dental_level", f"Level {request.dental_level}")
        if request.asa_grade is not None:
            yield "asa grade", self._item("asa_grade", f"ASA {request.asa_grade}")
        if request.iotn is not None:
            index = request.iotn
            said = f"Dental health {index.dental_health}{index.qualifier or ''}"
            if index.aesthetic is not None:
                said += f", aesthetic {index.aesthetic}"
            yield "iotn", self._item("iotn", said)
        for at, image in enumerate(request.radiographs or ()):
            said = f"{image.kind.capitalize()}{f': {image.shows}' if image.shows else ''}"
            made = self._item("radiographs", said, taken=image.taken_on)
            if image.attachment is not None:
                shown = [resources.reference(self._url(f"attachment {image.attachment}"))]
                made = made.model_copy(update={"derivedFrom": shown})
            yield f"radiograph {at}", made
        if request.radiographs == ():
            yield "no radiographs", self._item("radiographs", "None")

    def _of_body(self, request: OfBody) -> Iterator[tuple[str, Observation]]:
        if request.body_mass_index is not None:
            number = resources.quantity(request.body_mass_index, "kg/m2")
            yield "body mass index", self._item("body_mass_index", number)
        if request.hba1c is not None:
            yield "hba1c", self._item("hba1c", resources.quantity(request.hba1c, "mmol/mol"))

    def _pressure(self, pressure: Pressed) -> Observation:
        return clinical.clinic_pressure(
            pressure.systolic,
            pressure.diastolic,
            patient=self._patient,
            performer=self._says,
            taken=self._happened,
        )

    def _wound(self, wound: Wound) -> Observation:
        since = f"since {wound.since:%Y-%m-%d}" if wound.since else None
        said = "; ".join(filter(None, (since, wound.size, wound.looks))) or wound.site
        return self._item("wound", said, make.CodeableConcept(text=wound.site))
