"""Sentinel values: what a tester writes into a message decides how a simulated partner behaves.

The key is the **patient's family name**. It is mandatory at every door, it reaches every receiver,
whatever the kind of message, and XXTEST… is how the NHS names test patients. So a tester needs
nothing but a message of its own: a consultation for a patient XXTEST-REJECT-DUPLICATE is rejected
by the practice as a duplicate. Any other name behaves as XXTEST-FILE. Case does not matter.

An inbox has to be collected before a name can be read in it: what an inbox receiver does begins
there. Notices are always stored and confirmed, whatever the patient is called.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from broker.move_content import REJECTION_REASONS
from fhir_profiles import codes

PREFIX: Final = "XXTEST-"
UPDATE_REASONS: Final = codes.system("rejection-reason").displays
ADVICE: Final = "Please refer again after dilated fundoscopy, with both discs drawn."
OUTCOME: Final = "Seen and treated; discharged to the care of the practice."
ACTIONS: Final = "Please review the blood pressure within a month."

Move = tuple[str, Mapping[str, str]]


class Answer(StrEnum):
    """How a partner answers a delivery."""

    RECEIPT = "receipt"
    SLOW = "slow"
    LATE = "late"
    SILENT = "silent"
    FAIL = "fail"
    RECOVER = "recover"
    REFUSE = "refuse"
    BARE = "bare"
    LIE_DIGEST = "lie-digest"
    LIE_ODS = "lie-ods"
    LIE_DELIVERY = "lie-delivery"
    REDIRECT = "redirect"
    DRIP = "drip"
    RESET = "reset"

    @property
    def gives_receipt(self) -> bool:
        """Whether, in the end, a receipt is given that is true."""
        return self in _TRUE


_TRUE: Final = frozenset({Answer.RECEIPT, Answer.SLOW, Answer.LATE, Answer.RECOVER, Answer.RESET})


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a partner does with one message: how it answers, then how it decides.

    `update` is (outcome, reason) of an acknowledgement, or None where nobody ever decides; `moves`
    are made one after the other on a referral.
    """

    name: str
    words: str
    answer: Answer = Answer.RECEIPT
    update: tuple[str, str | None] | None = ("filed", None)
    moves: tuple[Move, ...] = field(default=(("accept", MappingProxyType({})),))

    @property
    def family(self) -> str:
        """The family name that asks for it."""
        return f"{PREFIX}{self.name.upper()}"

    @property
    def decides(self) -> bool:
        return self.answer.gives_receipt and (self.update is not None or bool(self.moves))


_ACCEPT: Final[Move] = ("accept", {})


def _rows() -> Iterator[Behaviour]:
    yield Behaviour("file", "stores and confirms; files an update, accepts a referral")
    yield Behaviour(
        "complete",
        "as file, then completes the referral, with an outcome and something for the practice",
        moves=(_ACCEPT, ("complete", {"outcome": OUTCOME, "practice_actions": ACTIONS})),
    )
    yield Behaviour("undecided", "stores and confirms; nobody ever decides", update=None, moves=())
    for reason in dict.fromkeys((*UPDATE_REASONS, *REJECTION_REASONS)):
        yield _rejecting(reason)
    yield Behaviour(
        "slow", "as file, but takes its time between storing and answering", Answer.SLOW
    )
    for answer, words in _TROUBLE.items():
        yield Behaviour(answer.value, words, answer)


def _rejecting(reason: str) -> Behaviour:
    kinds = []
    update: tuple[str, str | None] = ("filed", None)
    moves: tuple[Move, ...] = (_ACCEPT,)
    if reason in UPDATE_REASONS:
        kinds.append("an update")
        update = ("rejected", reason)
    if reason in REJECTION_REASONS:
        kinds.append("a referral, with advice")
        moves = (("reject", {"reason": reason, "advice": ADVICE}),)
    words = UPDATE_REASONS.get(reason) or REJECTION_REASONS[reason]
    said = f"stores and confirms; rejects {' and '.join(kinds)}: {words}"
    return Behaviour(f"reject-{reason}", said, update=update, moves=moves)


_TROUBLE: Final[Mapping[Answer, str]] = {
    Answer.LATE: "stores, confirms only after the broker has stopped waiting; sent again: as file",
    Answer.SILENT: "takes it and never answers; inbox: collects, nothing more",
    Answer.FAIL: "stores nothing and answers 500 every time; inbox: collects, nothing more",
    Answer.RECOVER: "answers 500 twice, the third time as file; inbox: collects three times",
    Answer.REFUSE: "answers 422 and stores nothing; inbox: collects, nothing more",
    Answer.BARE: "stores, answers 200 without a receipt; inbox: collects, nothing more",
    Answer.LIE_DIGEST: "confirms another digest than that of what it was sent",
    Answer.LIE_ODS: "confirms in the name of another organisation",
    Answer.LIE_DELIVERY: "confirms another delivery than the one it was sent",
    Answer.REDIRECT: "answers 307 to another address; inbox: collects, nothing more",
    Answer.DRIP: "answers 200 one byte at a time and never ends; inbox: collects, nothing more",
    Answer.RESET: "stores, then breaks the connection off; sent again: as file",
}

TABLE: Final[Mapping[str, Behaviour]] = MappingProxyType({one.family: one for one in _rows()})
"""Every behaviour, by the family name that asks for it."""

DEFAULT: Final = TABLE[f"{PREFIX}FILE"]


def behaviour(family: str) -> Behaviour:
    """Return how to treat a patient's message; whoever is not in the table is filed or accepted."""
    return TABLE.get(family.strip().upper(), DEFAULT)


def as_table() -> list[tuple[str, str]]:
    """Return (family name, what happens) of every row, the headings first."""
    rows = [("patient's family name", "what a receiver does")]
    return rows + [(one.family, one.words) for one in TABLE.values()]
