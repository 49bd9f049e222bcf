"""The moves that lead a referral to where somebody says that it is, one after the other.

Who has decided has received, and who has finished had accepted: what was not told is caught up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from broker import referral
from broker.access import Caller
from broker.moves import Found, Mover, Ready
from broker.referral import MOVES, State

_BEFORE: Final = {
    "accept": ("receive", "accept"),
    "complete": ("receive", "accept", "complete"),
    "start": ("receive", "accept", "start"),
    "reject": ("receive", "reject"),
}
# Where it stands so, or further, there is nothing to be done.
_THERE: Final = {
    "accept": frozenset(state for state in State if referral.needs_receivers_eye(state)),
    "start": frozenset({State.IN_PROGRESS}),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """The move that is asked for, with what it carries."""

    name: str
    content: Mapping[str, str]


def steps_to(
    mover: Mover,
    found: Found,
    wanted: Wanted | None,
    caller: Caller,
    untold: frozenset[str] = frozenset(),
) -> list[Ready]:
    """Draw up the moves that lead to what is wanted, to be written in this order: none where it
    stands so already. Raises Conflict where the referral's table forbids it.

    `untold` are organisations that know of it already.
    """
    state = State(found.row.state)
    if wanted is None or state in _THERE.get(wanted.name, ()):
        return []
    steps: list[Ready] = []
    for name in _BEFORE.get(wanted.name, (wanted.name,)):
        move = MOVES[name]
        if name == wanted.name or state in move.sources:
            content = wanted.content if name == wanted.name else {}
            step = mover.ready(found, move, content, caller.organisation, caller.client_id, untold)
            steps.append(step)
            found, state = Found(step.row_after, found.about, found.key), step.state
    return steps
