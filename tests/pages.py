"""The pages of docs/ that are drawn from what the code reads.

`python -m tests.pages` draws them anew.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, get_args

from broker.deadlines import DeadlineKind
from broker.move_clocks import STANDING
from broker.referral import STAGES, State, as_table
from fhir_profiles import codes
from fhir_profiles.pathways.catalogue import ITEMS, OUTCOMES, catalogue, service_words
from fhir_profiles.pathways.entry import Entry
from fhir_profiles.pathways.parts import LEVELS, Group, Sourced, Span, words

ROOT: Final = Path(__file__).parents[1]
LOCAL: Final = "*local*"


def pathways() -> str:
    """Return docs/pathways.md: every entry of the catalogue."""
    groups = get_args(Group)
    entries = sorted(catalogue().entries.values(), key=lambda one: groups.index(one.group))
    parts = [
        "# Pathways",
        "Drawn from `fhir_profiles/pathways/` by `python -m tests.pages`; a test holds it true. "
        "`GET /pathways` publishes the same. What no document at hand confirms is marked "
        f"{LOCAL}: it is to be agreed where the broker is used. To add one, see CONTRIBUTING.md.",
        _table(
            ("pathway", "from", "to", "level at least"),
            (
                (
                    f"[{one.name}](#{_anchor(one.name)})",
                    _senders(one),
                    ", ".join(map(service_words, one.receivers)),
                    words(one.urgency),
                )
                for one in entries
            ),
        ),
        "## What holds for all",
        "By when, unless the pathway says otherwise:",
        _table(("level", *_DEFAULT_CLOCKS), _usual_clocks()),
        "Who else hears of what is still not met so long after it was raised, beside its sender "
        "and the operators:",
        _table(
            ("level", "after", "who hears of it"),
            (
                (words(level), str(step.after), ", ".join(step.tell))
                for level in LEVELS
                for step in catalogue().defaults.escalation[level]
            ),
        ),
        "Another message for the same patient on the same pathway is flagged, within "
        f"{catalogue().defaults.window}{_said(catalogue().defaults.window)}.",
        "Who hears of a move, beside who makes it:",
        _table(
            ("move", "who hears of it"),
            ((move, ", ".join(told)) for move, told in catalogue().defaults.told.items()),
        ),
        f"An outcome or a letter goes to: {', '.join(catalogue().defaults.outcome_to)}.",
    ]
    for group in groups:
        parts.append(f"## {group.capitalize()}")
        parts += [text for one in entries if one.group == group for text in _entry(one)]
    return "\n\n".join(parts) + "\n"


_DEFAULT_CLOCKS: Final = tuple(catalogue().defaults.clocks["routine"])


def _usual_clocks() -> Iterator[tuple[str, ...]]:
    for level in LEVELS:
        clocks = catalogue().defaults.clocks[level]
        yield (words(level), *(f"within {clocks[name]}" for name in _DEFAULT_CLOCKS))


def _entry(entry: Entry) -> Iterator[str]:
    yield f"### {entry.name}"
    lines = [
        f"`{entry.id}` {entry.version}, {words(entry.urgency)} at least. {_source(entry)}",
        f"From {_senders(entry)} to {', '.join(map(service_words, entry.receivers))}.",
        f"Holds at least: {_displays(ITEMS, entry.minimum)}.",
        f"May end as: {_displays(OUTCOMES, entry.outcomes)}.",
    ]
    lines += [
        f"{words(level).capitalize()}: "
        + "; ".join(f"{name} within {span}{_said(span)}" for name, span in clocks.items())
        + "."
        for level, clocks in entry.clocks.items()
    ]
    if entry.closes_unseen is not None:
        lines.append(
            f"Closes without contact within {entry.closes_unseen}{_said(entry.closes_unseen)}."
        )
    if entry.window is not None:
        lines.append(f"Another is flagged within {entry.window}{_said(entry.window)}.")
    lines += [
        f"Of `{move}` hear: {', '.join(told) or 'nobody'}." for move, told in entry.told.items()
    ]
    lines += [
        f"What is {words(level)} and still not met is told to: "
        + "; ".join(f"{', '.join(step.tell)} after {step.after}" for step in steps)
        + "."
        for level, steps in entry.escalation.items()
    ]
    if entry.outcome_to:
        lines.append(f"An outcome goes to: {', '.join(entry.outcome_to)}.")
    yield "\n".join(f"- {line}" for line in lines)
    yield _table(
        ("reason", "code", "level", "to", "by when", "source"),
        (
            (
                one.words + (" (999 or A&E)" if one.emergency else ""),
                f"`{one.code}`",
                words(one.urgency or entry.urgency),
                service_words(one.receiver or entry.receivers[0]),
                "; ".join(f"{name} within {span}" for name, span in one.clocks.items()),
                _source(one),
            )
            for one in entry.reasons
        ),
    )
    if entry.red_flags:
        yield _table(
            ("red flag", "code", "leads to", "source"),
            ((one.words, f"`{one.code}`", one.leads_to, _source(one)) for one in entry.red_flags),
        )


def _senders(entry: Entry) -> str:
    named = (
        f"{one} {LOCAL}" if one in entry.local_senders and not entry.local else one
        for one in entry.senders
    )
    return ", ".join([*named, *(["the patient"] if entry.self_referral else [])])


def _anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")


def _displays(system: str, named: Sequence[str]) -> str:
    displays = codes.system(system).displays
    return "; ".join(displays[one] for one in named)


def _said(part: Sourced | Span) -> str:
    said = ", ".join(filter(None, (part.source, LOCAL if part.local else "")))
    return f" ({said})" if said else ""


def _source(part: Sourced) -> str:
    return " ".join(filter(None, (part.source, LOCAL if part.local else "")))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(one.replace('|', '/') for one in line)} |" for line in lines)


def _received(state: State) -> str:
    return "" if STAGES[state].waits_for is None else DeadlineKind.RECEIVED


def referrals() -> str:
    """Return docs/referrals.md: the states of a referral, and every move between them."""
    stages = [
        (
            f"`{state}`",
            stage.words,
            stage.waits_for.words if stage.waits_for is not None else "nobody: it is over",
            STANDING[state][0] if state in STANDING else _received(state),
        )
        for state, stage in STAGES.items()
    ]
    head, *rows = as_table()
    parts = [
        "# The life of a referral",
        "Drawn from `broker/referral.py` by `python -m tests.pages`; a test holds it true. "
        "`GET /referrals/{id}` says where one stands and which moves the caller may make now; "
        "`POST /referrals/{id}/{move}` makes one, with the ETag that was read as `If-Match`. Every "
        "move is an event, delivered in order to each who is told of it; who that is a "
        "[pathway](pathways.md) may say otherwise.",
        "## States",
        _table(("state", "in words", "waits for", "clock"), stages),
        "## Moves",
        _table(head, rows),
        "## Clocks",
        "A decision meets the clock of the decision, a booking that of the first contact, the "
        "start that of being seen. A question opens a clock of its own for who must answer it: "
        "meanwhile the clock of the decision waits, and runs on with the answer for as long as it "
        "had left. It waits for nothing that is urgent or a suspected cancer; the clocks of being "
        "seen, treated and diagnosed never wait.",
        "A higher priority brings the clocks that end sooner, counted from then on, a lower one "
        "those of its own ([ADR 17](adr/0017-the-senders-word-and-the-receivers.md)). The clock "
        "of the diagnosis is met by nothing but what the patient was told.",
        "Every state in which somebody must act has a clock, how long it is says the "
        "[catalogue](pathways.md#what-holds-for-all). What passes is told to the sender and stands "
        "on the operators' list, once; what is still not met then is told to the others that the "
        "catalogue's chain names, step by step. The move that meets it clears all of that.",
    ]
    return "\n\n".join(parts) + "\n"


PAGES: Final[dict[str, Callable[[], str]]] = {
    "docs/pathways.md": pathways,
    "docs/referrals.md": referrals,
}


if __name__ == "__main__":
    for path, drawn in PAGES.items():
        (ROOT / path).write_text(drawn(), encoding="utf-8")
