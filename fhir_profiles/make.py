"""Makers of the FHIR resources in use: fhir.resources' typed models, not checked twice.

Their own constructors look at every member, and at all that could have been one: most of the time
of a translation. The content that they end in is checked as a whole by `fhir_profiles.structure`.
"""

from collections.abc import Callable
from functools import update_wrapper
from typing import ParamSpec, TypeVar, cast

from fhir.resources.R4B import (
    address,
    allergyintolerance,
    annotation,
    attachment,
    codeableconcept,
    coding,
    communication,
    condition,
    contactpoint,
    documentreference,
    dosage,
    encounter,
    extension,
    fhirprimitiveextension,
    flag,
    humanname,
    identifier,
    medicationdispense,
    medicationstatement,
    messageheader,
    meta,
    observation,
    organization,
    patient,
    period,
    practitioner,
    practitionerrole,
    quantity,
    reference,
    relatedperson,
    servicerequest,
    task,
)
from fhir_core.fhirabstractmodel import FHIRAbstractModel

P = ParamSpec("P")
M = TypeVar("M")


def trusted(model: Callable[P, M]) -> Callable[P, M]:
    """Return a maker of a model, with the model's own signature, that trusts what it is given.

    What it makes equals what the constructor makes of the same members, wherever that takes them;
    a member that the model does not have is a TypeError. None means not there.
    """
    made_of = cast("type[FHIRAbstractModel]", model)
    fields = made_of.model_fields
    attributes = {name: name for name in fields}
    attributes |= {field.alias: name for name, field in fields.items() if field.alias}
    blank = {name: field.default for name, field in fields.items() if not field.is_required()}

    def make(*_: P.args, **members: P.kwargs) -> M:
        made = made_of.__new__(made_of)
        try:
            given = {attributes[name]: it for name, it in members.items() if it is not None}
        except KeyError as unknown:
            raise TypeError(f"{made_of.__name__} has no member {unknown}") from None
        place = object.__setattr__
        place(made, "__dict__", blank | given)
        place(made, "__pydantic_fields_set__", set(given))
        place(made, "__pydantic_extra__", None)
        place(made, "__pydantic_private__", None)
        return cast("M", made)

    update_wrapper(make, made_of, updated=())
    return make


Address = trusted(address.Address)
AllergyIntolerance = trusted(allergyintolerance.AllergyIntolerance)
AllergyIntoleranceReaction = trusted(allergyintolerance.AllergyIntoleranceReaction)
Annotation = trusted(annotation.Annotation)
Attachment = trusted(attachment.Attachment)
CodeableConcept = trusted(codeableconcept.CodeableConcept)
Coding = trusted(coding.Coding)
Communication = trusted(communication.Communication)
CommunicationPayload = trusted(communication.CommunicationPayload)
Condition = trusted(condition.Condition)
ContactPoint = trusted(contactpoint.ContactPoint)
DocumentReference = trusted(documentreference.DocumentReference)
DocumentReferenceContent = trusted(documentreference.DocumentReferenceContent)
Dosage = trusted(dosage.Dosage)
Encounter = trusted(encounter.Encounter)
EncounterParticipant = trusted(encounter.EncounterParticipant)
Extension = trusted(extension.Extension)
FHIRPrimitiveExtension = trusted(fhirprimitiveextension.FHIRPrimitiveExtension)
Flag = trusted(flag.Flag)
HumanName = trusted(humanname.HumanName)
Identifier = trusted(identifier.Identifier)
MedicationDispense = trusted(medicationdispense.MedicationDispense)
MedicationDispensePerformer = trusted(medicationdispense.MedicationDispensePerformer)
MedicationStatement = trusted(medicationstatement.MedicationStatement)
MessageHeader = trusted(messageheader.MessageHeader)
MessageHeaderDestination = trusted(messageheader.MessageHeaderDestination)
MessageHeaderResponse = trusted(messageheader.MessageHeaderResponse)
MessageHeaderSource = trusted(messageheader.MessageHeaderSource)
Meta = trusted(meta.Meta)
Observation = trusted(observation.Observation)
ObservationComponent = trusted(observation.ObservationComponent)
Organization = trusted(organization.Organization)
Patient = trusted(patient.Patient)
PatientCommunication = trusted(patient.PatientCommunication)
Period = trusted(period.Period)
Practitioner = trusted(practitioner.Practitioner)
PractitionerRole = trusted(practitionerrole.PractitionerRole)
Quantity = trusted(quantity.Quantity)
Reference = trusted(reference.Reference)
RelatedPerson = trusted(relatedperson.RelatedPerson)
ServiceRequest = trusted(servicerequest.ServiceRequest)
Task = trusted(task.Task)
