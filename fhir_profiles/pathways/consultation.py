"""A pharmacy's consultation in an entry: what it is called, and the rules that it is judged by."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Literal, Self, cast

from pydantic import Field, model_validator

from fhir_profiles import codes
from fhir_profiles.pathways.parts import Level, Strict
from fhir_profiles.pathways.rules import ESCALATIONS, Escalation, Rule
from fhir_profiles.working_days import london


class Outcome(Strict):
    """How a consultation ended."""

    code: str
    words: str
    supplies: bool = False
    needs_medicine: bool = False
    asks_gp: Level | None = None
    emergency: bool = False


class Term(Strict):
    """A SNOMED CT concept, with the words used for it here."""

    code: str = Field(pattern=r"^[0-9]{6,18}$")
    words: str


class Gateway(Strict):
    """What must be found before a medicine may be supplied."""

    words: str
    source: str
    local: bool = False


class Consultation(Strict):
    """What a pharmacy does on a pathway, when the patient is there."""

    strand: Literal["clinical-pathway", "minor-illness", "blood-pressure", "contraception"]
    encounter: Term
    diagnosis: Term | None = None
    gateway: Gateway | None = None
    rules: tuple[Rule, ...]


class Shared(Strict):
    """What holds for every service of a pillar."""

    version: str
    act_within_days: Mapping[Level, int]
    pulse_confirmed_after_minutes: int
    outcomes: tuple[Outcome, ...]
    escalations: tuple[Escalation, ...]
    warnings: tuple[Rule, ...]

    def act_by(self, seen: date | datetime, level: str) -> date | None:
        """Return the day by which the practice is to act, counted from that in London on which the
        patient was seen; None where the level sets none."""
        days = self.act_within_days.get(cast("Level", level))
        day = london(seen).date() if isinstance(seen, datetime) else seen
        return None if days is None else day + timedelta(days=days)

    @model_validator(mode="after")
    def _codes_agree(self) -> Self:
        defined = codes.system(ESCALATIONS).displays.keys()
        odd = sorted({rule.id for rule in self.escalations} ^ defined)
        if odd:
            raise ValueError(f"an escalation, or a code of {ESCALATIONS}.json, but not both: {odd}")
        return self
