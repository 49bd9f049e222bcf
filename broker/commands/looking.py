"""`overdue`, `audit verify` and `check`: is anything wrong, and what is to be done about it."""

from dataclasses import asdict
from typing import Annotated

import typer

from broker import pausing
from broker.commands import showing
from broker.commands.directory import typed_code
from broker.commands.opening import opened
from broker.commands.showing import AsJson
from broker.events import Priority
from broker.store import directory as stored
from broker.store import trail, work

COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def overdue(
    *,
    organisation: Annotated[
        list[str] | None,
        typer.Option(
            "--organisation",
            help="Only what stands on this sender's list (ODS code); may be repeated.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List what a person must look at: passed deadlines, dead deliveries, odd receipts.

    On an organisation's list stands also what those sent that it succeeds.
    """
    with opened() as broker:
        codes = None
        if organisation:
            _, known = broker.store.read_now(stored.load)
            asked = [typed_code(one, known) for one in organisation]
            codes = set().union(*map(known.stands_for, asked))
        rows, paused = broker.store.read_now(
            lambda c: (work.open_items(c, codes, limit + 1), pausing.listing(c))
        )
    if len(rows) > limit:
        showing.more_than(limit)
    stopped = {one.item: one for one in paused}
    found = [
        {
            "code": row.code,
            "priority": row.priority,
            "organisation": row.organisation,
            "message": row.message_id,
            "delivery": row.delivery_id,
            "event": row.event_id,
            "destination": stopped[row.object_id].where if row.object_id in stopped else None,
            "due_at": row.due_at,
            "opened_at": row.opened_at,
        }
        for row in rows[:limit]
    ]
    if as_json:
        showing.as_json(found)
        return
    columns = (
        *("code", "priority", "organisation", "message", "delivery", "event", "destination"),
        *("due_at", "opened_at"),
    )
    showing.table(
        (
            *("what", "priority", "sender's list", "message", "delivery", "event", "destination"),
            *("was due", "since"),
        ),
        [
            [Priority(one[name]).words if name == "priority" else one[name] for name in columns]
            for one in found
        ],
        empty="Nothing is overdue.",
    )
    for one in paused:
        showing.say(f"Paused: {one.where}. {one.words}")


audit = typer.Typer(help="Prove that nobody has altered what the broker did.", no_args_is_help=True)


@audit.callback()
def _group() -> None:
    """Prove that nobody has altered what the broker did."""


@audit.command()
def verify(*, as_json: AsJson = False) -> None:
    """Check every entry of the audit chain; exit 1 with the first one that does not hold."""
    with opened() as broker:
        found = broker.store.read_now(trail.verify_audit)
        entry = None
        if found.broken_at is not None:
            at = found.broken_at
            entry = broker.store.read_now(
                lambda connection: next(
                    (one for one in trail.links(connection) if one.seq == at), None
                )
            )
    said = {
        "holds": found.broken_at is None,
        "checked": found.checked,
        "head": found.head,
        "broken_at": found.broken_at,
        "why": found.why,
        "entry": asdict(entry.entry) | {"time": entry.time} if entry is not None else None,
    }
    if as_json:
        showing.as_json(said)
    elif found.broken_at is None:
        showing.say(f"The audit chain holds: {found.checked} entries, the last hash {found.head}.")
    else:
        showing.warn(
            f"The audit chain does not hold at entry {found.broken_at}: {found.why}. "
            f"The {found.checked} before it hold."
        )
        if entry is not None:
            showing.facts([("time", entry.time), *asdict(entry.entry).items()])
    if found.broken_at is not None:
        raise typer.Exit(1)


def check(*, as_json: AsJson = False) -> None:
    """Check whether a broker could serve here, and say how to mend what is wrong."""
    from broker.commands import checking

    found = list(checking.check())
    if as_json:
        showing.as_json([asdict(one) for one in found])
    else:
        showing.table(
            ("check", "", "found", "to mend it"),
            [(one.check, one.state, one.found, one.mend) for one in found],
            colour=lambda row: COLOURS[str(row[1])],
        )
    if any(one.state == "fail" for one in found):
        raise typer.Exit(1)
