"""Who speaks: a pillar's organisation and its clinician, in that pillar's own words."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

from fhir.resources.R4B.codeableconcept import CodeableConcept
from pydantic import Field, create_model

from fhir_profiles import make
from fhir_profiles.blocks import Block, Organisation, PersonName, WithAttachments
from fhir_profiles.consent import Looked, Sender
from fhir_profiles.values import Line


class Speaker(Block, ABC):
    """A clinician who speaks."""

    name: PersonName
    """The clinician's name."""

    registers: ClassVar[Mapping[str, str]] = {}
    """The fields that hold a registration, each with its identifier system."""

    @property
    def registration(self) -> tuple[str, str | None]:
        """The number under which the clinician is registered, if it was given, and its system."""
        for field, system in self.registers.items():
            if getattr(self, field, None) is not None:
                return system, getattr(self, field)
        return "", None

    @property
    @abstractmethod
    def job(self) -> CodeableConcept:
        """What they are."""


class Clinician(Speaker):
    """A clinician, and what they are."""

    role: Line = Field(examples=["General practitioner"])
    """What they are."""

    @property
    def job(self) -> CodeableConcept:
        return make.CodeableConcept(text=self.role)


@cache
def _looked(field: str) -> type[Looked]:
    class OfSender(Looked):
        @property
        def sender(self) -> Sender:
            found: Sender = getattr(self, field)
            return found

    fields: dict[str, Any] = {field: (Sender, ...)}
    made: type[Looked] = create_model("Looked", __base__=OfSender, **fields)
    return made


class Who(WithAttachments):
    """What every form has beside what it says: who speaks, in the pillar's own words, the patient's
    practice, and what goes with it."""

    pillar: ClassVar[str]
    sender_field: ClassVar[str]
    # What kind of service speaks, and by whom its referrals are, where a reference has a code.
    service: ClassVar[CodeableConcept | None] = None
    source: ClassVar[CodeableConcept | None] = None

    practice: Organisation | None = None
    """The patient's registered GP practice, if it is known. It gets a copy."""

    @property
    def organisation(self) -> Organisation:
        """Who speaks: the organisation of the token."""
        found: Organisation = getattr(self, self.sender_field)
        return found

    @property
    def speaker(self) -> Speaker | None:
        """The clinician who speaks; None where no clinician does."""
        found: Speaker | None = getattr(self, "clinician", None)
        return found

    @classmethod
    def looked(cls) -> type[Looked]:
        """Return what is still looked at where the patient refused."""
        return _looked(cls.sender_field)
