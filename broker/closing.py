"""Closing the loop: what a receiver sends in its own words answers the referral that it was sent.

A pharmacist who has seen the patient that a practice referred sends one consultation, and the
practice has both: the record, and the end of its referral. A hospital's letter reaches who referred
and ends the referral, or tells how it goes on. BaRS has no message for that (Application 5).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from broker import moves, referral
from broker.access import Caller
from broker.core import Core
from broker.directory import Directory
from broker.errors import Problem, Refused
from broker.events import Destination, Kind, Role
from broker.moves import Found, Mover, Ready
from broker.ports import Closes, Needs, Seek, Want
from broker.preparing import Plan
from broker.referral import Relation, State
from broker.steps import Wanted, steps_to
from broker.store import messages, referrals
from broker.store.tx import Connection
from fhir_profiles.pathways.catalogue import catalogue


@dataclass(frozen=True, slots=True)
class Closing:
    """A request's needs, and the referral that it answers, which is to be moved with it.

    `found` is None where none is named, or nothing more can become of it.
    """

    needs: Needs
    mover: Mover | None = None
    found: Found | None = None

    def steps(self, planned: Plan, caller: Caller) -> list[Ready]:
        """Draw up the moves that the request makes, in this order. Raises Conflict."""
        closes = self.needs.closes
        if closes is None or self.mover is None or self.found is None:
            return []
        untold = frozenset(self._told(planned)) if closes.tells_all else frozenset[str]()
        steps: list[Ready] = []
        found = self.found
        for wanted in _course(closes, found):
            steps += steps_to(self.mover, found, wanted, caller, untold)
            if steps:
                found = Found(steps[-1].row_after, found.about, found.key)
        return steps

    def _told(self, planned: Plan) -> Iterator[str]:
        """Yield who gets the message itself, and whom a successor of theirs stands for."""
        assert self.mover is not None  # noqa: S101 - asked only where there is one
        for one in planned.planned:
            if one.want.kind is Kind.UPDATE:
                for route in one.routes:
                    yield from self.mover.directory.stands_for(route.destination.ods)


async def closing(
    core: Core,
    needs: Needs,
    caller: Caller,
    directory: Directory,
    now: datetime,
    before: str | None = None,
) -> Closing:
    """Return the needs with who referred among those that are sought, and the referral to be moved.

    One that is over already is not moved; `before` is the one that the version to be corrected
    answered. Raises Refused where the referral is nobody's or another's, about another patient or
    on another pathway, or over where that matters.
    """
    closes = needs.closes
    if closes is None:
        return Closing(needs)
    found = await core.store.read(lambda c: _find(core, c, closes))
    if found is None or (
        moves.relation(found.row, caller.organisation, directory) is not Relation.ACTING
    ):
        raise _refused(closes, "unknown-referral", "There is no such referral to you.")
    if found.is_about_another(core.vault, needs.nhs_number):
        raise _refused(closes, "another-patient", "That referral is about another patient.")
    _check_pathway(closes, found)
    subject = found.row.subject_id
    needs = replace(
        needs,
        closes=replace(closes, referral=subject),
        wants=tuple(_with_referrer(one, found, caller, directory) for one in needs.wants),
    )
    _check_diagnosis(closes, found, caller, directory, now)
    if State(found.row.state) in _may_follow(closes):
        return Closing(needs, Mover(core.vault, directory, core.source, now), found)
    if subject == before:
        return Closing(needs)
    stage = referral.STAGES[State(found.row.state)].words
    if closes.refuses_late:
        raise _refused(
            closes,
            "referral-over",
            f"That referral was over already: {stage}.",
            "To correct what ended it, PUT its new body; to tell more of it, leave the referral as "
            "it is (`ends_referral`: false).",
        )
    over = Problem(closes.field, "referral-over", f"That referral was over already: {stage}.")
    return Closing(replace(needs, warnings=(*needs.warnings, over)))


def _may_follow(closes: Closes) -> frozenset[State]:
    """Return the states in which a request still moves the referral: what closed without contact is
    completed by the consultation that comes later."""
    return referral.OPEN | (referral.MOVES["complete"].sources if closes.ends else frozenset())


def _course(closes: Closes, found: Found) -> Iterator[Wanted]:
    """Yield the moves that a request asks for, in this order."""
    told = {"diagnosis": closes.diagnosis} if _diagnosis(closes, found) else {}
    if closes.ends and closes.hands_back:
        yield Wanted("reject", {"reason": "wrong-service", "advice": closes.outcome})
    elif closes.ends:
        yield Wanted("complete", {"outcome": closes.outcome, **told})
    else:
        yield Wanted("start", {})
        if told:
            yield Wanted("diagnosed", told)


def _diagnosis(closes: Closes, found: Found) -> bool:
    """Whether a request says what a patient with a suspected cancer was told."""
    entry = catalogue().entries.get(found.row.pathway)
    return bool(closes.diagnosis) and entry is not None and entry.suspected_cancer


def _check_diagnosis(
    closes: Closes, found: Found, caller: Caller, directory: Directory, now: datetime
) -> None:
    """Raise Refused where a suspected cancer would end without what the patient was told."""
    if not closes.ends or closes.hands_back or _diagnosis(closes, found):
        return
    context = moves.context(found.row, caller.organisation, directory, now)
    try:
        referral.check_diagnosis(referral.MOVES["complete"], {}, context)
    except Refused as refused:
        (one,) = refused.problems
        raise Refused.all_of([replace(one, field="outcome")]) from None


def _find(core: Core, connection: Connection, closes: Closes) -> Found | None:
    named: str | None = closes.referral
    if not named:
        own = core.vault.mac(f"reference|{closes.sender}", closes.reference.encode())
        named = messages.of_reference(connection, closes.sender, own)
    if named is None:
        return None
    row = referrals.get(connection, named)
    message = messages.get(connection, named) if row is None else None
    subject = row.subject_id if row is not None else getattr(message, "subject_id", None)
    return None if subject is None else moves.find(connection, core.vault, subject)


def _with_referrer(want: Want, found: Found, caller: Caller, directory: Directory) -> Want:
    """Return a want whose seek for who referred has them, or whoever succeeds them."""
    successor = directory.resolve_successor(found.row.sender)
    place = Destination(successor.ods if successor is not None else found.row.sender)
    seeks: list[Seek] = []
    for one in want.seeks:
        if not one.is_referrer:
            seeks.append(one)
        elif one.role is Role.ACTING or place.ods != caller.organisation:
            seeks.append(replace(one, named=place, because="It sent the referral."))
    return replace(want, seeks=tuple(seeks))


def _check_pathway(closes: Closes, found: Found) -> None:
    """Who names another referral of the same patient would end that, and nobody would see it."""
    known = catalogue().entries.get(found.row.pathway)
    if closes.pathway and known is not None and known.id != closes.pathway:
        raise _refused(
            closes,
            "another-pathway",
            f"That referral is on another pathway: {known.name}.",
            f"Give the referral that you mean; if it is this one, send `pathway`: {known.id}.",
        )


def _refused(closes: Closes, code: str, detail: str, todo: str = "") -> Refused:
    usual = "Give the id of the referral, or of its message, as your inbox has it; or leave it out."
    return Refused.all_of([Problem(closes.field, code, detail, todo or usual)])
