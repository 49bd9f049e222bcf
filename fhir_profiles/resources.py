"""From blocks to FHIR R4 resources, typed, claiming the UK Core profile where there is one.

Here are the pieces that all share, and the parties; what happened is in `clinical`. Builders take
what they refer to by its fullUrl. A code that comes out of our own tables is built once and shared:
nothing changes a resource after it is built.
"""

from datetime import date, datetime
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any, Final

from fhir.resources.R4B.address import Address
from fhir.resources.R4B.annotation import Annotation
from fhir.resources.R4B.codeableconcept import CodeableConcept
from fhir.resources.R4B.coding import Coding
from fhir.resources.R4B.contactpoint import ContactPoint
from fhir.resources.R4B.extension import Extension
from fhir.resources.R4B.humanname import HumanName
from fhir.resources.R4B.identifier import Identifier
from fhir.resources.R4B.meta import Meta
from fhir.resources.R4B.organization import Organization
from fhir.resources.R4B.patient import Patient, PatientCommunication
from fhir.resources.R4B.period import Period
from fhir.resources.R4B.practitioner import Practitioner
from fhir.resources.R4B.practitionerrole import PractitionerRole
from fhir.resources.R4B.quantity import Quantity
from fhir.resources.R4B.reference import Reference
from fhir.resources.R4B.relatedperson import RelatedPerson

from fhir_profiles import blocks, codes, make
from fhir_profiles.working_days import london

When = date | datetime

_RESTRICTED: Final = "R"


# -- pieces --------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def coding(system: str, code: str, display: str | None = None) -> Coding:
    """Return a coding of our own tables, built once. Never for words that a sender typed."""
    return make.Coding(system=system, code=code, display=display)


@lru_cache(maxsize=4096)
def concept(
    system: str, code: str, display: str | None = None, text: str | None = None
) -> CodeableConcept:
    """Return a concept of our own tables, built once. Never for words that a sender typed."""
    return make.CodeableConcept(coding=[coding(system, code, display)], text=text)


def defined(name: str, code: str) -> CodeableConcept:
    """Return a concept of the code system in `definitions/<name>.json`, with its words."""
    system = codes.system(name)
    return concept(system.url, code, system.display(code))


def coded(block: blocks.Coded, system: str = codes.SNOMED) -> CodeableConcept:
    """Return the sender's words, with their code beside them where there is one."""
    if block.code is None:
        return make.CodeableConcept(text=block.text)
    return make.CodeableConcept(
        coding=[make.Coding(system=system, code=block.code)], text=block.text
    )


@lru_cache(maxsize=128)
def meta(profile: str, label: str | None = None) -> Meta:
    """Return the claim of a UK Core profile, and the confidentiality label R where it is given."""
    security = [coding(f"{codes.HL7}v3-Confidentiality", label)] if label == _RESTRICTED else None
    return make.Meta(profile=[f"{codes.UK_CORE}{profile}"], security=security)


@lru_cache(maxsize=1024)
def reference(full_url: str) -> Reference:
    """Return a reference to another entry of the same Bundle; built once, for it is used often."""
    return make.Reference(reference=full_url)


def by_identifier(kind: str, system: str, value: str, display: str | None = None) -> Reference:
    """Return a reference to something that is not in the Bundle."""
    return make.Reference(
        type=kind, identifier=make.Identifier(system=system, value=value), display=display
    )


def extension(url: str, **value: Any) -> Extension:
    """Return an extension with one `value…`."""
    return make.Extension(url=url, **value)


def quantity(value: Decimal, unit: str | None) -> Quantity:
    """Return a number with its unit: UCUM where our table knows it, else the sender's word."""
    known = codes.system("unit")
    if unit is None or unit not in known:
        return make.Quantity(value=value, unit=unit)
    return make.Quantity(value=value, unit=known.display(unit), system=codes.UCUM, code=unit)


def note(text: str, code: str | None = None) -> Annotation:
    """Return a note; a code of the system `warning` lets software tell it from others."""
    warning = codes.system("warning")
    if code is None or code not in warning:  # what nobody has defined says nothing to software
        return make.Annotation(text=text)
    words = coding(warning.url, code, warning.display(code))
    return make.Annotation(
        extension=[extension(codes.EXT_WARNING, valueCoding=words)],
        text=text,
    )


def moment(when: When) -> Any:
    """Return a time as FHIR's dateTime, which may be a date; the library's types forget that."""
    return when


def period(start: When | None = None, end: When | None = None) -> Period:
    """Return a period; either end may be open.

    From a time to the end of its own day is written as that day, twice: FHIR compares a day with
    none of its times (per-1), and the reference validator refuses what it cannot compare.
    """
    if isinstance(start, datetime) and end in {start.date(), london(start).date()}:
        start = end
    return make.Period(start=moment(start) if start else None, end=moment(end) if end else None)


def human_name(name: blocks.PersonName, use: str | None = None) -> HumanName:
    """Return a name in its parts."""
    return make.HumanName(
        use=use,
        family=name.family,
        given=[name.given] if name.given else None,
        prefix=[name.prefix] if name.prefix else None,
    )


def telephone(number: str | None) -> list[ContactPoint] | None:
    """Return a telephone number as the list that FHIR wants, or None."""
    return [make.ContactPoint(system="phone", value=number)] if number else None


# -- who and where -------------------------------------------------------------------------------


def patient(block: blocks.Patient, practice: str | None = None) -> Patient:
    """Return the patient; `practice` is the fullUrl of the registered practice."""
    return make.Patient(
        meta=meta("UKCore-Patient", _RESTRICTED if block.sensitive else None),
        extension=_patient_extensions(block) or None,
        identifier=_nhs_number(block),
        name=[human_name(block.name, "official")],
        telecom=telephone(block.telephone),
        gender=block.sex,
        birthDate=block.birth_date,
        address=_address(block.address),
        communication=_communication(block),
        generalPractitioner=[reference(practice)] if practice else None,
    )


def _nhs_number(block: blocks.Patient) -> list[Identifier] | None:
    if block.nhs_number is None:
        return None
    status = block.nhs_number_status
    return [
        make.Identifier(
            extension=[_number_status(status)] if status else None,
            system=codes.NHS_NUMBER,
            value=block.nhs_number,
        )
    ]


@cache
def _number_status(status: str) -> Extension:
    words = defined("nhs-number-verification-status", status)
    return extension(codes.EXT_NHS_NUMBER_STATUS, valueCodeableConcept=words)


def _address(block: blocks.Address | None) -> list[Address] | None:
    if block is None or not (block.lines or block.postcode):
        return None
    return [make.Address(line=list(block.lines) or None, postalCode=block.postcode)]


def _communication(block: blocks.Patient) -> list[PatientCommunication] | None:
    if block.language is None:
        return None
    language = make.CodeableConcept(coding=[make.Coding(system=codes.BCP47, code=block.language)])
    return [make.PatientCommunication(language=language, preferred=True)]


def _patient_extensions(block: blocks.Patient) -> list[Extension]:
    found = []
    if block.nhs_number is None:
        found.append(_number_not_known())
    if block.ethnicity is not None:
        found.append(_ethnic_category(block.ethnicity))
    if block.preferred_contact is not None:
        found.append(_contact_preference(block.preferred_contact))
    if block.interpreter_required is not None:
        found.append(extension(codes.EXT_INTERPRETER, valueBoolean=block.interpreter_required))
    return found


@cache
def _number_not_known() -> Extension:
    words = concept(codes.NO_NHS_NUMBER, "nhs-number-not-known", "NHS number not known")
    return extension(codes.EXT_NO_NHS_NUMBER, valueCodeableConcept=words)


@cache
def _ethnic_category(code: str) -> Extension:
    words = defined("ethnic-category", code)
    return extension(codes.EXT_ETHNIC_CATEGORY, valueCodeableConcept=words)


@cache
def _contact_preference(preferred: str) -> Extension:
    methods = codes.system("preferred-contact-method")
    code = methods.properties[preferred]["uk-core"]
    method = concept(codes.PREFERRED_CONTACT, code, methods.display(preferred))
    return make.Extension(
        url=codes.EXT_CONTACT_PREFERENCE,
        extension=[extension("PreferredContactMethod", valueCodeableConcept=method)],
    )


def related_person(block: blocks.Guardian, patient: str) -> RelatedPerson:
    """Return who speaks for the patient."""
    return make.RelatedPerson(
        meta=meta("UKCore-RelatedPerson"),
        active=True,
        patient=reference(patient),
        relationship=[make.CodeableConcept(text=block.relationship)],
        name=[human_name(block.name)],
        telecom=telephone(block.telephone),
    )


@lru_cache(maxsize=4096)
def organization(ods: str, name: str | None = None, number: str | None = None) -> Organization:
    """Return an organisation, known by its ODS code; `number` is its telephone's.

    Built once: the same few send and get every message.
    """
    return make.Organization(
        meta=meta("UKCore-Organization"),
        identifier=[make.Identifier(system=codes.ODS, value=ods)],
        name=name or None,
        telecom=telephone(number),
    )


def practitioner(name: blocks.PersonName, system: str, number: str | None) -> Practitioner:
    """Return a clinician with the number under which the regulator `system` knows them."""
    return make.Practitioner(
        meta=meta("UKCore-Practitioner"),
        identifier=[make.Identifier(system=system, value=number)] if number else None,
        name=[human_name(name)],
    )


def practitioner_role(
    practitioner: str, organization: str, role: CodeableConcept
) -> PractitionerRole:
    """Return what a clinician is at an organisation."""
    return make.PractitionerRole(
        meta=meta("UKCore-PractitionerRole"),
        practitioner=reference(practitioner),
        organization=reference(organization),
        code=[role],
    )
