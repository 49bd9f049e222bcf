"""What an eye condition and a pressure ask for: urgency, receiver and clocks, as versioned data.

Pure, and never lowers the urgency that the sender gave. A condition is a reason of one of the
catalogue's pathways of the eye; `pathways/eye.yaml` has what holds for all of them. A fault in
either stops the start with the field that is wrong.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from typing import Final, Literal, Self

from pydantic import model_validator

from fhir_profiles import codes
from fhir_profiles.pathways import documents
from fhir_profiles.pathways.catalogue import Due, catalogue
from fhir_profiles.pathways.entry import Entry, Reason
from fhir_profiles.pathways.parts import (
    LEVELS,
    Clock,
    Level,
    Strict,
    at_least_as_urgent,
    words,
)
from fhir_profiles.pathways.rules import Range
from fhir_profiles.working_days import start_of

CONDITIONS: Final = "eye-condition"
_OF_EYE_CARE: Final[tuple[Clock, ...]] = ("sent", "contacted", "seen", "treated")

Tonometer = Literal["goldmann", "perkins", "rebound", "non-contact", "other"]


@dataclass(frozen=True, slots=True)
class Row:
    """What one condition asks for: its reason, and the pathway that it is one of."""

    entry: Entry
    reason: Reason

    @property
    def code(self) -> str:
        return self.reason.code

    @property
    def urgency(self) -> Level:
        return self.reason.urgency or self.entry.urgency

    @property
    def receiver(self) -> str:
        return self.reason.receiver or self.entry.receivers[0]

    @property
    def rule(self) -> str:
        """The name by which an answer speaks of this row."""
        return f"{self.code} ({self.reason.source})"


class PressureLine(Strict):
    """A range of pressures (mmHg) that asks for what the row `code` asks for."""

    code: str
    when: Range


class RepeatPressure(Strict):
    """When a raised pressure should have been taken properly, and twice, before referring."""

    at_least: Decimal
    up_to: Decimal
    none_from: Level
    confirmed_by: tuple[Tonometer, ...]
    source: str


class EyeRules(Strict):
    """What holds for every pathway of the eye."""

    name: str
    version: str
    pressure_lines: tuple[PressureLine, ...]
    repeat_pressure: RepeatPressure
    without_gp: str
    without_row: str

    @model_validator(mode="after")
    def _lines_have_rows(self) -> Self:
        unknown = sorted({line.code for line in self.pressure_lines} - _rows().keys())
        if unknown:
            raise ValueError(f"A pressure line names no condition: {unknown}")
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

    urgency: Level
    asked: Level
    table: Level | None
    rule: str
    receiver: str
    row: Row | None
    deciding: Row | None
    remarks: tuple[Remark, ...]

    @property
    def raised(self) -> bool:
        """Whether the table asks for more than the sender did."""
        return self.urgency != self.asked

    @property
    def emergency(self) -> bool:
        """Whether the data of this condition asks for the 999/A&E words."""
        return any(row.reason.emergency for row in (self.row, self.deciding) if row is not None)

    @property
    def calls_999(self) -> bool:
        """Whether life is in danger: no row of the table says so by itself."""
        return False

    @property
    def entry(self) -> Entry:
        """The pathway of what decided, else of the condition, else the one for any other."""
        row = self.deciding or self.row
        return row.entry if row is not None else catalogue().entries[rules().without_row]

    def due(self, sight_test: date | datetime) -> Mapping[str, Due]:
        """Return the clocks of eye care: by when the patient is to be sent, seen and treated."""
        reason = self.row.code if self.row is not None else ""
        starts: dict[str, datetime] = dict.fromkeys(_OF_EYE_CARE, start_of(sight_test))
        return catalogue().due(self.entry.id, self.urgency, reason, starts)

    def seen_by(self, sight_test: date | datetime) -> datetime | None:
        """Return when the patient is to be seen at the latest, if any rule says so."""
        seen = self.due(sight_test).get("seen")
        return seen.at if seen is not None else None


@cache
def rules() -> EyeRules:
    """Return what holds for every pathway of the eye, read and checked once."""
    return EyeRules.model_validate(documents.read("eye.yaml"))


@cache
def _rows() -> Mapping[str, Row]:
    entries = catalogue().entries.values()
    return {
        reason.code: Row(entry, reason)
        for entry in entries
        if entry.group == "eye"
        for reason in entry.reasons
    }


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
    sender: Level,
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
    other = catalogue().entries[rules().without_row].receivers[0]
    receiver = deciding.receiver if deciding is not None else other
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
        asked=sender,
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
    return min(present, key=lambda row: LEVELS.index(row.urgency), default=None)


def _named(sender: Level, deciding: Row | None, *, raised: bool) -> str:
    version = rules().version
    if deciding is None:
        return f"the sender's own urgency, {words(sender)}; {rules().name} {version} has no row"
    if raised or deciding.urgency == sender:
        return f"{rules().name} {version}: {deciding.rule}, {words(deciding.urgency)}"
    return (
        f"the sender's own urgency, {words(sender)}; {rules().name} {version} says "
        f"{words(deciding.urgency)}: {deciding.rule}"
    )


def _unconfirmed_pressures(readings: Sequence[Reading], urgency: Level) -> list[Remark]:
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
