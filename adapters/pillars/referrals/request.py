"""What every form of a referral holds, and what the rest of this room asks of a form.

A form says by itself what is meant by it: `form` by the catalogue's pathways, an optometrist's own
by the condition of the eye.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Protocol

from pydantic import Field

from adapters.pillars.who import Who
from fhir_profiles.blocks import Allergy, AnyPatient, Fault, Provider, TakenMedicine, Urgency
from fhir_profiles.pathways.entry import Entry
from fhir_profiles.pathways.parts import Level
from fhir_profiles.values import Flagged, Line, Text


class Judged(Protocol):
    """How soon and to whom: what the rules make of a referral, whichever they are."""

    @property
    def entry(self) -> Entry: ...

    @property
    def asked(self) -> Level: ...

    @property
    def table(self) -> Level | None: ...

    @property
    def urgency(self) -> Level: ...

    @property
    def rule(self) -> str: ...

    @property
    def receiver(self) -> str: ...

    @property
    def emergency(self) -> bool: ...

    @property
    def calls_999(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Meant:
    """What a referral comes to. `clinic` is sought among those of the receiver's type; `words` say
    for what, where that is more than the receiver; `field` is where the body says it."""

    judgement: Judged
    field: str
    clinic: str = ""
    words: str = ""


class Request(Who, ABC):
    """What all forms of a referral have in common; a pillar adds who refers."""

    reference: Line = Field(examples=["2026-004711"])
    """Your own reference for this referral: unique within your organisation, for ever."""
    patient: AnyPatient
    """The patient. Without an NHS number, name, birth date, sex, address, postcode and telephone
    are needed, and the message says that the identity is not verified."""
    consent: Flagged
    """Whether the patient agrees to be referred and to have this shared. If not, nothing is sent
    and nothing clinical is kept."""
    urgency: Urgency = Field(examples=["routine"])
    """How soon you ask for. What it is for may raise it, and never lowers it."""
    symptoms: Text | None = Field(default=None, examples=["Distortion for 5 days"])
    """Symptoms, and for how long."""
    history: Text | None = Field(default=None, examples=["Type 2 diabetes since 2019"])
    """Relevant history: of the patient, and of the family."""
    medicines: tuple[TakenMedicine, ...] | None = Field(default=None, max_length=100)
    """Medicines that the patient takes; an empty list says that there are none."""
    allergies: tuple[Allergy, ...] | None = Field(default=None, max_length=50)
    """Allergies and intolerances; an empty list says that there are none known."""
    provider: Provider | None = None
    """The provider to send it to, if you or the patient name one."""
    information_for_patient: Text | None = Field(default=None, examples=["Call 111 if it worsens"])
    """What the patient was told to do meanwhile."""
    additional_information: Text | None = None
    """Anything else that the receiver should know."""

    @property
    @abstractmethod
    def happened(self) -> date | datetime:
        """When the patient was seen: the clocks start here."""

    @property
    @abstractmethod
    def reason_code(self) -> str:
        """Why, as the catalogue knows it, or as it was said."""

    def is_at_risk(self, now: datetime) -> bool:
        """Whether nobody but a person may let it go: the patient is a child, or in danger."""
        return self.patient.is_at_risk(now)

    @property
    @abstractmethod
    def meant(self) -> Meant:
        """How soon and to whom."""

    @abstractmethod
    def warnings(self, now: datetime) -> Iterator[Fault]:
        """Yield what the sender is told of the referral itself; codes of the system `warning`."""

    @classmethod
    @abstractmethod
    def glance(cls, raw: Mapping[str, Any]) -> Meant | None:
        """Judge a body of which nothing is known to be right; None where nothing can be said."""
