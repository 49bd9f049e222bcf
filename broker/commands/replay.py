"""`referral-broker replay`: from the ledger once more, after a loss somewhere else."""

import asyncio
import uuid
from collections import Counter
from datetime import datetime
from typing import Annotated, Any

import typer

from broker import registry
from broker.commands import showing
from broker.commands.directory import typed_code
from broker.commands.opening import Opened, actor, opened
from broker.commands.showing import AsJson
from broker.dispatch import Dispatch
from broker.errors import NotFound, Refused
from broker.events import ALL_TYPES, Destination
from broker.replay import Done, Fate, Plan, Replay, Wanted, rebuild
from broker.settings import PREFIX
from broker.store import directory as stored
from broker.store import ledger
from broker.topics import TOPIC_OF
from fhir_profiles.working_days import LONDON


def replay(
    *,
    since: Annotated[
        str, typer.Option(help="From this time on: 2026-11-22T02:00 is London's time.")
    ] = "",
    until: Annotated[str, typer.Option(help="Before this time.")] = "",
    type_: Annotated[
        list[str] | None, typer.Option("--type", help="Only this type of event; may be repeated.")
    ] = None,
    to: Annotated[
        str,
        typer.Option(
            metavar="ODS[/SERVICE]",
            help="Only what goes there; without a service, to any service of it.",
        ),
    ] = "",
    message: Annotated[str, typer.Option(help="Only this message, by its id.")] = "",
    resend: Annotated[
        bool, typer.Option("--resend", help="Send again also what had gone out.")
    ] = False,
    publish: Annotated[
        bool, typer.Option("--publish", help="Publish the events to Kafka again as well.")
    ] = False,
    topics: Annotated[
        bool, typer.Option("--topics", help="Publish the whole ledger again: Kafka was lost.")
    ] = False,
    after: Annotated[
        int, typer.Option(min=0, help="With --topics: only what stands after this position.")
    ] = 0,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it. Without this it is only counted and told.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send or publish again from the ledger. Without --yes nothing is done: it says what would be.

    Deliveries that are missing are made. What had gone out is sent again with --resend: under its
    own id, to the same place, so that a receiver which still has it knows it. What was cancelled,
    withdrawn, superseded or given up never is. After Kafka lost everything: replay --topics.
    """
    chosen = {"since": since, "until": until, "type": type_, "to": to, "message": message}
    if topics:
        if resend or publish or any(chosen.values()):
            raise Refused("--topics is about the whole ledger: leave all but --after out.")
        _topics(after, yes=yes, as_json=as_json)
        return
    with opened() as broker:
        directory = broker.store.read_now(stored.load)[1]
        ods, _, service = to.partition("/")
        wanted = Wanted(
            since=_moment(since),
            until=_moment(until),
            types=_types(type_ or []),
            to=Destination(typed_code(ods, directory), service.upper()) if to else None,
            message=_message(message),
        )
        if wanted.is_all:
            raise Refused("Say which events: --since, --until, --type, --to or --message.")
        if publish:
            _demand_kafka(broker)
        asyncio.run(
            _replay(broker, wanted, resend=resend, publish=publish, yes=yes, as_json=as_json)
        )


async def _replay(
    broker: Opened, wanted: Wanted, *, resend: bool, publish: bool, yes: bool, as_json: bool
) -> None:
    core = broker.core()
    replaying = Replay(core, Dispatch(core, tuple(registry.load().consumers.values())))
    plan = await replaying.plan(wanted)
    done = None
    if not as_json:
        _say(plan, resend=resend, publish=publish, yes=yes)
    if yes:
        publisher = _publisher(broker) if publish else None
        try:
            done = await replaying.carry_out(wanted, actor(), resend=resend, publisher=publisher)
        finally:
            if publisher is not None:
                await publisher.close()
        broker.ring()
    if as_json:
        showing.as_json(_as_json(plan, done))
    elif done is not None:
        _say_done(done)
    if done is not None and done.in_trouble:
        raise typer.Exit(1)


def _say(plan: Plan, *, resend: bool, publish: bool, yes: bool) -> None:
    """Say what will happen, in sentences, then count it by destination."""
    if not plan.events:
        showing.say("No such event is in the ledger.")
        return
    span = f"from {showing.words(plan.first)} to {showing.words(plan.last)}"
    showing.say(f"{_many(plan.events, 'event is', 'events are')} chosen, {span}.")
    missing, gone = plan.count(Fate.MISSING), plan.count(Fate.GONE_OUT)
    never = plan.count(Fate.OVER, Fate.ERASED)
    lines = [f"{missing} missing: made, as they should have been."]
    if resend:
        lines.append(f"{gone} had gone out: sent again, under their own ids.")
    else:
        lines.append(f"{gone} had gone out: not sent again without --resend.")
    lines.append(
        f"{plan.count(Fate.OPEN)} under way, waiting or dead: left as they are (see: deliveries)."
    )
    lines.append(f"{never} cancelled, withdrawn, superseded, given up or erased: never sent again.")
    if publish:
        count = sum(plan.topics.values())
        lines.append(f"{_many(count, 'event is', 'events are')} published again, with the same id.")
        if count < plan.events:
            lines.append(f"{plan.events - count} not published yet: the relay does that itself.")
    for line in lines:
        showing.say(f"  {line}")
    _table(plan)
    if not yes:
        showing.say("Nothing has been done. To do it, say the same with --yes.")


def _table(plan: Plan) -> None:
    columns = (Fate.MISSING, Fate.GONE_OUT, Fate.OPEN, Fate.OVER, Fate.ERASED)
    places = sorted({place for place, _ in plan.fates}, key=str)
    if places:
        showing.table(
            ("to", *columns),
            [(place, *(plan.fates[place, fate] for fate in columns)) for place in places],
        )


def _say_done(done: Done) -> None:
    showing.say(f"Done: {done.made} made, {done.resent} sent again, {done.published} published.")
    if done.in_trouble:
        showing.warn(f"On the work-list (see: overdue) now: {', '.join(done.in_trouble)}.")


def _as_json(plan: Plan, done: Done | None) -> dict[str, Any]:
    destinations: dict[str, dict[str, int]] = {}
    for (place, fate), count in plan.fates.items():
        destinations.setdefault(str(place), {})[fate.value.replace(" ", "_")] = count
    return {
        "events": plan.events,
        "first": plan.first,
        "last": plan.last,
        "topics": dict(plan.topics),
        "destinations": destinations,
        "done": None
        if done is None
        else {
            "made": done.made,
            "resent": done.resent,
            "published": done.published,
            "in_trouble": done.in_trouble,
        },
    }


def _topics(after: int, *, yes: bool, as_json: bool) -> None:
    """Set the relay back, so that every topic is made again."""
    with opened() as broker:
        _demand_kafka(broker)
        head = broker.store.read_now(ledger.head)
        counted: Counter[str] = Counter()
        for kind, count in broker.store.read_now(lambda c: ledger.types_after(c, after)).items():
            counted[TOPIC_OF[kind]] += count
        if yes:
            broker.write(lambda tx: rebuild(tx, after, actor()))
    if as_json:
        showing.as_json({"after": after, "head": head, "topics": dict(counted), "done": yes})
        return
    total = _many(counted.total(), "event", "events")
    showing.table(("topic", "events"), sorted(counted.items()), empty="There are none.")
    if yes:
        showing.say(
            f"The relay publishes {total} again, from position {after + 1} to {head}: it begins "
            "with its next batch. How far it is: broker_ledger_unread_events of /metrics."
        )
        return
    showing.say(
        f"{total} would be published again, in the order of each subject, under the ids and "
        "sequences that they had. Who has read them knows them by these. New events wait behind "
        "them. Nothing is delivered twice. If the topics are gone, first: topics create."
    )
    showing.say("Nothing has been done. To do it, say the same with --yes.")


def _demand_kafka(broker: Opened) -> None:
    if not broker.settings.has_kafka:
        raise Refused(f"There is no Kafka to publish to: set {PREFIX}KAFKA_SERVERS.")


def _publisher(broker: Opened) -> Any:
    from broker.transport import publisher

    return publisher(broker.settings)


def _many(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def _moment(text: str) -> datetime | None:
    """Return a time as a person writes it; one without a time zone is London's."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Refused(f"{text!r} is no time: write 2026-11-22T02:00, in London.") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=LONDON)


def _types(named: list[str]) -> frozenset[str]:
    for one in named:
        if one not in ALL_TYPES:
            raise NotFound(f"There is no type {one!r}: {', '.join(sorted(ALL_TYPES))}.")
    return frozenset(named)


def _message(text: str) -> str | None:
    try:
        return str(uuid.UUID(text)) if text else None
    except ValueError:
        raise NotFound(f"There is no message {text!r}: an id is a UUID.") from None
