"""`referral-broker backup` and `referral-broker restore`: a copy, and a broker made of a copy."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from broker import settings
from broker.commands import showing
from broker.commands.opening import Opened, actor, opened, read_text
from broker.commands.showing import AsJson
from broker.errors import Refused
from broker.events import Destination
from broker.ports import Receipt
from broker.settings import Settings

HELP: Final = """Make a broker of a backup: it sends nothing until others were asked what they hold.

[bold]Examples[/bold]

  referral-broker restore from /backup/broker-20261122T020000Z.db
  referral-broker serve &
  referral-broker restore reconcile --receipts G99002.jsonl --receipts RXX01.jsonl
  referral-broker restore go
"""
ON_POSTGRESQL: Final = (
    "This broker is on PostgreSQL: its own tools do that, pg_basebackup or pg_dump. "
    "docs/operations.md (Backup and restore) has the commands."
)
LINES: Final = 20

app = typer.Typer(help=HELP, no_args_is_help=True)


def backup(
    target: Annotated[Path, typer.Argument(help="The file to make, or a folder to make one in.")],
) -> None:
    """Copy the database, whole and as at one moment, also while the broker serves. No key is in it.

    On PostgreSQL it names the tools that do it.
    """
    from broker.attachments.folder import Folder
    from broker.backup import back_up, beside

    with opened() as broker:
        _demand_sqlite(broker.settings)
        files = Folder.within(broker.settings.data_dir)
        made = back_up(broker.store, files, target, actor())
        ring = broker.settings.ring_path.resolve()
    showing.say(f"Backed up to {made}.")
    if beside(made).exists():
        showing.say(f"Its attachments are in {beside(made)}: keep the two together.")
    showing.say(
        f"The keys are NOT in it, and without them nothing in it can be read. They are in {ring}: "
        "keep a copy of that file too, in another place than the backups."
    )


@app.command("from")
def from_(
    file: Annotated[Path, typer.Argument(help="A backup that `referral-broker backup` made.")],
) -> None:
    """Make the database of an empty data folder from a backup. It starts paused."""
    from broker.backup import restore

    found = settings.load()
    _demand_sqlite(found)
    restore(found, file, actor())
    showing.say(f"Restored from {file} to {found.data_dir}.")
    _say_next()


@app.command()
def begin() -> None:
    """Mark a PostgreSQL that was restored with its own tools, before any process is started."""
    from broker import restoring

    with opened() as broker:
        broker.write(lambda tx: restoring.begin(tx, actor()))
    _say_next()


def _say_next() -> None:
    showing.say(
        "It sends nothing yet. Messages are taken, inboxes are read and receipts given as ever. "
        "Now start it, have every sender send again what it sent after the backup was made (under "
        "the same keys: what is here is not taken twice), and do again what operators did since: "
        "the directory, clients, keys, and above all revocations. Then: referral-broker restore "
        "reconcile, and referral-broker restore go."
    )


@app.command()
def reconcile(
    *,
    receipts: Annotated[
        list[Path] | None,
        typer.Option(
            help="What a receiver holds: a JSON object on each line with delivery, digest and "
            "ods, as in a receipt; may be repeated."
        ),
    ] = None,
    kafka_is_lost: Annotated[
        bool, typer.Option("--kafka-is-lost", help="Do not ask Kafka: its topics are gone too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare with what receivers and Kafka hold. Sends nothing; may be done again and again."""
    given = [one for path in receipts or [] for one in _receipts(path)]
    with opened() as broker:
        asks_kafka = broker.settings.has_kafka and not kafka_is_lost
        report = asyncio.run(_reconcile(broker, given, asks_kafka=asks_kafka))
        broker.ring()
    if as_json:
        showing.as_json(_as_json(report))
        return
    _say(report, asked=bool(receipts), asks_kafka=asks_kafka)


async def _reconcile(broker: Opened, given: list[Receipt], *, asks_kafka: bool) -> Any:
    from broker import restoring

    core = broker.core()
    if not asks_kafka:
        return await restoring.reconcile(core, given, None, actor())
    from broker.transport import reader_of_all

    reader = reader_of_all(broker.settings)
    try:
        return await restoring.reconcile(core, given, reader, actor())
    finally:
        await reader.close()


def _say(report: Any, *, asked: bool, asks_kafka: bool) -> None:
    if asked:
        showing.say(f"Proved received by what receivers hold: {report.received}.")
    else:
        showing.say("No receiver was asked (--receipts): what they hold may be sent to them again.")
    _list(
        "Deliveries that receivers hold and this ledger does not",
        [f"{one.delivery} at {one.ods}" for one in report.unknown],
        "Their messages were accepted after the backup and are lost here. If their senders send "
        "them again, these receivers get them under another id: tell them.",
    )
    _list(
        "Receipts that name other bytes or another place",
        [f"{one.delivery} of {one.ods}" for one in report.false],
        "They are on the work-list: overdue.",
    )
    if asks_kafka:
        _list(
            "Events that Kafka holds and this ledger does not",
            [
                f"{one.record.subject} sequence {one.record.sequence} {one.record.type} "
                f"{showing.words(one.record.time)} {one.owner or '(of a subject that is lost too)'}"
                for one in report.lost
            ],
            "Their senders must send again.",
        )
    _list(
        "Deliveries stopped, for their subject went on after the backup",
        [f"{row.id} to {Destination(row.ods, row.service)}" for row in report.stopped],
        "Look at each, then: deliveries retry, or deliveries give-up.",
    )
    places = Counter(Destination(row.ods, row.service) for row in report.unsent)
    showing.say(
        f"Not done when the backup was made: {len(report.unsent)}. They may have been sent since; "
        "with `restore go` they go out, under their own ids."
    )
    if places:
        showing.table(("to", "go out"), sorted(places.items(), key=str))


def _list(what: str, lines: list[str], to_do: str) -> None:
    """Say how many there are and, where there are any, what is to be done about them."""
    if not lines:
        showing.say(f"{what}: none.")
        return
    showing.say(f"{what}: {len(lines)}. {to_do}")
    for line in lines[:LINES]:
        showing.say(f"  {line}")
    if len(lines) > LINES:
        showing.say(f"  and {len(lines) - LINES} more: see all with --json.")


def _as_json(report: Any) -> dict[str, Any]:
    def named(receipt: Receipt) -> dict[str, str]:
        return {"delivery": receipt.delivery, "digest": receipt.digest, "ods": receipt.ods}

    def delivery(row: Any) -> dict[str, Any]:
        return {
            "delivery": row.id,
            "organisation": row.ods,
            "service": row.service,
            "message": row.message_id,
            "priority": row.priority,
        }

    return {
        "received": report.received,
        "unknown": [named(one) for one in report.unknown],
        "false": [named(one) for one in report.false],
        "lost": [
            {
                "event": one.record.id,
                "type": one.record.type,
                "subject": one.record.subject,
                "sequence": one.record.sequence,
                "time": one.record.time,
                "owner": one.owner,
            }
            for one in report.lost
        ],
        "stopped": [delivery(row) for row in report.stopped],
        "unsent": [delivery(row) for row in report.unsent],
    }


@app.command()
def go() -> None:
    """Send again: what was not done when the backup was made goes out now. Ask others first."""
    from broker import restoring

    with opened() as broker:
        waited = broker.write(lambda tx: restoring.go(tx, actor()))
    showing.say(f"It sends again. Deliveries that had waited: {waited}.")


def _demand_sqlite(found: Settings) -> None:
    if not found.is_embedded:
        raise Refused(ON_POSTGRESQL)


def _receipts(path: Path) -> list[Receipt]:
    """Return the receipts of a file. Raises Refused, naming the line that is none."""
    from broker.outbound import receipt_of

    found = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
        except ValueError:
            said = None
        receipt = receipt_of(said) if isinstance(said, dict) else None
        if receipt is None:
            raise Refused(f"{path}, line {number}, is no receipt; nothing was changed.")
        found.append(receipt)
    return found
