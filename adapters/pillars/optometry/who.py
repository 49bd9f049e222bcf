"""Who speaks for optometry."""

from typing import ClassVar

from fhir.resources.R4B.codeableconcept import CodeableConcept

from adapters.pillars.who import Who
from fhir_profiles import codes, resources
from fhir_profiles.blocks import Organisation


class OfOptometry(Who):
    """What all forms of the pillar have in common."""

    pillar: ClassVar[str] = "optometry"
    sender_field: ClassVar[str] = "optical_practice"
    # Each is confirmed by the project's references (UK Core value sets).
    service: ClassVar[CodeableConcept | None] = resources.concept(
        codes.SNOMED, "310105000", "Optometry service"
    )
    source: ClassVar[CodeableConcept | None] = resources.concept(
        codes.SNOMED, "185368000", "Referred by optician"
    )

    optical_practice: Organisation
    """The optical practice: the organisation of your token."""
