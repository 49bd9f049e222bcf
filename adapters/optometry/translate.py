"""From an optometrist's referral to FHIR: one Bundle around a ServiceRequest.

Pure: the same request and context give the same bytes. Everything that the sender said is on the
message, with both urgencies, every warning, and what is not verified.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from fhir.resources.R4B.allergyintolerance import AllergyIntolerance
from fhir.resources.R4B.annotation import Annotation
from fhir.resources.R4B.codeableconcept import CodeableConcept
from fhir.resources.R4B.extension import Extension
from fhir.resources.R4B.medicationstatement import MedicationStatement
from fhir.resources.R4B.organization import Organization
from fhir.resources.R4B.patient import Patient
from fhir.resources.R4B.servicerequest import ServiceRequest

from adapters.optometry.findings import observations
from adapters.optometry.needs import KEY, judged
from adapters.optometry.request import OptometryReferral
from broker.events import Role
from broker.ports import Context, Draft, Party
from fhir_profiles import clinical, codes, eye, focus, make, resources
from fhir_profiles.bars.incoming import CATEGORIES
from fhir_profiles.blocks import Organisation
from fhir_profiles.bundle import Entries
from fhir_profiles.pathways.catalogue import service_words

EXT_CLOCK: Final = f"{codes.BASE}StructureDefinition/clock"
EXT_GP_ACTION: Final = f"{codes.BASE}StructureDefinition/gp-action"
EXT_SOURCE: Final = f"{codes.UK_CORE}Extension-UKCore-SourceOfServiceRequest"
EXT_PRIORITY_REASON: Final = f"{codes.UK_CORE}Extension-UKCore-PriorityReason"

# Each of these is confirmed by the project's references (UK Core value sets and code systems).
_OPTOMETRIST: Final = make.CodeableConcept(
    coding=[
        resources.coding(codes.SNOMED, "28229004", "Optometrist"),
        resources.coding(codes.JOB_ROLE, "R1280", "Optometrist"),
    ]
)
_OPTOMETRY_SERVICE: Final = resources.concept(codes.SNOMED, "310105000", "Optometry service")
_BY_OPTICIAN: Final = resources.concept(codes.SNOMED, "185368000", "Referred by optician")
_TRANSFER: Final = resources.concept(
    CATEGORIES,
    "referral",
    "Transfer of Care",
)
_UNVERIFIED: Final = "identity-not-verified"
_AGREES: Final = "The patient agrees to this referral and to sharing it."


def translate(request: OptometryReferral, context: Context) -> Sequence[Draft]:
    """Return the referral as one draft: Bundle of the ServiceRequest and all it speaks of."""
    made = _Translation(request, context)
    return (Draft(KEY, made.body(), made.focus),)


class _Translation:
    """One referral on its way; entries are added in the order in which a reader wants them."""

    def __init__(self, request: OptometryReferral, context: Context) -> None:
        self._request = request
        self._context = context
        self._judgement = judged(request)
        self._entries = Entries(context.message_ids[KEY])
        self.focus = self._entries.url("service-request")
        self._patient = self._entries.url("patient")
        self._performer = self._entries.url("practitioner")

    def body(self) -> bytes:
        request, entries = self._request, self._entries
        found = {
            **dict(observations(request, self._patient, self._performer)),
            **dict(self._medicines()),
            **dict(self._allergies()),
        }
        conditions = [entries.url(f"condition {side}") for side in request.eyes]
        entries.add(
            "service-request",
            self._service_request(conditions, [entries.url(name) for name in found]),
        )
        entries.add("patient", self._patient_resource())
        if request.patient.guardian is not None:
            guardian = resources.related_person(request.patient.guardian, self._patient)
            entries.add("guardian", guardian)
        for ods, organization in self._organizations().items():
            entries.add(f"organization {ods}", organization)
        performer = request.performer
        entries.add(
            "practitioner",
            resources.practitioner(performer.name, codes.GOC, performer.goc_number),
        )
        entries.add(
            "practitioner-role",
            resources.practitioner_role(
                self._performer, self._organization(self._context.sender.ods), _OPTOMETRIST
            ),
        )
        for side in request.eyes:
            entries.add(
                f"condition {side}",
                clinical.condition(
                    code=self._condition(),
                    patient=self._patient,
                    recorder=self._performer,
                    recorded=request.date_of_sight_test,
                    site=clinical.EYES[side],
                    # An optometrist refers what somebody else is to confirm.
                    suspected=True,
                ),
            )
        for name, resource in found.items():
            entries.add(name, resource)
        for at, (code, category) in enumerate(self._flags()):
            flag = clinical.flag(
                code, self._patient, self._performer, request.date_of_sight_test, category
            )
            entries.add(f"flag {at}", flag)
        return entries.body()

    # -- the request itself ----------------------------------------------------------------------

    def _service_request(self, conditions: list[str], found: list[str]) -> ServiceRequest:
        request, judgement = self._request, self._judgement
        acting = [party.ods for party, role in self._told() if role is Role.ACTING]
        asked = focus.service_request(
            identifiers=focus.message_identifiers(
                self._context.message_ids[KEY], self._context.sender.ods, request.reference
            ),
            category=_TRANSFER,
            code=resources.defined(
                "eye-subspecialty", request.subspecialty or "not-otherwise-specified"
            ),
            priority=judgement.urgency,
            patient=self._patient,
            requester=self._entries.url("practitioner-role"),
            performers=[self._organization(ods) for ods in acting],
            authored=self._context.now,
            window=resources.period(
                request.date_of_sight_test, judgement.seen_by(request.date_of_sight_test)
            ),
            reasons=[self._condition()],
            reason_references=conditions,
            supporting=found,
            sites=[clinical.EYES[side] for side in request.eyes],
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

    def _condition(self) -> CodeableConcept:
        condition = self._request.condition
        known = condition.known
        coding = []
        if known is not None:
            display = eye.display(known)
            coding.append(resources.coding(codes.system(eye.CONDITIONS).url, known, display))
        # The sender's own, else the one that a reference confirms for our code.
        snomed = condition.snomed or (eye.snomed_of(known) if known else None)
        if snomed is not None:
            coding.append(make.Coding(system=codes.SNOMED, code=snomed))
        return make.CodeableConcept(coding=coding, text=condition.text)

    def _priority_reason(self) -> Extension:
        deciding, rule = self._judgement.deciding, self._judgement.rule
        reason = make.CodeableConcept(text=rule)
        if deciding is not None and deciding.urgency == self._judgement.urgency:
            system, display = codes.system(eye.CONDITIONS).url, eye.display(deciding.code)
            reason = resources.concept(system, deciding.code, display, rule)
        return resources.extension(EXT_PRIORITY_REASON, valueCodeableConcept=reason)

    def _extensions(self) -> Iterator[Extension]:
        request, judgement = self._request, self._judgement
        yield resources.extension(EXT_SOURCE, valueCodeableConcept=_BY_OPTICIAN)
        yield focus.urgencies(judgement.sender, judgement.table, judgement.rule)
        for kind, due in judgement.due(request.tested_on).items():
            yield make.Extension(
                url=EXT_CLOCK,
                extension=[
                    resources.extension("kind", valueCode=kind),
                    resources.extension("due", valueDateTime=due.at),
                    resources.extension("source", valueString=due.span.source),
                ],
            )
        if request.gp_action is not None:
            action = resources.defined("eye-gp-action", request.gp_action)
            yield resources.extension(EXT_GP_ACTION, valueCodeableConcept=action)
        if request.provider is not None:
            yield focus.provider(request.provider)

    def _notes(self) -> Iterator[Annotation]:
        for words in (self._request.reason, self._request.additional_information, _AGREES):
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
        """Every organisation once, by ODS code; the directory's words go before the sender's."""
        sender, practice = self._context.sender, self._request.practice
        made = _organization(sender, self._request.optical_practice)
        found = {sender.ods: made.model_copy(update={"type": [_OPTOMETRY_SERVICE]})}
        if self._context.practice is not None:
            found[self._context.practice.ods] = _organization(self._context.practice, practice)
        for party, _ in self._told():
            if party.ods not in found:
                found[party.ods] = _organization(party)
        return found

    # -- what else is said -----------------------------------------------------------------------

    def _medicines(self) -> Iterator[tuple[str, MedicationStatement]]:
        for at, medicine in enumerate(self._request.medicines):
            yield (
                f"medicine {at}",
                clinical.taken(
                    medicine, self._patient, self._performer, self._request.date_of_sight_test
                ),
            )

    def _allergies(self) -> Iterator[tuple[str, AllergyIntolerance]]:
        for at, allergy in enumerate(self._request.allergies):
            yield (
                f"allergy {at}",
                clinical.allergy(
                    allergy, self._patient, self._performer, self._request.date_of_sight_test
                ),
            )

    def _flags(self) -> Iterator[tuple[CodeableConcept, str]]:
        patient = self._request.patient
        if any(warning.code == _UNVERIFIED for warning in patient.warnings()):
            yield resources.defined("warning", _UNVERIFIED), "admin"
        yield from clinical.flags_of(patient)


def _organization(party: Party, said: Organisation | None = None) -> Organization:
    name = party.name or (said.name if said else None)
    return resources.organization(
        party.ods, name, party.telephone or (said.telephone if said else None)
    )
