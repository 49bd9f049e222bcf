"""The rules of the catalogue: data that tests facts by name, and the interpreter that reads it.

Every rule names its source; `local: true` marks what no document at hand confirms. Of a condition
`all` tests must hold, one of `any`, and none of `none`. A fact that is not known meets no test. No
rule of any pathway stands in code.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Generic, Literal, Self, TypeVar

from pydantic import Field, model_validator

from fhir_profiles import codes
from fhir_profiles.pathways.parts import Level, Strict

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
Value = bool | str | Decimal | frozenset[str] | None
Facts = Mapping[Fact, Value]


class Range(Strict):
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


class Condition(Strict):
    """When a rule applies."""

    all: Tests = Field(default_factory=dict)
    any: tuple[Tests, ...] = ()
    none: Tests = Field(default_factory=dict)

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


class Rule(Strict):
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


class Escalation(Strict):
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


Found = TypeVar("Found", Rule, Escalation)


@dataclass(frozen=True)
class Hit(Generic[Found]):
    """A rule that applies; `reading` is the place of the pressure that it applies to."""

    rule: Found
    reading: int | None = None


def hits(rule: Found, facts: Facts, pressures: Sequence[Facts]) -> Iterator[Hit[Found]]:
    if rule.each is None:
        if rule.when.holds(facts):
            yield Hit(rule)
        return
    for place, pressure in enumerate(pressures):
        if rule.when.holds({**facts, **pressure}):
            yield Hit(rule, place)
