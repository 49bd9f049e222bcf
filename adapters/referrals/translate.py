"""From a pillar's referral to FHIR: one Bundle around a ServiceRequest.

Pure: the same request and context give the same bytes. Everything that the sender said is on the
message, with both urgencies, every warning, and what is not verified.
"""

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Final

from fhir.resources.R4B.annotation import Annotation
from fhir.resources.R4B.codeableconcept import CodeableConcept
from fhir.resources.R4B.extension import Extension
from fhir.resources.R4B.fhirresourcemodel import FHIRResourceModel
from fhir.resources.R4B.observation import Observation
from fhir.resources.R4B.organization import Organization
from fhir.resources.R4B.patient import Patient
from fhir.resources.R4B.quantity import Quantity
from fhir.resources.R4B.servicerequest import ServiceRequest

from adapters.referrals.form import OfBody, OfEyes, OfTeeth, Referral, Sides
from adapters.referrals.needs import KEY
from broker.events import Role
from broker.ports import Context, Draft, Party
from fhir_profiles import clinical, codes, focus, make, resources
from fhir_profiles.bars.incoming import CATEGORIES
from fhir_profiles.bundle import Entries
from fhir_profiles.pathways.catalogue import ITEMS, catalogue, service_words, system_of
from fhir_profiles.working_days import start_of

EXT_PRIORITY_REASON: Final = f"{codes.UK_CORE}Extension-UKCore-PriorityReason"

_TRANSFER: Final = resources.concept(CATEGORIES, "referral", "Transfer of Care")
# What everybody who reads of the patient must see.
_FLAGGED: Final = frozenset({"identity-not-verified", "not-seen-by-a-clinician"})
_AGREES: Final = "The patient agrees to this referral and to sharing it."
_ANAESTHESIA: Final = {
    "local": "Local anaesthesia",
    "inhalation-sedation": "Inhalation sedation",
    "intravenous-sedation": "Intravenous sedation",
    "general": "General anaesthesia",
}
# The items that are one text, yes or no.
_WORDED: Final = ("symptoms", "findings", "history", "medical_history", "patient_informed")
_OF_EACH_EYE: Final = ("acuities", "pressures", "discs", "fields")


def translate(request: Referral, context: Context) -> Sequence[Draft]:
    """Return the referral as one draft: Bundle of the ServiceRequest and all it speaks of."""
    made = _Translation(request, context)
    return (Draft(KEY, made.body(), made.focus),)


class _Translation:
    """One referral on its way; entries are added in the order in which a reader wants them."""

    def __init__(self, request: Referral, context: Context) -> None:
        self._request = request
        self._context = context
        self._judgement = request.judgement
        self._entries = Entries(context.message_ids[KEY])
        self.focus = self._entries.url("service-request")
        self._patient = self._entries.url("patient")
        # What nobody's clinician says, the patient says.
        self._says = self._entries.url("practitioner") if request.referrer else self._patient

    def body(self) -> bytes:
        request, entries = self._request, self._entries
        found = dict(self._found())
        condition = self._entries.url("condition")
        entries.add(
            "service-request",
            self._service_request([condition], [entries.url(name) for name in found]),
        )
        entries.add("patient", self._patient_resource())
        if request.patient.guardian is not None:
            guardian = resources.related_person(request.patient.guardian, self._patient)
            entries.add("guardian", guardian)
        for ods, organization in self._organizations().items():
            entries.add(f"organization {ods}", organization)
        self._add_referrer()
        entries.add(
            "condition",
            clinical.condition(
                code=self._reason(),
                patient=self._patient,
                recorder=self._says,
                recorded=request.assessed_at,
                # Who refers tells what somebody else is to confirm.
                suspected=True,
            ),
        )
        for name, resource in found.items():
            entries.add(name, resource)
        for at, (code, category) in enumerate(self._flags()):
            flag = clinical.flag(code, self._patient, self._says, request.assessed_at, category)
            entries.add(f"flag {at}", flag)
        return entries.body()

    def _add_referrer(self) -> None:
        referrer = self._request.referrer
        if referrer is None:
            return
        system, number = referrer.registration
        self._entries.add("practitioner", resources.practitioner(referrer.name, system, number))
        self._entries.add(
            "practitioner-role",
            resources.practitioner_role(
                self._says,
                self._organization(self._context.sender.ods),
                make.CodeableConcept(text=referrer.role),
            ),
        )

    # -- the request itself ----------------------------------------------------------------------

    def _service_request(self, conditions: list[str], found: list[str]) -> ServiceRequest:
        request, judgement = self._request, self._judgement
        acting = [party.ods for party, role in self._told() if role is Role.ACTING]
        asked = focus.service_request(
            identifiers=focus.message_identifiers(
                self._context.message_ids[KEY], self._context.sender.ods, request.reference
            ),
            category=_TRANSFER,
            code=resources.defined("pathway", request.pathway),
            priority=judgement.urgency,
            patient=self._patient,
            requester=self._entries.url("practitioner-role")
            if request.referrer
            else self._organization(self._context.sender.ods),
            performers=[self._organization(ods) for ods in acting],
            authored=self._context.now,
            window=resources.period(request.assessed_at, self._seen_by()),
            reasons=[self._reason()],
            reason_references=conditions,
            supporting=found,
            sites=list(self._sites()),
            details=list(self._details()),
            notes=list(self._notes()),
            label="R" if request.patient.sensitive else None,
        )
        reason = make.FHIRPrimitiveExtension(extension=[self._priority_reason()])
        return asked.model_copy(
            update={
                "extension": list(self._extensions()),
                "priority__ext": reason,
                "performerType": make.CodeableConcept(text=service_words(judgement.receiver)),
                "patientInstruction": request.information_for_patient,
            }
        )

    def _seen_by(self) -> datetime | None:
        starts = {"seen": start_of(self._request.assessed_at)}
        judgement = self._judgement
        due = catalogue().due(judgement.entry.id, judgement.urgency, self._code, starts)
        return due["seen"].at if due else None

    @property
    def _code(self) -> str:
        return self._request.reason.code

    def _reason(self) -> CodeableConcept:
        said, known = self._request.reason, self._judgement.reason
        system = codes.system(system_of(said.code))
        coding = [resources.coding(system.url, said.code, system.display(said.code))]
        snomed = said.snomed or (known.snomed if known is not None else None)
        if snomed is not None:
            coding.append(make.Coding(system=codes.SNOMED, code=snomed))
        return make.CodeableConcept(coding=coding, text=said.text)

    def _priority_reason(self) -> Extension:
        reason = make.CodeableConcept(text=self._judgement.rule)
        return resources.extension(EXT_PRIORITY_REASON, valueCodeableConcept=reason)

    def _extensions(self) -> Iterator[Extension]:
        judgement = self._judgement
        yield focus.urgencies(judgement.asked, judgement.table, judgement.rule)
        if self._request.provider is not None:
            yield focus.provider(self._request.provider)

    def _sites(self) -> Iterator[CodeableConcept]:
        request = self._request
        if isinstance(request, OfEyes) and request.eye is not None:
            yield from (
                site for side, site in clinical.EYES.items() if request.eye in {side, "both"}
            )
        if isinstance(request, OfTeeth) and request.tooth_or_area is not None:
            yield make.CodeableConcept(text=request.tooth_or_area)
        if isinstance(request, OfBody) and request.wound is not None:
            yield make.CodeableConcept(text=request.wound.site)

    def _details(self) -> Iterator[CodeableConcept]:
        request = self._request
        if request.question is not None:
            yield make.CodeableConcept(text=request.question)
        if isinstance(request, OfTeeth) and request.anaesthesia is not None:
            wanted = request.anaesthesia
            yield make.CodeableConcept(text=f"{_ANAESTHESIA[wanted.kind]}: {wanted.reason}")

    def _notes(self) -> Iterator[Annotation]:
        for words in (self._request.additional_information, _AGREES):
            if words is not None:
                yield resources.note(words)
        for warning in self._context.warnings:
            yield resources.note(warning.detail, warning.code)

    # -- who -------------------------------------------------------------------------------------

    def _patient_resource(self) -> Patient:
        practice = self._context.practice
        return resources.patient(
            self._request.patient, self._organization(practice.ods) if practice else None
        )

    def _told(self) -> Sequence[tuple[Party, Role]]:
        return self._context.destinations[KEY]

    def _organization(self, ods: str) -> str:
        return self._entries.url(f"organization {ods}")

    def _organizations(self) -> dict[str, Organization]:
        """Every organisation once, by ODS code, with the directory's words."""
        context = self._context
        parties = [context.sender, *([context.practice] if context.practice else [])]
        parties += [party for party, _ in self._told()]
        return {
            one.ods: resources.organization(one.ods, one.name, one.telephone)
            for one in reversed(parties)
        }

    # -- what is said beside ---------------------------------------------------------------------

    def _found(self) -> Iterator[tuple[str, FHIRResourceModel]]:
        """Yield what supports the request, each under a name of its own."""
        request = self._request
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
        for at, block in enumerate(request.observations):
            yield (
                f"observation {at}",
                clinical.observed(
                    block,
                    patient=self._patient,
                    performer=self._says,
                    taken=request.assessed_at,
                    encounter=None,
                ),
            )
        for at, medicine in enumerate(request.medicines or ()):
            yield (
                f"medicine {at}",
                clinical.taken(medicine, self._patient, self._says, request.assessed_at),
            )
        for at, allergy in enumerate(request.allergies or ()):
            yield (
                f"allergy {at}",
                clinical.allergy(allergy, self._patient, self._says, request.assessed_at),
            )
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
            taken=taken or self._request.assessed_at,
            value=value,
            category="exam",
            site=site,
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
            yield f"radiograph {at}", self._item("radiographs", said, taken=image.taken_on)
        if request.radiographs == ():
            yield "no radiographs", self._item("radiographs", "None")

    def _of_body(self, request: OfBody) -> Iterator[tuple[str, Observation]]:
        if request.blood_pressure is not None:
            yield (
                "blood pressure",
                clinical.clinic_pressure(
                    request.blood_pressure.systolic,
                    request.blood_pressure.diastolic,
                    patient=self._patient,
                    performer=self._says,
                    taken=self._request.assessed_at,
                ),
            )
        if request.body_mass_index is not None:
            number = resources.quantity(request.body_mass_index, "kg/m2")
            yield "body mass index", self._item("body_mass_index", number)
        if request.hba1c is not None:
            yield "hba1c", self._item("hba1c", resources.quantity(request.hba1c, "mmol/mol"))
        if request.wound is not None:
            wound = request.wound
            since = f"since {wound.since:%Y-%m-%d}" if wound.since else None
            said = "; ".join(filter(None, (since, wound.size, wound.looks))) or wound.site
            yield "wound", self._item("wound", said, make.CodeableConcept(text=wound.site))

    def _flags(self) -> Iterator[tuple[CodeableConcept, str]]:
        request = self._request
        for red_flag in self._judgement.red_flags:
            yield resources.defined("red-flag", red_flag.code), "clinical"
        for warning in (*request.patient.warnings(), *request.warnings()):
            if warning.code in _FLAGGED:
                yield resources.defined("warning", warning.code), "admin"
        yield from clinical.flags_of(request.patient)
