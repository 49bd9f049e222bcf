"""The acts of the demo in which something goes wrong, and nothing is lost: repeats and kill -9."""

import asyncio
import json
from typing import Final
from uuid import uuid4

from sandbox.acts import Act
from sandbox.client import Reply
from sandbox.ledger import until
from sandbox.story import Story
from sandbox.world import INBOX_PRACTICE, WEBHOOK_PRACTICE, World

IN_FLIGHT: Final = 200
_POSTED: Final = 230
_ANSWERED_BEFORE: Final = 60
_STORED_BEFORE: Final = 3
_PATIENCE: Final = 60.0


async def twice(world: World, story: Story) -> None:
    """The same post, sent twice, is taken once."""
    pharmacy, practice = world.pharmacy, world.practice
    body, key = pharmacy.consultation(practice=INBOX_PRACTICE), str(uuid4())
    first = await pharmacy.submit(body, key=key)
    second = await pharmacy.submit(body, key=key)
    story.see(
        first.status == 202 and (first.status, first.body) == (second.status, second.body),
        "the same post with the same Idempotency-Key got the same answer, byte for byte",
    )
    other = await pharmacy.submit({**body, "advice": "Something else."}, key=key)
    story.see(
        other.status == 409, f"another body under that key was refused: “{other.json['detail']}”"
    )
    again = await pharmacy.submit(body)
    story.see(
        again.status == 409,
        "the same reference under a new key was refused, and the answer named the message",
    )
    await world.received(first, practice)
    after = await pharmacy.submit(pharmacy.consultation(practice=INBOX_PRACTICE))
    await world.received(after, practice)
    stored = practice.ledger.entries("received", reference=body["reference"])
    story.see(len(stored) == 1, f"{practice.name} stored it once")


async def killed(world: World, story: Story) -> None:
    """The broker is killed with 200 messages in flight, started again, and the ledgers agree."""
    pharmacy, broker = world.pharmacy, world.broker
    places = (INBOX_PRACTICE, WEBHOOK_PRACTICE)
    bodies = [
        pharmacy.consultation("minor-illness", practice=places[number % 2])
        for number in range(_POSTED)
    ]
    references = {body["reference"] for body in bodies}
    posting = [asyncio.create_task(pharmacy.submit(body)) for body in bodies]
    await until(
        lambda: (
            len(_answered(world, references)) >= _ANSWERED_BEFORE
            and len(_stored(world, references)) >= _STORED_BEFORE
        ),
        _PATIENCE,
    )
    pid = await broker.kill()
    answered, stored = len(_answered(world, references)), len(_stored(world, references))
    flying = len(bodies) - stored
    story.see(
        flying >= IN_FLIGHT and broker.pid is None,
        f"kill -9 of process {pid} with {flying} messages in flight: of {len(bodies)} posted, "
        f"{answered} were answered and {stored} stored by a practice",
    )
    await broker.start()
    story.see(broker.pid not in {None, pid}, f"started again as process {broker.pid}")
    replies = await asyncio.gather(*posting)
    repeated = sum(reply.tries > 1 for reply in replies)
    story.see(
        all(reply.status == 202 for reply in replies),
        f"every one of the {len(replies)} was answered in the end: the pharmacy repeated "
        f"{repeated} of them under their own keys",
    )
    compared = await until(
        lambda: found if (found := world.compare(references)).is_whole else None, _PATIENCE
    ) or world.compare(references)
    story.see(
        compared.is_whole,
        f"the ledgers, compared: {len(references)} sent, {len(compared.answered)} answered, "
        f"{len(compared.lost)} lost, {len(compared.doubled)} doubled; {compared.sent_again} came "
        "again over the wire and were recognised",
    )
    shown = await _received_levels(world, replies)
    story.see(
        len(shown) == len(bodies) and all(shown),
        f"the broker says the same: {sum(map(bool, shown))} of {len(bodies)} received, each with "
        "a receipt that matches",
    )


def _answered(world: World, references: set[str]) -> set[str]:
    found = world.pharmacy.ledger.entries("ok", status=202)
    return {entry["reference"] for entry in found if entry.get("reference") in references}


def _stored(world: World, references: set[str]) -> set[str]:
    return {
        entry["reference"]
        for practice in (world.practice, world.webhook_practice)
        for entry in practice.ledger.entries("received")
        if entry.get("reference") in references
    }


async def _received_levels(world: World, replies: list[Reply]) -> list[bool]:
    """Return for each message whether the broker holds a matching receipt of its one delivery."""
    room = asyncio.Semaphore(8)

    async def one(reply: Reply) -> bool:
        async with room:
            shown = await world.pharmacy.track(reply.json["messages"][0]["id"])
        (delivery,) = shown["deliveries"]
        return bool(delivery["received_at"]) and any(r["matches"] for r in delivery["receipts"])

    return list(await asyncio.gather(*(one(reply) for reply in replies)))


async def audited(world: World, story: Story) -> None:
    """The audit chain holds, from its first entry to its last, kill or no kill."""
    code, said = await world.cli("audit", "verify", "--json")
    found = json.loads(said) if code == 0 else {}
    story.see(
        found.get("holds") and found["checked"] > IN_FLIGHT,
        f"referral-broker audit verify: {found.get('checked')} entries, and every link holds",
    )
    if code != 0:
        story.say(said.strip()[-500:])


TROUBLE: Final[tuple[tuple[str, Act], ...]] = (
    ("The same post twice", twice),
    ("The broker is killed with 200 messages in flight", killed),
    ("The audit chain is verified", audited),
)
