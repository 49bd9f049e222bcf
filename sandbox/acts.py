"""The acts of the demo that are clinical: each shows one thing, and claims only what it verified.

Verified means: read from the broker's API, or found in a partner's own ledger, or both.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from sandbox import sentinels
from sandbox.ledger import Entry, until
from sandbox.partner import WITHDRAWN, Partner
from sandbox.story import Story
from sandbox.world import INBOX_PRACTICE, WEBHOOK_PRACTICE, World

BACKLOG: Final = 30
SLOWLY: Final = 0.6
_PATIENCE: Final = 15.0


async def routine(world: World, story: Story) -> None:
    """A consultation reaches the record, and the pharmacist sees that it did."""
    pharmacy, practice = world.pharmacy, world.practice
    started = time.perf_counter()
    sent = await pharmacy.submit(pharmacy.consultation(practice=INBOX_PRACTICE))
    took = (time.perf_counter() - started) * 1000
    story.see(sent.status == 202, f"{pharmacy.name} posted a consultation: 202 in {took:.0f} ms")
    message = sent.json["messages"][0]["id"]
    (stored,) = await world.received(sent, practice)
    shown = await tracked(pharmacy, message, lambda view: view["deliveries"][0]["received_at"])
    proved = [one for one in shown["deliveries"][0]["receipts"] if one["matches"]]
    story.see(
        proved and stored["digest"],
        f"{practice.name} collected it, stored it, and proved it: SHA-256 {stored['digest'][:12]}…",
    )
    shown = await tracked(pharmacy, message, lambda view: "filed it" in view["line"])
    story.see(
        shown["deliveries"][0]["outcome"] == "filed",
        f"the pharmacist asked what became of it: “{shown['line']}”",
    )
    told = await heard(pharmacy, message, "update-filed")
    story.see(told["text"], f"and was told without asking: “{told['text']}”")


async def crisis(world: World, story: Story) -> None:
    """What must be seen today overtakes what can wait."""
    pharmacy, practice = world.pharmacy, world.webhook_practice
    practice.slow_seconds = SLOWLY
    first = len(practice.ledger.entries())
    bodies = [
        pharmacy.consultation("acute-sore-throat", practice=WEBHOOK_PRACTICE, family="XXTEST-SLOW")
        for _ in range(BACKLOG)
    ]
    posted = await asyncio.gather(*(pharmacy.submit(body) for body in bodies))
    story.see(
        all(one.status == 202 for one in posted),
        f"{BACKLOG} routine consultations wait for {practice.name}, whose system takes "
        f"{SLOWLY:g} s for each",
    )
    sent = await pharmacy.submit(pharmacy.crisis(practice=WEBHOOK_PRACTICE))
    (task,) = (one for one in sent.json["messages"] if one["kind"] == "referral")
    story.see(
        [one["kind"] for one in sent.json["messages"]] == ["update", "referral"]
        and task["priority"] == "stat",
        "then a blood pressure of 196/124: one post made an update and a same-day task",
    )
    (spoken,) = (line for line in sent.json["read_first"] if "telephone" in line)
    story.see(spoken, f"the answer said first: “{spoken.partition(' Then ')[0]}”")
    overtaken = await _order(practice, first, task["id"], {body["reference"] for body in bodies})
    place, behind = overtaken.index("T") + 1, len(overtaken) - overtaken.index("T") - 1
    story.see(
        behind >= BACKLOG // 3,
        f"{practice.name}'s ledger: the task came as number {place}, before {behind} routine ones "
        "that had been accepted earlier",
    )
    story.say(f"in the order in which they were stored: {overtaken}")
    called = await pharmacy.telephoned(task["id"], "spoke-to-clinician", "Spoke to the doctor.")
    shown = await tracked(pharmacy, task["id"], lambda view: "telephone" in _met(view))
    story.see(called.status == 201 and shown, "the call was recorded: the duty to ring is met")
    told = await heard(pharmacy, task["id"], "accepted")
    story.see(told, f"{practice.name} accepted the task, and the pharmacist was told")


def _met(view: Any) -> set[str]:
    """Return the kinds of a message's deadlines that were met."""
    return {one["kind"] for one in view["deadlines"] if one["met_at"]}


async def _order(practice: Partner, first: int, task: str, routine: set[str]) -> str:
    """Return the order in which a receiver stored things: r for routine, T for the task."""

    def stored() -> list[Entry]:
        return [
            entry
            for entry in practice.ledger.entries("received")
            if entry["seq"] > first
            and (entry["message"] == task or entry.get("reference") in routine)
            and entry["kind"] != "notice"
        ]

    def whole() -> list[Entry]:
        found = [e for e in stored() if e["message"] == task or e["kind"] == "update"]
        return found if len(found) > BACKLOG else []

    entries = await until(whole, 3 * _PATIENCE) or stored()
    return "".join("T" if entry["message"] == task else "r" for entry in entries)


async def withheld(world: World, story: Story) -> None:
    """Where the patient says no, nothing goes and nothing clinical is kept."""
    pharmacy, practice = world.pharmacy, world.practice
    body = pharmacy.crisis(practice=INBOX_PRACTICE, consent_to_inform_gp=False)
    sent = await pharmacy.submit(body)
    message = sent.json["messages"][0]
    story.see(
        sent.status == 202 and message["status"] == "withheld",
        f"the patient did not agree: “{sent.json['read_first'][-1]}”",
    )
    story.see(
        "Nobody has been told" in sent.json["read_first"][0],
        "as it held a crisis, the answer began: “Nobody has been told.”",
    )
    # Whatever is posted now comes after it: once that is filed, the withheld one never will be.
    after = await pharmacy.submit(pharmacy.consultation(practice=INBOX_PRACTICE))
    await heard(pharmacy, after.json["messages"][0]["id"], "update-filed")
    inbox = await _whole_inbox(practice)
    story.see(
        not practice.ledger.entries("received", reference=body["reference"])
        and message["id"] not in {row["message"] for row in inbox},
        f"{practice.name} has it neither in its inbox nor in its ledger; what was posted after it "
        "was filed",
    )
    shown = await pharmacy.track(message["id"])
    story.see(
        shown["status"] == "withheld" and not shown["deliveries"] and "pathway" not in shown,
        f"the broker knows of it: “{shown['line']}” and nothing else",
    )


async def withdrawn(world: World, story: Story) -> None:
    """A consultation entered for the wrong patient is taken back, after it was filed."""
    pharmacy, practice = world.pharmacy, world.practice
    sent = await pharmacy.submit(pharmacy.consultation("shingles", practice=INBOX_PRACTICE))
    message = sent.json["messages"][0]["id"]
    await heard(pharmacy, message, "update-filed")
    story.see(True, f"a consultation for the wrong patient was filed at {practice.name}")
    taken_back = await pharmacy.withdraw(message)
    story.see(taken_back.status == 202, "the pharmacist withdrew it as entered in error: 202")
    word = await until(
        lambda: practice.ledger.first("received", event=WITHDRAWN, about=message), _PATIENCE
    )
    story.see(word, f"{practice.name} was told: “{(word or {})['text']}”")
    shown = await tracked(pharmacy, message, lambda view: view["status"] == "withdrawn")
    story.see(shown["status"] == "withdrawn", f"the pharmacist sees: “{shown['line']}”")


async def completed(world: World, story: Story) -> None:
    """A referral is accepted, then completed, and both the optometrist and the GP hear of it."""
    optometrist, practice, hospital = world.optometrist, world.webhook_practice, world.hospital
    sent = await optometrist.submit(
        optometrist.referral("cataract", practice=WEBHOOK_PRACTICE, family="XXTEST-COMPLETE")
    )
    message = sent.json["messages"][0]
    places = ", ".join(f"{one['name']} ({one['role']})" for one in message["destinations"])
    story.see(sent.status == 202, f"{optometrist.name} posted a referral for cataract: {places}")
    stored = await world.received(sent, hospital, practice)
    story.see(
        len(stored) == 2,
        f"{hospital.name} and {practice.name} stored it, each with its own receipt",
    )
    for state in ("accepted", "completed"):
        told = [await heard(one, message["id"], state) for one in (optometrist, practice)]
        story.see(
            all(told), f"{hospital.name} {state} it: the optometrist and the practice were told"
        )
        if told[0].get("advice"):
            story.say(f"“{told[0]['advice'].splitlines()[0]}”")
    shown = await optometrist.get(message["referral"])
    story.see(
        shown["state"] == "completed" and not shown["allowed_moves"],
        "the referral is completed, and nothing is left for anybody to do",
    )


async def rejected(world: World, story: Story) -> None:
    """A referral that does not meet the criteria comes back with advice."""
    optometrist, hospital = world.optometrist, world.hospital
    sent = await optometrist.submit(
        optometrist.referral(
            "raised-pressure", practice=INBOX_PRACTICE, family="XXTEST-REJECT-CRITERIA-NOT-MET"
        )
    )
    message = sent.json["messages"][0]
    story.see(sent.status == 202, "a referral for raised pressure was posted")
    for warning in sent.json["warnings"]:
        story.say(f"the answer warned: {warning['detail']}")
    told = await heard(optometrist, message["id"], "rejected")
    story.see(
        told["advice"] == sentinels.ADVICE,
        f"{hospital.name} rejected it ({told['text']}), and the optometrist reads: "
        f"“{told['advice']}”",
    )
    practice = await heard(world.practice, message["id"], "rejected")
    story.see(practice, f"{world.practice.name} was told as well")
    shown = await optometrist.track(message["id"])
    story.see(shown["state"] == "rejected", f"the optometrist sees: “{shown['line']}”")


async def refused(world: World, story: Story) -> None:
    """A bad referral comes back at once, with everything that is wrong with it."""
    optometrist = world.optometrist
    body = optometrist.referral("retinal-detachment", practice=WEBHOOK_PRACTICE)
    body["patient"] |= {"nhs_number": "9990000043", "birth_date": "2069-01-21"}
    body["left"]["pressures"][0]["value"] = -4
    body["urgencey"] = body.pop("urgency")
    sent = await optometrist.submit(body)
    problems = sent.json["problems"]
    story.see(
        sent.status == 422 and len(problems) >= 4,
        f"a bad referral was refused with all of its {len(problems)} problems at once:",
    )
    for problem in problems:
        story.say(f"{problem['field']}: {problem['detail']} {problem['todo']}")
    story.see(
        sent.json["detail"].startswith("Nothing was sent. "),
        f"as it may be urgent, the answer began: “{sent.json['detail'][:90]}…”",
    )
    kept = await optometrist.get("/messages", reference=body["reference"])
    story.see(kept == {"messages": [], "next": None}, "nothing of it was kept")


# -- looking -------------------------------------------------------------------------------------


async def heard(partner: Partner, about: str, topic: str) -> Entry:
    """Return the entry of a partner's ledger that tells this of a message. Raises LookupError."""
    found = await until(
        lambda: partner.ledger.first("received", about=about, topic=topic), _PATIENCE
    )
    if found is None:
        raise LookupError(f"{partner.name} was not told {topic!r} of {about}")
    return found


async def tracked(partner: Partner, message: str, is_so: Callable[[Any], Any]) -> Any:
    """Return what the sender is shown of a message once it is so. Raises LookupError."""
    ends = time.monotonic() + _PATIENCE
    shown: Any = None
    while time.monotonic() < ends:
        shown = await partner.get(f"/messages/{message}")
        with suppress(LookupError):  # what is asked about is not there yet
            if is_so(shown):
                return shown
        await asyncio.sleep(0.05)
    raise LookupError(f"{partner.name} still sees “{(shown or {}).get('line')}” of {message}")


async def _whole_inbox(partner: Partner) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    after: str | None = ""
    while after is not None:
        page = await partner.get("/inbox", state="all", limit="200", after=after)
        rows += page["deliveries"]
        after = page["next"]
    return rows


Act = Callable[[World, Story], Awaitable[None]]
CLINICAL: Final[tuple[tuple[str, Act], ...]] = (
    ("A routine consultation is filed", routine),
    ("A blood pressure crisis overtakes a routine backlog", crisis),
    ("Consent is withheld", withheld),
    ("A wrong consultation is withdrawn", withdrawn),
    ("A referral is accepted, then completed", completed),
    ("A referral is rejected with advice", rejected),
    ("A bad referral is refused with all its problems", refused),
)
