"""The entries that both messages of a consultation share: who, where, what was found and done."""

from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Final

from fhir.resources.R4B.codeableconcept import CodeableConcept
from fhir.resources.R4B.fhirresourcemodel import FHIRResourceModel
from fhir.resources.R4B.identifier import Identifier
from fhir.resources.R4B.medicationdispense import MedicationDispense
from fhir.resources.R4B.observation import Observation
from fhir.resources.R4B.quantity import Quantity

from adapters.pharmacy.request import BloodPressure, Consultation, Medicine, Pulse
from adapters.pharmacy.rules import Asked
from broker.ports import Context
from fhir_profiles import blocks, clinical, codes, focus, make, resources
from fhir_profiles.bundle import Entries
from fhir_profiles.pathways.pharmacy import pharmacy
from fhir_profiles.resources import concept, defined, reference

PREGNANCY: Final = {
    "pregnant": ("77386006", "Pregnant"),
    "not-pregnant": ("60001007", "Not pregnant"),
}
_RESPONSIBLE: Final = "Responsible pharmacist"  # in words: no reference confirms a code for it
ABPM_DECLINED: Final = ("861231000000105", "Ambulatory blood pressure monitoring declined")
# A regular pulse has words only: under the other's code it would be filed as an irregular one.
_RHYTHMS: Final = {
    "irregular": concept(codes.SNOMED, "61086009", None, "Pulse irregular"),
    "regular": make.CodeableConcept(text="Pulse regular"),
}
_EMERGENCY: Final = "Needs A&E or 999 now. {rule}. Nothing here says that the patient was sent."


class Message:
    """One message being made: its entries so far, and the fullUrls that its focus refers to."""

    def __init__(self, request: Consultation, context: Context, key: str, asked: Asked) -> None:
        message_id = context.message_ids[key]
        self.request = request
        self.context = context
        self.asked = asked
        self.pathway = pharmacy().consultations[request.service]
        self.entries = Entries(message_id)
        self.seen = request.clinical_time
        self.label = "R" if request.patient.sensitive else None
        self.notes = [resources.note(warning.detail, warning.code) for warning in context.warnings]
        self.identifiers = [
            *focus.message_identifiers(message_id, request.pharmacy.ods, request.reference),
            make.Identifier(system=codes.CORRELATION_ID, value=context.correlation_id),
        ]
        self._organisations: dict[str, str] = {}
        self._add_organisations(key)
        self.patient = self.entries.add(
            "patient", resources.patient(request.patient, self._organisations[request.practice.ods])
        )
        if request.patient.guardian:
            guardian = resources.related_person(request.patient.guardian, self.patient)
            self.entries.add("guardian", guardian)
        self._add_clinician()
        self.encounter = self._add_encounter()
        self.complaint = self._add_all("condition", self._conditions())
        self.clinical = [
            *self.complaint,
            *self._add_all("observation", self._observations()),
            *self._add_all("allergy", self._allergies()),
            *self._add_all("medicine", (self._dispense(it) for it in request.medicines)),
            *self._add_all("flag", self._flags()),
        ]

    def _add_all(self, name: str, made: Iterator[FHIRResourceModel]) -> list[str]:
        return [self.entries.add(f"{name} {place}", it) for place, it in enumerate(made)]

    # -- who and where ---------------------------------------------------------------------------

    def _add_organisations(self, key: str) -> None:
        request, sender, practice = self.request, self.context.sender, self.context.practice
        own = request.pharmacy
        self.pharmacy = self._organisation(
            own.ods, sender.name or own.name, sender.telephone or own.telephone
        )
        registered = request.practice
        named = practice if practice and practice.ods == registered.ods else None
        self._organisation(
            registered.ods,
            named.name if named else registered.name,
            named.telephone if named else registered.telephone,
        )
        self.receivers = list(
            dict.fromkeys(
                self._organisation(party.ods, party.name, party.telephone)
                for party, _ in self.context.destinations.get(key, ())
            )
        )

    def _organisation(self, ods: str, name: str | None, telephone: str | None) -> str:
        if ods not in self._organisations:
            made = resources.organization(ods, name, telephone)
            self._organisations[ods] = self.entries.add(f"organization {ods}", made)
        return self._organisations[ods]

    def _add_clinician(self) -> None:
        clinician = self.request.clinician
        self.practitioner = self.entries.add(
            "practitioner",
            resources.practitioner(clinician.name, codes.GPHC, clinician.gphc_number),
        )
        self.role = self._add_role("practitioner-role", self.practitioner, clinician.role)
        self.participants = [clinical.participant(self.practitioner)]
        responsible = clinician.responsible_pharmacist
        if responsible:
            made = resources.practitioner(responsible.name, codes.GPHC, responsible.gphc_number)
            url = self.entries.add("responsible-pharmacist", made)
            self._add_role("responsible-pharmacist-role", url, "pharmacist")
            self.participants.append(clinical.participant(url, _RESPONSIBLE))

    def _add_role(self, name: str, practitioner: str, role: str) -> str:
        roles = codes.system("pharmacy-role")
        coded = concept(codes.JOB_ROLE, roles.properties[role]["sds"], roles.display(role))
        made = resources.practitioner_role(practitioner, self.pharmacy, coded)
        return self.entries.add(name, made)

    def _add_encounter(self) -> str:
        mode = codes.system("consultation-mode").properties[self.request.mode]
        pathway = self.pathway
        reasons = [concept(codes.SNOMED, pathway.encounter.code, pathway.encounter.words)]
        if pathway.diagnosis:
            reasons.append(concept(codes.SNOMED, pathway.diagnosis.code, pathway.diagnosis.words))
        return self.entries.add(
            "encounter",
            clinical.encounter(
                patient=self.patient,
                participants=self.participants,
                provider=self.pharmacy,
                start=self.seen,
                mode=resources.coding(
                    f"{codes.HL7}v3-ActCode", mode["act-code"], mode["act-words"]
                ),
                kind=concept(codes.SNOMED, "307778003", "Seen in primary care establishment"),
                service=defined("pharmacy-service", self.request.service),
                reasons=reasons,
                identifiers=self._source(),
            ),
        )

    def _source(self) -> list[Identifier]:
        source = self.request.source
        if source is None or source.reference is None:
            return []
        assigner = None
        if source.organisation:
            assigner = resources.by_identifier("Organization", codes.ODS, source.organisation)
        return [
            make.Identifier(
                system=codes.SENDER_REFERENCE, value=source.reference, assigner=assigner
            )
        ]

    # -- what was found and done -----------------------------------------------------------------

    def _conditions(self) -> Iterator[FHIRResourceModel]:
        complaint = self.request.presenting_complaint
        if complaint is not None:
            yield clinical.condition(
                code=resources.coded(complaint),
                patient=self.patient,
                recorder=self.practitioner,
                recorded=self.seen,
                encounter=self.encounter,
                category=defined("record-standard-headings", "presenting-complaints-or-issues"),
            )

    def _observations(self) -> Iterator[Observation]:
        request = self.request
        for pressure in request.blood_pressures:
            yield self._pressure(pressure)
        for pulse in (request.pulse, request.repeat_pulse):
            if pulse is not None:
                yield from self._pulse(pulse)
        for block in request.observations:
            yield clinical.observed(
                block,
                patient=self.patient,
                performer=self.practitioner,
                taken=self.seen,
                encounter=self.encounter,
            )
        if request.pregnancy in PREGNANCY:
            yield self._true(PREGNANCY[request.pregnancy], "social-history")
        if request.abpm_declined:
            yield self._true(ABPM_DECLINED, "procedure")
        if request.acute_symptoms is not None:
            yield self._stated("Acute symptoms with raised blood pressure", request.acute_symptoms)
        if request.fainting_or_falls is not None:
            yield self._stated("Fainting or falls", request.fainting_or_falls)

    def _observation(
        self,
        code: CodeableConcept,
        value: Quantity | bool | None,
        taken: date | datetime | None = None,
        category: str = "vital-signs",
    ) -> Observation:
        return clinical.observation(
            code=code,
            patient=self.patient,
            performer=self.practitioner,
            taken=taken or self.seen,
            value=value,
            encounter=self.encounter,
            category=category,
        )

    def _true(self, term: tuple[str, str], category: str) -> Observation:
        return self._observation(
            concept(codes.SNOMED, term[0], None, term[1]), True, None, category
        )

    def _stated(self, words: str, value: bool) -> Observation:
        return self._observation(make.CodeableConcept(text=words), value, None, "exam")

    def _pressure(self, block: BloodPressure) -> Observation:
        methods = codes.system("blood-pressure")
        terms = methods.properties[block.method]
        systolic = concept(codes.SNOMED, terms["systolic"], None, "Systolic blood pressure")
        diastolic = concept(codes.SNOMED, terms["diastolic"], None, "Diastolic blood pressure")
        return clinical.observation(
            code=concept(codes.SNOMED, terms["panel"], None, methods.display(block.method)),
            patient=self.patient,
            performer=self.practitioner,
            taken=block.taken_at or self.seen,
            encounter=self.encounter,
            components=[
                clinical.component(systolic, resources.quantity(block.systolic, block.unit)),
                clinical.component(diastolic, resources.quantity(block.diastolic, block.unit)),
            ],
        )

    def _pulse(self, block: Pulse) -> Iterator[Observation]:
        if block.rate is not None and block.unit is not None:
            kinds = codes.system("observation-kind")
            term = kinds.properties["pulse-rate"]["snomed"]
            code = concept(codes.SNOMED, term, None, kinds.display("pulse-rate"))
            rate = resources.quantity(block.rate, block.unit)
            yield self._observation(code, rate, block.taken_at)
        if block.rhythm is not None:
            yield self._observation(_RHYTHMS[block.rhythm], True, block.taken_at, "exam")

    def _allergies(self) -> Iterator[FHIRResourceModel]:
        for block in self.request.allergies:
            yield clinical.allergy(block, self.patient, self.practitioner, self.seen)

    def _dispense(self, block: Medicine) -> MedicationDispense:
        routes = codes.system("pharmacy-supply-route")
        route = routes.properties.get(block.supply_route, {}).get("uk-core")
        words = routes.display(block.supply_route)
        kind = (
            concept(codes.SUPPLY_TYPE, route, words) if route else make.CodeableConcept(text=words)
        )
        product = blocks.Coded.model_construct(text=block.name, code=block.code)
        quantity = None
        if block.quantity is not None:
            quantity = resources.quantity(block.quantity, block.quantity_unit)
        dosage = None
        if block.dose or block.patient_instruction:
            dosage = [make.Dosage(text=block.dose, patientInstruction=block.patient_instruction)]
        return make.MedicationDispense(
            meta=resources.meta("UKCore-MedicationDispense"),
            status="completed",
            category=concept(f"{codes.HL7}medicationdispense-category", "community", "Community"),
            medicationCodeableConcept=resources.coded(product, codes.DMD),
            subject=reference(self.patient),
            context=reference(self.encounter),
            performer=[make.MedicationDispensePerformer(actor=reference(self.practitioner))],
            type=kind,
            quantity=quantity,
            daysSupply=resources.quantity(Decimal(block.days), "d") if block.days else None,
            whenHandedOver=resources.moment(block.supplied_at or self.seen),
            note=[resources.note(f"Supplied under {block.pgd_version}.")]
            if block.pgd_version
            else None,
            dosageInstruction=dosage,
        )

    def _flags(self) -> Iterator[FHIRResourceModel]:
        patient = self.request.patient
        outcome = pharmacy().outcomes[self.request.outcome]
        if outcome.emergency:
            yield self._flag(outcome.words, "clinical")
        elif self.asked.emergency:
            yield self._flag(_EMERGENCY.format(rule=self.asked.rules[0].words), "clinical")
        for red_flag in self.request.red_flags:
            yield self._flag(red_flag, "clinical")
        if patient.safeguarding:
            yield self._flag(patient.safeguarding, "safety")
        for text in patient.flags:
            yield self._flag(text, "clinical")
        for need in patient.needs:
            yield self._flag(need, "contact")

    def _flag(self, text: str, category: str) -> FHIRResourceModel:
        code = make.CodeableConcept(text=text)
        return clinical.flag(code, self.patient, self.practitioner, self.seen, category)
