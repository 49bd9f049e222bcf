"""Messages like another one: of the same patient, kind and pathway, that stand."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, and_, bindparam, or_, select

from broker.store import tables as t

MOST: Final = 20
"""How many are looked at: the newest. A patient with more is flagged all the same."""

NOTHING: Final = "00000000-0000-0000-0000-000000000000"
"""The id of nothing: PostgreSQL compares ids with ids only."""

m, e, r = t.message.c, t.event.c, t.referral.c

_LIKE: Final = (
    select(m.id, m.sender, m.label, m.accepted_at, e.routes)
    .join(t.event, e.id == m.event_id)
    .outerjoin(t.referral, r.subject_id == m.subject_id)
    .where(
        and_(
            m.patient_pseudonym.in_(bindparam("pseudonyms", expanding=True)),
            m.pathway == bindparam("pathway"),
            m.accepted_at >= bindparam("since"),
            m.kind == bindparam("kind"),
            m.status.in_(("sent", "closed")),
            or_(r.state.is_(None), r.state.not_in(bindparam("over", expanding=True))),
            # Its own task, its versions and what was posted with it are none.
            m.correlation_id != bindparam("correlation"),
            m.subject_id != bindparam("subject"),
            e.position < bindparam("before"),
        )
    )
    .order_by(m.accepted_at.desc())
    .limit(MOST)
)


def like(
    connection: Connection,
    *,
    pseudonyms: Collection[str],
    kind: str,
    pathway: str,
    since: datetime,
    before: int,
    over: Collection[str],
    correlation: str,
    subject: str,
) -> Sequence[Any]:
    """Return what stands before a place in the ledger, newest first, each with its routes.

    A referral in one of the states `over` does not count; nor does what is of this `correlation`
    or `subject`, each an id or `NOTHING`.
    """
    return connection.execute(
        _LIKE,
        {
            "pseudonyms": list(pseudonyms),
            "kind": kind,
            "pathway": pathway,
            "since": since,
            "before": before,
            "over": list(over),
            "correlation": correlation,
            "subject": subject,
        },
    ).all()
