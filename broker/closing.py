"""Closing the loop: what a receiver sends in its own words ends the referral that it answers.

A pharmacist who has seen the patient that a practice referred sends one consultation, and the
practice has both: the record, and the end of its referral. BaRS has no message for that
(Application 5).
"""

from dataclasses import dataclass, replace
from datetime import datetime

from broker import moves, referral
from broker.access import Caller
from broker.core import Core
from broker.directory import Directory
from broker.errors import Problem, Refused
from broker.moves import Found, Mover, Ready
from broker.ports import Closes, Needs
from broker.referral import Relation, State
from broker.steps import Wanted, steps_to
from broker.store import messages, referrals
from broker.store.tx import Connection


@dataclass(frozen=True, slots=True)
class Closing:
    """A request's needs, and the moves by which it ends the referral that it names."""

    needs: Needs
    steps: tuple[Ready, ...] = ()


async def closing(
    core: Core, needs: Needs, caller: Caller, directory: Directory, now: datetime
) -> Closing:
    """Return the moves by which a request ends a referral; none where it names none.

    One that is over already is a warning: the record is sent all the same. Raises Refused where the
    referral is nobody's or another's, or about another patient.
    """
    closes = needs.closes
    if closes is None:
        return Closing(needs)
    found = await core.store.read(lambda c: _find(core, c, closes.referral))
    if found is None or (
        moves.relation(found.row, caller.organisation, directory) is not Relation.ACTING
    ):
        raise _refused(closes, "unknown-referral", "There is no such referral to you.")
    if found.is_about_another(core.vault, needs.nhs_number):
        raise _refused(closes, "another-patient", "That referral is about another patient.")
    if State(found.row.state) not in referral.OPEN:
        over = Problem(closes.field, "referral-over", "That referral was over already.")
        return Closing(replace(needs, warnings=(*needs.warnings, over)))
    mover = Mover(core.vault, directory, core.source, now)
    wanted = Wanted("complete", {"outcome": closes.outcome})
    return Closing(needs, tuple(steps_to(mover, found, wanted, caller)))


def _find(core: Core, connection: Connection, named: str) -> Found | None:
    row = referrals.get(connection, named)
    message = messages.get(connection, named) if row is None else None
    subject = row.subject_id if row is not None else getattr(message, "subject_id", None)
    return None if subject is None else moves.find(connection, core.vault, subject)


def _refused(closes: Closes, code: str, detail: str) -> Refused:
    todo = "Give the id of the referral, or of its message, as your inbox has it; or leave it out."
    return Refused.all_of([Problem(closes.field, code, detail, todo)])
