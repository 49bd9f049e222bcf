"""What happened and what was found, as FHIR R4: encounters, observations, conditions, allergies.

Built like the parties of `resources`, of the same pieces.
"""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from fhir.resources.R4B.allergyintolerance import AllergyIntolerance
from fhir.resources.R4B.codeableconcept import CodeableConcept
from fhir.resources.R4B.coding import Coding
from fhir.resources.R4B.condition import Condition
from fhir.resources.R4B.encounter import Encounter, EncounterParticipant
from fhir.resources.R4B.flag import Flag
from fhir.resources.R4B.identifier import Identifier
from fhir.resources.R4B.medicationstatement import MedicationStatement
from fhir.resources.R4B.observation import Observation, ObservationComponent
from fhir.resources.R4B.quantity import Quantity

from fhir_profiles import blocks, codes, make
from fhir_profiles.resources import (
    When,
    coded,
    concept,
    meta,
    moment,
    note,
    period,
    quantity,
    reference,
)

# data/bars/england-medicines/outpatient-prescriber-ophthalmology.json and
# data/bars/ukcore-examples-json/UKCore-MedicationRequest-EyeDrops-Example.json
EYES: Final[Mapping[str, CodeableConcept]] = {
    "right": concept(codes.SNOMED, "18944008", "Right eye"),
    "left": concept(codes.SNOMED, "8966001", "Left eye structure"),
}


def participant(who: str, words: str | None = None) -> EncounterParticipant:
    """Return who took part; `words` say as what, where it is not simply who saw the patient."""
    return make.EncounterParticipant(
        type=[make.CodeableConcept(text=words)] if words else None, individual=reference(who)
    )


def encounter(
    *,
    patient: str,
    participants: Sequence[EncounterParticipant],
    provider: str,
    start: When,
    mode: Coding,
    kind: CodeableConcept | None = None,
    service: CodeableConcept | None = None,
    reasons: Sequence[CodeableConcept] = (),
    identifiers: Sequence[Identifier] = (),
) -> Encounter:
    """Return a finished encounter. `mode` is its class: in person, or virtual."""
    in_class: dict[str, Any] = {"class": mode}  # a word that Python keeps for itself
    return make.Encounter(
        meta=meta("UKCore-Encounter"),
        identifier=list(identifiers) or None,
        status="finished",
        **in_class,
        type=[kind] if kind else None,
        serviceType=service,
        subject=reference(patient),
        participant=list(participants),
        period=period(start),
        reasonCode=list(reasons) or None,
        serviceProvider=reference(provider),
    )


def observation(
    *,
    code: CodeableConcept,
    patient: str,
    performer: str,
    taken: When,
    value: Quantity | CodeableConcept | bool | None = None,
    encounter: str | None = None,
    category: str = "vital-signs",
    site: CodeableConcept | None = None,
    method: CodeableConcept | None = None,
    components: Sequence[ObservationComponent] = (),
) -> Observation:
    """Return a final observation; its value is a quantity, a finding in words, or yes or no."""
    return make.Observation(
        meta=meta("UKCore-Observation"),
        status="final",
        category=[concept(f"{codes.HL7}observation-category", category)],
        code=code,
        subject=reference(patient),
        encounter=reference(encounter) if encounter else None,
        effectiveDateTime=moment(taken),
        performer=[reference(performer)],
        valueQuantity=value if isinstance(value, Quantity) else None,
        valueCodeableConcept=value if isinstance(value, CodeableConcept) else None,
        valueBoolean=value if isinstance(value, bool) else None,
        bodySite=site,
        method=method,
        component=list(components) or None,
    )


def component(code: CodeableConcept, value: Quantity | CodeableConcept) -> ObservationComponent:
    """Return one part of an observation that has several."""
    return make.ObservationComponent(
        code=code,
        valueQuantity=value if isinstance(value, Quantity) else None,
        valueCodeableConcept=value if isinstance(value, CodeableConcept) else None,
    )


def observed(
    block: blocks.Observation, *, patient: str, performer: str, taken: When, encounter: str | None
) -> Observation:
    """Return what a sender measured or saw, under the code of its kind."""
    if block.kind == "other":
        assert block.name is not None  # noqa: S101 - a rule of the block
        code, category = coded(block.name), "exam"
    else:
        kinds = codes.system("observation-kind")
        facts = kinds.properties[block.kind]
        code = concept(codes.SNOMED, facts["snomed"], None, kinds.display(block.kind))
        category = facts["category"]
    value: Quantity | CodeableConcept
    if block.value is not None and block.unit is not None:
        value = quantity(block.value, block.unit)
    else:
        value = make.CodeableConcept(text=block.finding)
    return observation(
        code=code,
        patient=patient,
        performer=performer,
        taken=block.taken_at or taken,
        value=value,
        encounter=encounter,
        category=category,
    )


def condition(
    *,
    code: CodeableConcept,
    patient: str,
    recorder: str,
    recorded: When,
    encounter: str | None = None,
    category: CodeableConcept | None = None,
    site: CodeableConcept | None = None,
    suspected: bool = False,
) -> Condition:
    """Return an active condition; one with a category of its own says nothing of certainty."""
    status = "provisional" if suspected else "confirmed"
    return make.Condition(
        meta=meta("UKCore-Condition"),
        clinicalStatus=concept(f"{codes.HL7}condition-clinical", "active"),
        verificationStatus=concept(f"{codes.HL7}condition-ver-status", status)
        if category is None
        else None,
        category=[category or concept(f"{codes.HL7}condition-category", "encounter-diagnosis")],
        code=code,
        bodySite=[site] if site else None,
        subject=reference(patient),
        encounter=reference(encounter) if encounter else None,
        recordedDate=moment(recorded),
        recorder=reference(recorder),
    )


def taken(
    block: blocks.TakenMedicine, patient: str, said_by: str, asserted: When
) -> MedicationStatement:
    """Return a medicine that the patient takes; of one that was changed, what was done and why."""
    changed = block if isinstance(block, blocks.ChangedMedicine) else None
    return make.MedicationStatement(
        meta=meta("UKCore-MedicationStatement"),
        status="stopped" if changed is not None and changed.change == "stopped" else "active",
        statusReason=[make.CodeableConcept(text=changed.why)]
        if changed is not None and changed.why
        else None,
        medicationCodeableConcept=coded(
            blocks.Coded.model_construct(text=block.name, code=block.dmd_code), codes.DMD
        ),
        subject=reference(patient),
        dateAsserted=moment(asserted),
        informationSource=reference(said_by),
        dosage=[make.Dosage(text=block.dose)] if block.dose else None,
        note=[note(changed.in_words)] if changed is not None else None,
    )


def clinic_pressure(
    systolic: Decimal, diastolic: Decimal, *, patient: str, performer: str, taken: When
) -> Observation:
    """Return a blood pressure in mmHg, as it was taken in a clinic."""
    methods = codes.system("blood-pressure")
    terms = methods.properties["clinic"]
    parts = (
        (terms["systolic"], "Systolic blood pressure", systolic),
        (terms["diastolic"], "Diastolic blood pressure", diastolic),
    )
    return observation(
        code=concept(codes.SNOMED, terms["panel"], None, methods.display("clinic")),
        patient=patient,
        performer=performer,
        taken=taken,
        components=[
            component(concept(codes.SNOMED, term, None, words), quantity(value, "mm[Hg]"))
            for term, words, value in parts
        ],
    )


def allergy(
    block: blocks.Allergy, patient: str, recorder: str, recorded: When
) -> AllergyIntolerance:
    """Return an allergy as the patient tells it: active, not confirmed."""
    reaction = block.reaction
    return make.AllergyIntolerance(
        meta=meta("UKCore-AllergyIntolerance"),
        clinicalStatus=concept(f"{codes.HL7}allergyintolerance-clinical", "active"),
        verificationStatus=concept(f"{codes.HL7}allergyintolerance-verification", "unconfirmed"),
        code=coded(block.substance),
        patient=reference(patient),
        recordedDate=moment(recorded),
        recorder=reference(recorder),
        reaction=[
            make.AllergyIntoleranceReaction(manifestation=[make.CodeableConcept(text=reaction)])
        ]
        if reaction
        else None,
    )


def flags_of(block: blocks.Patient) -> Iterator[tuple[CodeableConcept, str]]:
    """Yield what is to be known of a patient before anything else, each with its category."""
    if block.safeguarding is not None:
        yield make.CodeableConcept(text=block.safeguarding), "safety"
    for words in block.flags:
        yield make.CodeableConcept(text=words), "admin"
    for words in block.needs:
        yield make.CodeableConcept(text=words), "contact"


def flag(code: CodeableConcept, patient: str, author: str, start: When, category: str) -> Flag:
    """Return something to know before anything else: `category` of the flag-category system."""
    return make.Flag(
        meta=meta("UKCore-Flag"),
        status="active",
        category=[concept(f"{codes.HL7}flag-category", category)],
        code=code,
        subject=reference(patient),
        period=period(start),
        author=reference(author),
    )
