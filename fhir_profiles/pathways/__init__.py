"""The catalogue of pathways: versioned data, and the small interpreter that reads it.

`pharmacy/*.yaml` holds one service each, `pharmacy/shared.yaml` what holds for all of them. Every
rule names its source; `local: true` marks what no document at hand confirms. A condition tests
facts by name: `all` of them must hold, one of `any`, and none of `none`. A fact that is not known
meets no test. No rule of any pathway stands in code.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any, Final, Generic, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fhir_profiles import codes

ESCALATIONS: Final = "pharmacy-escalation"

Fact = Literal[
    "abpm-declined",
    "acute-symptoms",
    "acute-symptoms-stated",
    "age",
    "contraceptive",
    "diastolic",
    "exchanged",
    "exclusions",
    "fainting-or-falls",
    "gateway-met",
    "gateway-stated",
    "has-bmi",
    "has-pressure",
    "method",
    "no-supply-reason",
    "pregnant",
    "pulse",
    "sex",
    "source",
    "supplied",
    "systolic",
]
Level = Literal["stat", "urgent", "asap", "routine"]
Value = bool | str | Decimal | frozenset[str] | None
Facts = Mapping[Fact, Value]


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=lambda name: name.replace("_", "-")
    )


class Range(_Strict):
    """Bounds of a number; `at_least` includes its line, the others do not."""

    at_least: Decimal | None = None
    above: Decimal | None = None
    below: Decimal | None = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        if self.at_least is None and self.above is None and self.below is None:
            raise ValueError("a range needs a bound")
        return self

    def holds(self, number: Decimal) -> bool:
        return (
            (self.at_least is None or number >= self.at_least)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )


Tests = Mapping[Fact, bool | Range | tuple[str, ...]]


class Condition(_Strict):
    """When a rule applies."""

    all: Tests = {}
    any: tuple[Tests, ...] = ()
    none: Tests = {}

    @model_validator(mode="after")
    def _tests_something(self) -> Self:
        if not self.all and not self.any:
            raise ValueError("a condition needs `all` or `any`")
        return self

    def holds(self, facts: Facts) -> bool:
        return (
            all(_meets(facts.get(fact), test) for fact, test in self.all.items())
            and (not self.any or any(_all_met(tests, facts) for tests in self.any))
            and not any(_meets(facts.get(fact), test) for fact, test in self.none.items())
        )

    def facts(self) -> tuple[Fact, ...]:
        """Return the facts that it tests, the ones that must all hold first."""
        return (*self.all, *(fact for tests in self.any for fact in tests))


def _all_met(tests: Tests, facts: Facts) -> bool:
    return all(_meets(facts.get(fact), test) for fact, test in tests.items())


def _meets(value: Value, test: bool | Range | tuple[str, ...]) -> bool:
    if isinstance(test, bool):
        return value is test
    if isinstance(test, Range):
        return isinstance(value, Decimal) and test.holds(value)
    if isinstance(value, frozenset):
        return not value.isdisjoint(test)
    return value in test


class Rule(_Strict):
    """One warning: its code, what is said, when it applies, and where it comes from."""

    warning: str
    words: str
    when: Condition
    each: Literal["pressure"] | None = None
    source: str
    local: bool = False

    @model_validator(mode="after")
    def _is_defined(self) -> Self:
        if self.warning not in codes.system("warning"):
            raise ValueError(f"{self.warning} is not in definitions/warning.json")
        return self


class Escalation(_Strict):
    """What asks the GP to act (`task`), or sends the patient to A&E (`emergency`).

    Of those of one `line`, which rises step by step, the first that applies is the one that counts.
    Its `id` is a code of the CodeSystem, which has its words.
    """

    id: str
    line: str = ""
    when: Condition
    each: Literal["pressure"] | None = None
    services: tuple[str, ...] = ()
    task: Level | None = None
    emergency: bool = False
    advice: str = ""
    source: str
    local: bool = False

    @model_validator(mode="after")
    def _does_one_thing(self) -> Self:
        if (self.task is not None) == self.emergency:
            raise ValueError("an escalation is either a task or an emergency")
        if self.emergency and not self.advice:
            raise ValueError("an emergency needs its advice")
        return self

    @property
    def words(self) -> str:
        """Why somebody is asked to act, as a person says it."""
        return codes.system(ESCALATIONS).display(self.id)


class Outcome(_Strict):
    """How a consultation ended."""

    code: str
    words: str
    supplies: bool = False
    needs_medicine: bool = False
    asks_gp: Level | None = None
    emergency: bool = False


class Term(_Strict):
    """A SNOMED CT concept, with the words used for it here."""

    code: str = Field(pattern=r"^[0-9]{6,18}$")
    words: str


class Gateway(_Strict):
    """What must be found before a medicine may be supplied."""

    words: str
    source: str
    local: bool = False


class Pathway(_Strict):
    """One service."""

    service: str
    version: str
    strand: Literal["clinical-pathway", "minor-illness", "blood-pressure", "contraception"]
    source: str
    encounter: Term
    diagnosis: Term | None = None
    gateway: Gateway | None = None
    rules: tuple[Rule, ...]


class Shared(_Strict):
    """What holds for every service of a pillar."""

    version: str
    act_within_days: Mapping[Level, int]
    pulse_confirmed_after_minutes: int
    outcomes: tuple[Outcome, ...]
    escalations: tuple[Escalation, ...]
    warnings: tuple[Rule, ...]

    @model_validator(mode="after")
    def _codes_agree(self) -> Self:
        defined = codes.system(ESCALATIONS).displays.keys()
        odd = sorted({rule.id for rule in self.escalations} ^ defined)
        if odd:
            raise ValueError(f"an escalation, or a code of {ESCALATIONS}.json, but not both: {odd}")
        return self


Found = TypeVar("Found", Rule, Escalation)


@dataclass(frozen=True)
class Hit(Generic[Found]):
    """A rule that applies; `reading` is the place of the pressure that it applies to."""

    rule: Found
    reading: int | None = None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All services of a pillar, with what they share."""

    shared: Shared
    pathways: Mapping[str, Pathway]
    outcomes: Mapping[str, Outcome]

    def warnings(
        self, service: str, facts: Facts, pressures: Sequence[Facts]
    ) -> Iterator[Hit[Rule]]:
        """Yield every contradiction between what happened and its pathway."""
        for rule in (*self.pathways[service].rules, *self.shared.warnings):
            yield from _hits(rule, facts, pressures)

    def escalations(
        self, service: str | None, facts: Facts, pressures: Sequence[Facts]
    ) -> Iterator[Hit[Escalation]]:
        """Yield what asks somebody to act. Without a service, as if it were any of them."""
        taken: set[str] = set()
        for rule in self.shared.escalations:
            if rule.line in taken:
                continue
            if service is None or not rule.services or service in rule.services:
                hits = list(_hits(rule, facts, pressures))
                if hits and rule.line:
                    taken.add(rule.line)
                yield from hits


def _hits(rule: Found, facts: Facts, pressures: Sequence[Facts]) -> Iterator[Hit[Found]]:
    if rule.each is None:
        if rule.when.holds(facts):
            yield Hit(rule)
        return
    for place, pressure in enumerate(pressures):
        if rule.when.holds({**facts, **pressure}):
            yield Hit(rule, place)


@cache
def pharmacy() -> Catalogue:
    """Return the catalogue of the pharmacy services, read and checked once."""
    folder = files("fhir_profiles") / "pathways" / "pharmacy"
    read = {
        entry.name.removesuffix(".yaml"): yaml.load(entry.read_bytes(), Loader=_Loader)  # noqa: S506
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    }
    shared = Shared.model_validate(read.pop("shared"))
    pathways = [Pathway.model_validate(document) for document in read.values()]
    catalogue = Catalogue(
        shared=shared,
        pathways={pathway.service: pathway for pathway in pathways},
        outcomes={outcome.code: outcome for outcome in shared.outcomes},
    )
    services = codes.system("pharmacy-service").displays
    if catalogue.pathways.keys() != services.keys():
        odd = ", ".join(sorted(catalogue.pathways.keys() ^ services.keys()))
        raise ValueError(f"pathways/pharmacy and definitions/pharmacy-service.json differ: {odd}")
    return catalogue


_Loader: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
