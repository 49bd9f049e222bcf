"""What is under way when a process dies at a crash point, and what its owner does then.

A story begins with a world whose broker does not run, and ends with one that serves. It is given
crash points in the order in which it passes them, and fails unless a process died at each. Nobody
in it knows more than his own ledger, or docs/operations.md.
"""

import asyncio
import contextlib
import itertools
import json
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import psycopg

from broker.events import uuid7
from broker.store.database import sqlite_url
from sandbox.client import Reply
from sandbox.process import NotServing
from sandbox.world import INBOX_PRACTICE, WEBHOOK_PRACTICE, World
from tests.databases import take_back
from tests.faults import judged

IMAGE: Final = b"\xff\xd8\xff\xe0" + bytes(200_000)
LONG_AGO: Final = "2026-01-05T10:00:00+00:00"
DIES_WITHIN: Final = 60.0
PAUSE: Final = 1.0

Story = Callable[[World, Sequence[str]], Awaitable[None]]
Sending = Coroutine[Any, Any, Reply]

# -- what partners send --------------------------------------------------------------------------


def everything(world: World) -> list[Sending]:
    """Updates to each practice, one of them withdrawn and one corrected, a referral that is
    accepted and completed, one with an image, and same-day tasks whose deadlines have passed."""
    return [
        *to_inbox(world),
        *(one for _ in range(3) for one in to_webhook(world)),
        *to_hospital(world),
        *(one for _ in range(2) for one in overdue(world)),
        illustrated(world),
        withdrawn(world),
        corrected(world),
    ]


def to_inbox(world: World) -> list[Sending]:
    """An update to the practice that collects."""
    return [world.pharmacy.submit(world.pharmacy.consultation(practice=INBOX_PRACTICE))]


def to_webhook(world: World) -> list[Sending]:
    """An update to the practice that is called."""
    return [world.pharmacy.submit(world.pharmacy.consultation(practice=WEBHOOK_PRACTICE))]


def to_hospital(world: World) -> list[Sending]:
    """A referral that the hospital accepts and completes, of a patient without a practice."""
    body = world.optometrist.referral(family="XXTEST-COMPLETE", practice=WEBHOOK_PRACTICE)
    body.pop("practice")
    return [world.optometrist.submit(body)]


def overdue(world: World) -> list[Sending]:
    """A task for the same day, of a day long past: its deadlines are raised at once."""
    return [world.pharmacy.submit(world.pharmacy.crisis(clinical_time=LONG_AGO))]


async def illustrated(world: World) -> Reply:
    """A referral with an image, which is uploaded first."""
    sent = await world.optometrist.client.call("POST", "/attachments", IMAGE, key=uuid7())
    assert sent.status == 201, sent.json
    named = {name: sent.json[name] for name in ("id", "sha256")}
    body = world.optometrist.referral(
        practice=WEBHOOK_PRACTICE, attachments=[{**named, "title": "Fundus, right eye"}]
    )
    return await world.optometrist.submit(body)


async def withdrawn(world: World) -> Reply:
    """An update that its sender takes back."""
    sent = await to_inbox(world)[0]
    return await world.pharmacy.withdraw(sent.json["messages"][0]["id"])


async def corrected(world: World) -> Reply:
    """An update that its sender corrects, whatever its receiver does with it meanwhile."""
    pharmacy = world.pharmacy
    body = pharmacy.consultation(practice=WEBHOOK_PRACTICE)
    message = (await pharmacy.submit(body)).json["messages"][0]["id"]
    right = pharmacy.consultation(practice=WEBHOOK_PRACTICE, reference=body["reference"])
    while True:
        read = await pharmacy.client.call("GET", f"/messages/{message}")
        reply = await pharmacy.correct(message, right, read.etag)
        if reply.status != 412:
            return reply


async def all_taken(posting: list[asyncio.Task[Reply]]) -> None:
    """Wait until every post was answered as taken, however often it had to be repeated."""
    replies = await asyncio.gather(*posting)
    assert {reply.status for reply in replies} <= {200, 202}, [reply.json for reply in replies]


# -- a broker that dies --------------------------------------------------------------------------


async def serving(world: World, crashpoints: Sequence[str]) -> None:
    """A broker dies again and again while messages come and go. They go on coming until it does:
    the relay and whoever reads Kafka may begin late."""
    posting: list[asyncio.Task[Reply]] = []

    async def post_more() -> None:
        for sending in itertools.cycle((to_inbox, to_webhook)):
            await asyncio.sleep(PAUSE)
            posting.extend(asyncio.create_task(one) for one in sending(world))

    more = asyncio.create_task(post_more())
    try:
        for crashpoint in crashpoints:
            posting.extend(asyncio.create_task(one) for one in everything(world))
            await dies(world, crashpoint)
            leases_run_out(world)
        more.cancel()
        await world.broker.start()
        await all_taken(posting)
    finally:
        for task in (more, *posting):
            task.cancel()
        await asyncio.gather(more, *posting, return_exceptions=True)


async def upgrading(world: World, crashpoints: Sequence[str]) -> None:
    """An embedded broker dies in the upgrade with which it starts."""
    await _with_work_left(world)
    take_back(sqlite_url(world.folder / "data" / "broker.db"), world.folder / "before.db")
    for crashpoint in crashpoints:
        await dies(world, crashpoint)
    await world.broker.start()
    await world.webhook_practice.start()


async def dies(world: World, crashpoint: str) -> None:
    """Start a broker that must die at a point, be it while it starts."""
    with contextlib.suppress(NotServing):
        await world.broker.start(crashpoint=crashpoint)
    try:
        code = await world.broker.died(DIES_WITHIN)
    except TimeoutError:
        raise AssertionError(f"{crashpoint} was not reached") from None
    assert code == -signal.SIGKILL


def leases_run_out(world: World) -> None:
    """Let what a dead process had claimed be anybody's, as a minute without it would. On SQLite the
    next broker knows at once that it is alone."""
    url = world.broker.settings.get("BROKER_DATABASE_URL")
    if url:
        with psycopg.connect(url) as server:
            server.execute("UPDATE delivery SET lease_until = now() WHERE lease_until > now()")


# -- a command that is cut off -------------------------------------------------------------------


class Operator:
    """Types the commands of docs/operations.md. One that is cut off he types once more, as it was:
    it does what it had not done, or says that it had."""

    def __init__(self, world: World, crashpoints: Sequence[str]) -> None:
        self._world = world
        self._ahead = list(crashpoints)

    async def type(self, *words: str) -> None:
        """Have a command done, cut off at each of the points that are next. Fails with what it
        said."""
        was_cut_off = False
        while True:
            crashpoint = self._ahead[0] if self._ahead else ""
            code, said = await self._world.cli(*words, crashpoint=crashpoint)
            if code != -signal.SIGKILL:
                break
            was_cut_off = True
            del self._ahead[0]
        assert code == 0 or (was_cut_off and " already" in said), f"{words}: {said}"

    def demand_cut_off(self) -> None:
        """Fail unless a command died at every point."""
        assert not self._ahead, f"{self._ahead[0]} was not reached"


async def making(world: World, crashpoints: Sequence[str]) -> None:
    """A replay is cut off that makes deliveries: the dispatcher died before it had made any."""
    operator, began = Operator(world, crashpoints), datetime.now(UTC)
    posting = [asyncio.create_task(one) for one in everything(world)]
    await dies(world, "dispatch.composed:1")
    leases_run_out(world)
    await operator.type("replay", "--since", began.isoformat(), "--yes")
    operator.demand_cut_off()
    await world.broker.start()
    await all_taken(posting)


async def resending(world: World, crashpoints: Sequence[str]) -> None:
    """A replay is cut off that sends again what had gone out, beside a broker that serves."""
    operator, began = Operator(world, crashpoints), datetime.now(UTC)
    await _with_all_done(world)
    publish = ["--publish"] if "BROKER_KAFKA_SERVERS" in world.broker.settings else []
    await operator.type("replay", "--since", began.isoformat(), "--resend", "--yes", *publish)
    operator.demand_cut_off()
    await all_taken([asyncio.create_task(one) for one in to_webhook(world)])


async def rebuilding(world: World, crashpoints: Sequence[str]) -> None:
    """The command is cut off that has every topic published again, beside a relay that works."""
    operator = Operator(world, crashpoints)
    await _with_all_done(world)
    await operator.type("replay", "--topics", "--yes")
    operator.demand_cut_off()
    await all_taken([asyncio.create_task(one) for one in to_webhook(world)])


async def restoring(world: World, crashpoints: Sequence[str]) -> None:
    """Commands are cut off while a broker is made of a backup: the one that makes the backup, and
    those with which it is restored, compared and let go. Nothing came after the backup."""
    operator = Operator(world, crashpoints)
    await _with_work_left(world)
    if "BROKER_DATABASE_URL" in world.broker.settings:  # its own tools have restored it
        await operator.type("restore", "begin")
    else:
        backup = world.folder / f"backup-{uuid7()}.db"
        await operator.type("backup", str(backup))
        (world.folder / "data").rename(world.folder / f"gone-{uuid7()}")
        await operator.type("restore", "from", str(backup))
    posting = [asyncio.create_task(one) for one in to_inbox(world)]
    await world.broker.start()
    await world.webhook_practice.start()
    await operator.type("restore", "reconcile", "--receipts", _what_receivers_hold(world))
    await operator.type("restore", "go")
    operator.demand_cut_off()
    await all_taken(posting)


async def migrating(world: World, crashpoints: Sequence[str]) -> None:
    """The command is cut off that brings a database of the release before up to this one."""
    operator = Operator(world, crashpoints)
    await _with_work_left(world)
    url = world.broker.settings.get("BROKER_DATABASE_URL")
    take_back(
        url or sqlite_url(world.folder / "data" / "broker.db"),
        world.folder / "before.db",
    )
    await operator.type("migrate")
    operator.demand_cut_off()
    await world.broker.start()
    await world.webhook_practice.start()


async def _with_all_done(world: World) -> None:
    """Have a broker deliver everything; it runs on."""
    await world.broker.start()
    await all_taken([asyncio.create_task(one) for one in everything(world)])
    await judged.settled(world)


async def _with_work_left(world: World) -> None:
    """Have a broker deliver everything but what is for the practice that is called, and die."""
    await world.webhook_practice.stop()
    await world.broker.start()
    await all_taken([asyncio.create_task(one) for one in everything(world)])
    await world.broker.kill()
    leases_run_out(world)


def _what_receivers_hold(world: World) -> str:
    """Write down what every receiver says that it holds, as `restore reconcile` reads it."""
    held = [
        {"delivery": entry["delivery"], "digest": entry["digest"], "ods": partner.ods}
        for partner in world.partners
        for entry in partner.ledger.entries("received")
    ]
    file = world.folder / "held.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in held))
    return str(file)
