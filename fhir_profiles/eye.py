"""What an eye condition and a pressure ask for: urgency, receiver and clocks, as versioned data.

Pure, and never lowers the urgency that the sender gave. The rows are
`pathways/eye-conditions.yaml`, the codes and their words `definitions/eye-condition.json`;
both are read once, and a fault in either stops the start with the field that is wrong.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from importlib.resources import files
from typing import Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fhir_profiles import codes
from fhir_profiles.pathways import Range
from fhir_profiles.working_days import end_of_day, london, working_day_end

CONDITIONS: Final = "eye-condition"

Urgency = Literal["stat", "urgent", "asap", "routine"]
Receiver = Literal["eye-casualty", "macular", "general-practice", "urgent-eye", "spa"]
Tonometer = Literal["goldmann", "perkins", "rebound", "non-contact", "other"]

# From the most urgent to the least.
URGENCIES: Final[tuple[Urgency, ...]] = ("stat", "urgent", "asap", "routine")
_WORDS: Final[dict[Urgency, str]] = {
    "stat": "same day",
    "urgent": "urgent",
    "asap": "within 7 days",
    "routine": "routine",
}


def words(urgency: Urgency) -> str:
    """Return the level as a person says it."""
    return _WORDS[urgency]


def at_least_as_urgent(one: Urgency, other: Urgency) -> bool:
    """Tell whether `one` is `other` or more urgent."""
    return URGENCIES.index(one) <= URGENCIES.index(other)


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=lambda name: name.replace("_", "-")
    )


class ClockRule(_Strict):
    """A clock that runs from the date of the sight test, in days or in working days."""

    kind: Literal["sent", "seen", "treated"]
    days: int | None = Field(None, ge=0)
    working_days: int | None = Field(None, ge=1)
    source: str

    @model_validator(mode="after")
    def _one_measure(self) -> Self:
        if (self.days is None) == (self.working_days is None):
            raise ValueError("A clock counts either `days` or `working-days`.")
        return self

    def due(self, sight_test: date) -> datetime:
        """Return when it ends: 18:30 in London on its last day, as aware UTC."""
        if self.working_days is not None:
            return working_day_end(sight_test, self.working_days)
        return end_of_day(sight_test + timedelta(days=self.days or 0))


class Row(_Strict):
    """What one condition asks for."""

    code: str
    urgency: Urgency
    receiver: Receiver
    source: str
    local: bool = False
    emergency_department: bool = False
    clocks: tuple[ClockRule, ...] = ()

    @property
    def rule(self) -> str:
        """The name by which an answer speaks of this row."""
        return f"{self.code} ({self.source})"


class PressureLine(_Strict):
    """A range of pressures (mmHg) that asks for what the row `code` asks for."""

    code: str
    when: Range


class RepeatPressure(_Strict):
    """When a raised pressure should have been taken properly, and twice, before referring."""

    at_least: Decimal
    up_to: Decimal
    none_from: Urgency
    confirmed_by: tuple[Tonometer, ...]
    source: str


class SeenWithin(_Strict):
    """Within how many days of the sight test a level is to be seen."""

    urgency: Urgency
    days: int = Field(ge=0)
    source: str


class EyeRules(_Strict):
    """The whole table. Every code in it is a concept of the CodeSystem, and every concept a row."""

    name: str
    version: str
    seen_within: tuple[SeenWithin, ...]
    conditions: tuple[Row, ...]
    pressure_lines: tuple[PressureLine, ...]
    repeat_pressure: RepeatPressure
    without_gp: Receiver
    without_row: Receiver

    @model_validator(mode="after")
    def _codes_agree(self) -> Self:
        rows = [row.code for row in self.conditions]
        if len(set(rows)) != len(rows):
            raise ValueError("A condition has two rows.")
        odd = sorted(set(rows) ^ codes.system(CONDITIONS).displays.keys())
        if odd:
            raise ValueError(f"In the table or in the CodeSystem, but not in both: {odd}")
        unknown = sorted({line.code for line in self.pressure_lines} - set(rows))
        if unknown:
            raise ValueError(f"A pressure line names no row: {unknown}")
        return self


@dataclass(frozen=True, slots=True)
class Reading:
    """One measured pressure, in mmHg, and where it stands in the sender's request."""

    path: str
    pressure: Decimal
    method: Tonometer | None
    repeated: bool


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that a rule has to say to the sender, with the field that it is about."""

    path: str
    code: str
    detail: str
    todo: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the rules make of a referral. Both urgencies are kept; `rule` names what decided.

    `table` is None where no row speaks of the condition and no pressure line holds.
    """

    urgency: Urgency
    sender: Urgency
    table: Urgency | None
    rule: str
    receiver: Receiver
    row: Row | None
    deciding: Row | None
    remarks: tuple[Remark, ...]

    @property
    def raised(self) -> bool:
        """Whether the table asks for more than the sender did."""
        return self.urgency != self.sender

    @property
    def emergency_department(self) -> bool:
        """Whether the data of this condition asks for the 999/A&E words."""
        return any(row.emergency_department for row in (self.row, self.deciding) if row is not None)

    @property
    def clocks(self) -> tuple[ClockRule, ...]:
        """The clocks that the condition carries beside those of its level."""
        return self.row.clocks if self.row is not None else ()

    def seen_by(self, sight_test: date | datetime) -> datetime | None:
        """Return when the patient is to be seen at the latest, if any rule says so."""
        day = london(sight_test).date() if isinstance(sight_test, datetime) else sight_test
        ends = [clock.due(day) for clock in self.clocks if clock.kind == "seen"]
        ends += [
            end_of_day(day + timedelta(days=line.days))
            for line in rules().seen_within
            if line.urgency == self.urgency
        ]
        end = min(ends, default=None)
        if end is not None and isinstance(sight_test, datetime) and end <= sight_test:
            # Tested after hours: what is for the same day is for the next one, within 24 hours.
            return end_of_day(day + timedelta(days=1))
        return end


@lru_cache(maxsize=1)
def rules() -> EyeRules:
    """Return the table, read and checked once."""
    text = (files("fhir_profiles") / "pathways" / "eye-conditions.yaml").read_text("utf-8")
    return EyeRules.model_validate(yaml.safe_load(text))


@lru_cache(maxsize=1)
def _rows() -> dict[str, Row]:
    return {row.code: row for row in rules().conditions}


def conditions() -> Sequence[str]:
    """Return every condition code, in the order of the table."""
    return tuple(_rows())


def display(code: str) -> str:
    """Return the words of a condition. Raises KeyError for a code that the table does not hold."""
    return codes.system(CONDITIONS).display(code)


def snomed_of(code: str) -> str | None:
    """Return the SNOMED CT concept that means the same, where a reference confirms one."""
    return codes.system(CONDITIONS).properties.get(code, {}).get("snomed")


def row(code: str) -> Row:
    """Return what the table says of a code. Raises KeyError for one that it does not hold."""
    return _rows()[code]


def of_snomed(concept: str) -> str | None:
    """Return our code for a SNOMED CT concept, if one of ours means the same."""
    return next((code for code in _rows() if snomed_of(code) == concept), None)


def row_of_pressure(pressure: Decimal) -> Row | None:
    """Return what a measured pressure asks for by itself, if anything."""
    line = next((line for line in rules().pressure_lines if line.when.holds(pressure)), None)
    return _rows()[line.code] if line is not None else None


def judge(
    sender: Urgency,
    *,
    code: str | None,
    readings: Sequence[Reading] = (),
    why_not_gp: str | None = None,
) -> Judgement:
    """Return the higher of the sender's and the table's urgency, with the rule that decided.

    `code` is our own code of the condition, or None where the condition has none: then the
    sender's urgency stands, unless a pressure asks for more. `why_not_gp` says why the GP cannot
    be the receiver, if that is so.
    """
    own = row(code) if code is not None else None
    deciding = _most_urgent([own, *(row_of_pressure(reading.pressure) for reading in readings)])
    remarks: list[Remark] = []
    if own is None:
        remarks.append(_NO_ROW)
    table = deciding.urgency if deciding is not None else None
    raised = deciding is not None and not at_least_as_urgent(sender, deciding.urgency)
    urgency = deciding.urgency if deciding is not None and raised else sender
    if deciding is not None and raised:
        remarks.append(
            Remark(
                "urgency",
                "urgency-raised",
                f"Asked for as {words(sender)}; goes as {words(urgency)} by the rule "
                f"{deciding.rule}.",
                "Nothing to do; both urgencies are on the message.",
            )
        )
    receiver = deciding.receiver if deciding is not None else rules().without_row
    if receiver == "general-practice" and why_not_gp is not None:
        receiver = rules().without_gp
        remarks.append(
            Remark(
                "practice.ods",
                "urgent-eye-service-for-gp",
                f"This condition goes to the patient's GP practice, but {why_not_gp}; it goes to "
                "the urgent eye service instead.",
                "Give the practice's ODS code, and name no provider, if the GP is to act.",
            )
        )
    remarks.extend(_unconfirmed_pressures(readings, urgency))
    return Judgement(
        urgency=urgency,
        sender=sender,
        table=table,
        rule=_named(sender, deciding, raised=raised),
        receiver=receiver,
        row=own,
        deciding=deciding,
        remarks=tuple(remarks),
    )


_NO_ROW: Final = Remark(
    "condition.snomed",
    "condition-without-a-rule",
    "No rule is known for this SNOMED CT concept. It is kept, and does not change the urgency.",
    "Check that the urgency is right, or give a code of our CodeSystem eye-condition.",
)


def _most_urgent(candidates: Iterable[Row | None]) -> Row | None:
    """The first of the most urgent: between equals the condition stands before a pressure."""
    present = [row for row in candidates if row is not None]
    return min(present, key=lambda row: URGENCIES.index(row.urgency), default=None)


def _named(sender: Urgency, deciding: Row | None, *, raised: bool) -> str:
    version = rules().version
    if deciding is None:
        return f"the sender's own urgency, {words(sender)}; {rules().name} {version} has no row"
    if raised or deciding.urgency == sender:
        return f"{rules().name} {version}: {deciding.rule}, {words(deciding.urgency)}"
    return (
        f"the sender's own urgency, {words(sender)}; {rules().name} {version} says "
        f"{words(deciding.urgency)}: {deciding.rule}"
    )


def _unconfirmed_pressures(readings: Sequence[Reading], urgency: Urgency) -> list[Remark]:
    rule = rules().repeat_pressure
    # One eye above the line is reason enough to send at once, whatever the other eye measured.
    if at_least_as_urgent(urgency, rule.none_from) or any(
        reading.pressure > rule.up_to for reading in readings
    ):
        return []
    return [
        Remark(
            reading.path,
            "pressure-not-confirmed",
            f"This pressure is {rule.at_least} mmHg or more, and was not both taken by contact "
            "(Goldmann-type) tonometry and repeated.",
            "Repeat it by Goldmann-type tonometry if the patient can wait, and amend the referral.",
        )
        for reading in readings
        if reading.pressure >= rule.at_least
        and not (reading.repeated and reading.method in rule.confirmed_by)
    ]
