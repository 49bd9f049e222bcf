"""`referral-broker deliveries`: what was sent to whom, and what to do where it does not go through.

Ids, codes, times and names of organisations are shown; nothing of what a message says.
"""

import asyncio
import uuid
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import typer

from broker import tracking, trails
from broker.commands import showing
from broker.commands.directory import typed_code
from broker.commands.opening import actor, opened
from broker.commands.showing import AsJson
from broker.directory import Directory
from broker.errors import NotFound
from broker.events import Destination, Priority
from broker.retry import policy_of
from broker.store import deliveries, referrals
from broker.store import directory as stored
from broker.store.tx import Tx

HELP: Final = """Look at deliveries, try them again, give them up, or make those that are missing.

[bold]Examples[/bold]

  referral-broker deliveries list --state dead
  referral-broker deliveries show 0190f1a2-…
  referral-broker deliveries retry 0190f1a2-… 0190f1a3-…
  referral-broker deliveries give-up 0190f1a2-… --reason "It has closed"
  referral-broker deliveries fan-out 0190f1a4-…
"""
# Not done, most urgent first: what `list` shows unless it is asked for another state.
WAITING: Final = ("due", "held", "dead")
SHOWN: Final = (
    "id",
    "state",
    "held_reason",
    "done_reason",
    "code",
    "kind",
    "organisation",
    "service",
    "role",
    "reason",
    "channel",
    "priority",
    "attempts",
    "message",
    "event",
    "created_at",
    "due_at",
    "collected_at",
    "received_at",
    "settled_at",
)

app = typer.Typer(help=HELP, no_args_is_help=True)
DeliveryId = Annotated[str, typer.Argument(metavar="ID", help="The delivery's id.")]


@app.command("list")
def list_(
    *,
    state: Annotated[
        Literal["due", "held", "dead", "done"] | None,
        typer.Option("--state", help="Only those in this state; by default all but done."),
    ] = None,
    organisation: Annotated[
        str | None, typer.Option("--organisation", help="Only those to this ODS code.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List deliveries, the most urgent first, then the longest due."""
    states = (state,) if state else WAITING
    with opened() as broker:
        if organisation is not None:
            organisation = typed_code(organisation, broker.store.read_now(stored.load)[1])
        rows = broker.store.read_now(
            lambda connection: [
                row
                for one in states
                for row in deliveries.listing(
                    connection, state=one, ods=organisation, limit=limit + 1
                )
            ]
        )
    if len(rows) > limit:
        showing.more_than(limit)
    rows.sort(key=lambda row: (row.priority_rank, row.due_at))
    found = [_shown(row) for row in rows[:limit]]
    if as_json:
        showing.as_json(found)
        return
    showing.table(
        ("id", "state", "why", "kind", "to", "by", "priority", "attempts", "due"),
        [
            (
                one["id"],
                one["state"],
                one["held_reason"] or one["done_reason"] or one["code"],
                one["kind"],
                Destination(one["organisation"], one["service"]),
                one["channel"],
                Priority(one["priority"]).words,
                one["attempts"],
                one["due_at"],
            )
            for one in found
        ],
        empty="There is no such delivery.",
    )


@app.command()
def show(delivery_id: DeliveryId, *, as_json: AsJson = False) -> None:
    """Show one delivery: where it stands, its attempts and receipts, and its message's trail."""
    now = datetime.now(UTC)
    wanted = _id(delivery_id)

    def read(connection: Any) -> tuple[Any, ...]:
        row = deliveries.get(connection, wanted)
        if row is None:
            raise NotFound(f"There is no delivery {delivery_id}.")
        trail = trails.read(connection, row.message_id) if row.message_id else None
        return (
            row,
            deliveries.attempts_of(connection, [wanted]),
            referrals.receipts_of(connection, [wanted]),
            trail,
            stored.load(connection)[1],
        )

    with opened() as broker:
        row, attempts, receipts, trail, directory = broker.store.read_now(read)
    found = _shown(row) | {
        "policy": _policy(row),
        "attempted": [
            {
                "number": one.number,
                "started_at": one.started_at,
                "ended_at": one.ended_at,
                "outcome": one.outcome,
                "code": one.code,
                "http_status": one.http_status,
            }
            for one in attempts
        ],
        "receipts": [
            {
                "received_at": one.received_at,
                "via": one.via,
                "matches": one.matches,
                "client": one.client_id,
            }
            for one in receipts
        ],
        "trail": _trail(trail, directory, now) if trail is not None else None,
    }
    if as_json:
        showing.as_json(found)
    else:
        _print(found, directory.name(Destination(row.ods, row.service)))


def _print(found: dict[str, Any], name: str) -> None:
    showing.facts([("to", name), *((field, found[field]) for field in SHOWN)])
    showing.say("")
    showing.say(found["policy"])
    for heading, columns, rows in (
        (
            "Attempts",
            ("number", "started_at", "ended_at", "outcome", "code", "http_status"),
            found["attempted"],
        ),
        ("Receipts", ("received_at", "via", "matches", "client"), found["receipts"]),
    ):
        if rows:
            headings = [column.replace("_", " ") for column in columns]
            cells = [[row[column] for column in columns] for row in rows]
            showing.table(headings, cells, title=heading)
    trail = found["trail"]
    if trail is not None:
        showing.say(f"{trail['sender_name']} sent it. {trail['line']}")
        if trail["deadlines"]:
            showing.table(
                ("deadline", "by", "whose turn", "stopped", "overdue"),
                [
                    (
                        one["kind"],
                        _moment(one["by"]),
                        one["whose_turn"],
                        _moment(one["met_at"]) or one["lapsed"],
                        one["overdue"],
                    )
                    for one in trail["deadlines"]
                ],
            )


def _moment(told: str | None) -> datetime | None:
    """Return a time of the trail, for people to read as they read every other: in London."""
    return datetime.fromisoformat(told) if told is not None else None


def _policy(row: Any) -> str:
    """Say by which policy it is tried: that of its own priority, or of what waits behind it."""
    priority = next(one for one in Priority if one.rank == row.priority_rank)
    return f"A delivery that fails is, if {priority.words}, {policy_of(row.priority_rank)}."


def _trail(trail: trails.Trail, directory: Directory, now: datetime) -> dict[str, Any]:
    seen = tracking.view(trail, trail.message.sender, directory, now)
    return {
        "message": trail.message.id,
        "sender": trail.message.sender,
        "sender_name": directory.name(Destination(trail.message.sender)),
        "status": trail.message.status,
        "line": seen["line"],
        "deadlines": seen["deadlines"],
        "moves": seen["moves"],
    }


@app.command()
def retry(
    ids: Annotated[list[str], typer.Argument(metavar="ID…", help="Deliveries' ids.")],
) -> None:
    """Try deliveries again now: all of them, or none if one of them cannot be."""
    from broker import operating

    wanted = [_id(one) for one in ids]

    def write(tx: Tx) -> None:
        for one in wanted:
            operating.retry(tx, one, actor())

    with opened() as broker:
        broker.write(write)
    showing.say(f"Due now: {', '.join(wanted)}.")


@app.command("give-up")
def give_up(
    delivery_id: DeliveryId,
    *,
    reason: Annotated[
        str, typer.Option("--reason", help="Why, for the record; it is sealed with the message.")
    ],
) -> None:
    """Give a delivery up for good: what waits behind it goes on, and the sender is told."""
    from broker import operating

    wanted = _id(delivery_id)
    with opened() as broker:
        done = operating.give_up(
            broker.store,
            broker.vault(),
            broker.store.read_now(stored.load)[1],
            wanted,
            reason,
            actor=actor(),
            source=broker.settings.source,
        )
        broker.ring()
    showing.say(f"The delivery {done.delivery} to {done.organisation} is given up.")
    told = "The sender is told." if done.sender_is_told else "It was a notice: nobody is told."
    showing.say(told)
    if not done.reason_is_kept:
        showing.warn("The message was erased, so the reason could not be sealed and is not kept.")


@app.command("fan-out")
def fan_out(
    event_id: Annotated[
        str, typer.Argument(metavar="EVENT", help="The event's id, as `overdue` shows it.")
    ],
) -> None:
    """Make the deliveries of an event that could not be made, once the cause is mended.

    Exit 1 where something of it can still not be made.
    """
    from broker import operating

    wanted = _id(event_id, "event")
    with opened() as broker:
        done = asyncio.run(
            operating.fan_out(
                broker.store,
                broker.vault(),
                wanted,
                actor=actor(),
                source=broker.settings.source,
            )
        )
        broker.ring()
    showing.say(f"Deliveries made of the event {wanted}: {done.made}.")
    if done.trouble is not None:
        showing.warn(f"Not all of it could be made ({done.trouble}): it stays on the work-list.")
        raise typer.Exit(1)


def _id(text: str, what: str = "delivery") -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise NotFound(f"There is no {what} {text!r}: an id is a UUID.") from None


def _shown(row: Any) -> dict[str, Any]:
    """Return a delivery as every command shows it; the names are stable."""
    renamed = {
        "organisation": row.ods,
        "attempts": row.attempt,
        "message": row.message_id,
        "event": row.event_id,
    }
    return {name: renamed[name] if name in renamed else getattr(row, name) for name in SHOWN}
