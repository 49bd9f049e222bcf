"""How soon and to whom a referral goes, by its pathway: what is most urgent counts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from fhir_profiles.pathways.catalogue import PRACTICE
from fhir_profiles.pathways.entry import Entry, Reason, RedFlag
from fhir_profiles.pathways.parts import LEVELS, Level, words


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the catalogue makes of a referral.

    `asked` is the sender's own urgency. `rule` says in words which of all decided, `receiver` is
    the type of service that it goes to.
    """

    entry: Entry
    reason: Reason | None
    red_flags: tuple[RedFlag, ...]
    asked: Level
    urgency: Level
    rule: str
    receiver: str

    @property
    def table(self) -> Level:
        """The urgency that the catalogue asks for, whatever the sender does."""
        return min((level for level, _ in _asked_by(self)), key=LEVELS.index)

    @property
    def subspecialty(self) -> str:
        """The clinic that is sought among those of the receiver's type; "" where any will do."""
        named = self.reason is not None and self.entry.clinic_by_reason
        return self.reason.code if named and self.reason is not None else ""

    @property
    def emergency(self) -> bool:
        """Whether the patient must not wait for any message: 999 or the emergency department."""
        return (self.reason is not None and self.reason.emergency) or any(
            one.leads_to in {"999", "emergency-department"} for one in self.red_flags
        )

    @property
    def calls_999(self) -> bool:
        """Whether a red flag is in danger of life."""
        return any(one.leads_to == "999" for one in self.red_flags)


def judge(
    entry: Entry,
    *,
    reason: str,
    asked: Level,
    red_flags: Sequence[str] = (),
    practice_may_act: bool = True,
) -> Judgement:
    """Judge a referral on a pathway; a code that is not the pathway's own says nothing.

    `practice_may_act` is false where the patient's practice cannot be who acts: it is not known,
    or refers the patient itself.
    """
    known = entry.reason(reason)
    flags = tuple(one for one in entry.red_flags if one.code in set(red_flags))
    made = Judgement(entry, known, flags, asked, asked, "", _receiver(entry, known))
    if made.receiver == PRACTICE and not practice_may_act:
        others = [one for one in entry.receivers if one != PRACTICE]
        made = replace(made, receiver=others[0] if others else PRACTICE)
    by_rule, rule = min(_asked_by(made), key=lambda one: LEVELS.index(one[0]))
    if LEVELS.index(asked) < LEVELS.index(by_rule):
        own = f"the sender's own urgency, {words(asked)}; {entry.id} {entry.version} says "
        return replace(made, urgency=asked, rule=f"{own}{words(by_rule)}: {rule}")
    return replace(
        made, urgency=by_rule, rule=f"{entry.id} {entry.version}: {rule}, {words(by_rule)}"
    )


def _asked_by(made: Judgement) -> Iterator[tuple[Level, str]]:
    """Yield each urgency that the catalogue asks for, and why; the more telling first."""
    for flag in made.red_flags:
        yield "stat", flag.words
    if made.reason is not None and made.reason.urgency is not None:
        yield made.reason.urgency, made.reason.words
    yield made.entry.urgency, made.entry.name


def _receiver(entry: Entry, reason: Reason | None) -> str:
    return (reason.receiver if reason is not None else None) or entry.receivers[0]
