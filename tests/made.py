"""Everything that the broker makes, for tests that look at all of it: what the adapters make of
their own examples, the notices and moves that tell of it, and the messages that carry each."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

from adapters.pharmacy import ADAPTER as PHARMACY
from adapters.pillars.optometry.door import REFERRALS as OPTOMETRY
from broker import registry
from broker.events import (
    NOTICE_ISSUED,
    REFERRAL_AMENDED,
    REFERRAL_REDIRECTED,
    REFERRAL_SUBMITTED,
    UPDATE_SUBMITTED,
    UPDATE_WITHDRAWN,
    Destination,
    Kind,
    Priority,
    Recorded,
    Role,
    Route,
)
from broker.ports import Adapter, Addressed, Bars, Consumer, Context, Original, Party
from fhir_profiles import codes, focus, strict_json
from fhir_profiles.bars.outgoing import Place
from fhir_profiles.compiler.finding import Finding
from fhir_profiles.message import Site
from fhir_profiles.profiles import ours

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
LATER = datetime(2026, 11, 24, 8, tzinfo=UTC)
PRACTICE = Party("Y90001", "Riverside Medical Practice", "0113 496 0201")
SENDER = Party("FPH01", "Riverside Pharmacy", "0113 496 0101")
CORRELATION = "0199a000-0000-7000-8000-000000000009"
TOLD = "0199a000-0000-7000-8000-000000000003"
DELIVERY = "0199a000-0000-7000-8000-000000000004"
IDS = {
    "update": "0199a000-0000-7000-8000-000000000001",
    "referral": "0199a000-0000-7000-8000-000000000002",
}


@cache
def contents() -> Mapping[str, bytes]:
    """Return the Bundle of every message that an example asks for, by its name."""
    found = {}
    for adapter in (PHARMACY, OPTOMETRY):
        for name, example in adapter.examples.items():
            for key, content in _translated(adapter, example):
                found[f"{adapter.name}-{name}-{key}"] = content
    return found


@cache
def told() -> Mapping[str, bytes]:
    """Return a notice of every topic and a Task of every state, about messages of `contents`."""
    update = contents()["pharmacy-shingles-update"]
    referral = contents()["optometry-cataract-referral"]
    here, there = Site(SENDER.ods, SENDER.name), Site(PRACTICE.ods, PRACTICE.name)
    found = {}
    for kind, content in (("Communication", update), ("ServiceRequest", referral)):
        original = focus.Original(IDS["update"], kind, "A-1", content)
        for topic in codes.system("notice-topic").displays:
            notice = focus.notice(
                TOLD,
                topic=topic,
                text="Riverside Medical Practice has filed it.",
                sent=NOW,
                sender=there,
                receiver=here,
                original=original,
                subject=CORRELATION,
                reason=("rejection-reason", "deceased"),
                advice="Nothing more to do.",
            )
            found[f"notice-{topic}-{kind}"] = notice.body
    for state in codes.system("referral-state").displays:
        moved = focus.task(
            TOLD,
            referral=CORRELATION,
            state=state,
            moved=NOW,
            requester=here,
            owner=there,
            original=focus.Original(IDS["referral"], "ServiceRequest", "A-1", referral),
            reason="Not needed any more.",
            advice="Come back if it gets worse.",
            priority="urgent",
        )
        found[f"move-{state}"] = moved.body
    return found


@cache
def addressed() -> Mapping[str, bytes]:
    """Return each of all those as the message that its consumers send, by consumer and event."""
    return {
        f"{kind}-{role}-{name}": _sent(consumer, kind, role, content)
        for consumer in registry.load().consumers.values()
        for kind in sorted(consumer.types)
        for role in ((Role.ACTING, Role.COPY) if kind == REFERRAL_SUBMITTED else (Role.ACTING,))
        for name, content in {**contents(), **told()}.items()
        if _CARRIES[kind] in f"{profile_of(name)} {name}"
    }


_CARRIES = {
    UPDATE_SUBMITTED: "update-content",
    UPDATE_WITHDRAWN: "notice-message-withdrawn",
    REFERRAL_SUBMITTED: "referral-content",
    REFERRAL_AMENDED: "referral-content",
    REFERRAL_REDIRECTED: "optometry-cataract-referral",  # as a new one, but for its own words
    NOTICE_ISSUED: "notice-content",
}


@cache
def by_bars() -> Mapping[str, bytes]:
    """Return what places that speak BaRS get of all those: each referral as a request, and what
    its sender and its receiver are told of two of them."""
    found = {}
    for name, content in contents().items():
        if profile_of(name) == "referral-content":
            found[f"bars-request-{name}"] = bars_request(content)
            came = found[f"bars-request-{name}"].replace(DELIVERY.encode(), WENT_AS.encode())
            found[f"bars-request-onward-{name}"] = bars_request(came, ELSEWHERE, form="bars")
    for whose in BARS_TOLD:
        for name, content in told().items():
            if name.endswith("-Communication"):  # of an update, of which BaRS knows nothing
                continue
            found[f"bars-response-{name}-{whose}"] = bars_notice(content, contents()[whose])
            if name in BARS_ENDS:
                found[f"bars-cancellation-{name}-{whose}"] = bars_notice(
                    content, contents()[whose], to=HOSPITAL
                )
    return found


BARS_TOLD = ("optometry-cataract-referral", "pharmacy-blood-pressure-check-referral")
BARS_ENDS = ("move-cancelled", "move-declined-by-patient", "move-deceased", "move-expired")
HOSPITAL = Place(
    ods="RXX01",
    system=codes.DOS,
    value="2000099999",
    name="Northfield Hospital",
    service="Eye clinic",
    telephone="0113 496 0401",
)
ELSEWHERE = Place(
    ods="RYY01",
    system=codes.DOS,
    value="2000088888",
    name="Southfield Hospital",
    service="Eye casualty",
)
REFERRER = Place(SENDER.ods, codes.ODS, SENDER.ods, SENDER.name, "", SENDER.telephone)
WENT_AS = "0199a000-0000-7000-8000-000000000005"


def bars_request(content: bytes, to: Place = HOSPITAL, **facts: str) -> bytes:
    """Return a referral as the hospital's clinic gets it, which speaks BaRS."""
    return _by_bars(_asked(content, facts), content, to, Bars(REFERRER, to, _pathway(content)))


def bars_notice(
    content: bytes,
    asked: bytes | None,
    to: Place = REFERRER,
    given_id: str | None = None,
    **facts: str,
) -> bytes:
    """Return a notice about a referral as its sender gets it, or the hospital that it went to."""
    event = replace(_asked(content, {}), type=NOTICE_ISSUED, time=LATER)
    original = None
    if asked is not None:
        at = _asked(asked, facts)
        original = Original(at, asked, Destination(SENDER.ods), HOSPITAL, WENT_AS, given_id)
    sender = HOSPITAL if to == REFERRER else REFERRER
    bars = Bars(sender, to, _pathway(asked or content), original)
    return _by_bars(event, content, to, bars)


def _pathway(content: bytes) -> str:
    return "blood-pressure-check" if b"pharmacy-service" in content else "other-ophthalmology"


def _asked(content: bytes, facts: Mapping[str, str]) -> Recorded:
    about = ("ServiceRequest", "Task", "Communication")
    focus = next(
        entry["fullUrl"]
        for entry in json.loads(content)["entry"]
        if entry["resource"]["resourceType"] in about
    )
    return _event(REFERRAL_SUBMITTED, {"focus": focus, **facts}, IDS["referral"])


def _by_bars(event: Recorded, content: bytes, to: Place, bars: Bars) -> bytes:
    receiver = Party(to.ods, to.name, to.telephone, "RXX01-EYE" if to == HOSPITAL else "")
    sender = Party(bars.sender.ods, bars.sender.name)
    role, kind = (
        (Role.NOTICE, Kind.NOTICE) if event.type == NOTICE_ISSUED else (Role.ACTING, Kind.REFERRAL)
    )
    consumer = next(one for one in registry.load().consumers.values() if event.type in one.types)
    return consumer.compose(event, content, Addressed(DELIVERY, receiver, role, sender, kind, bars))


def profile_of(name: str) -> str:
    """Return the name of the profile that a Bundle of any of these is to follow, by its name."""
    ends = {"-update": "update-content", "-referral": "referral-content"}
    return next((ends[end] for end in ends if name.endswith(end)), "notice-content")


def errors(content: bytes, profile: str | None = None) -> list[Finding]:
    """Return what is wrong with a Bundle of ours: nothing ever should be."""
    return [one for one in ours().check(content, profile) if one.severity == "error"]


def resources() -> Iterator[Mapping[str, Any]]:
    """Return the resources of all that the adapters make."""
    for content in contents().values():
        for entry in json.loads(content)["entry"]:
            yield entry["resource"]


def _sent(consumer: Consumer, kind: str, role: Role, content: bytes) -> bytes:
    about = ("Communication", "ServiceRequest", "Task")
    entries = json.loads(content)["entry"]
    focus = next(
        entry["fullUrl"] for entry in entries if entry["resource"]["resourceType"] in about
    )
    facts = {"focus": focus, "reason": "update", "about": IDS["referral"]}
    event = _event(kind, facts, IDS["update"])
    # A receiver that is not among the organisations of the content, and one service of it.
    receiver = Party("RXX01", "Northfield Hospital", "0113 496 0401", "RXX01-SPA")
    return consumer.compose(
        event, content, Addressed(DELIVERY, receiver, role, SENDER, Kind.UPDATE)
    )


def _event(kind: str, facts: dict[str, str], message_id: str) -> Recorded:
    return Recorded(
        position=7,
        id=TOLD,
        type=kind,
        source="https://broker.example",
        subject=CORRELATION,
        subject_seq=1,
        time=NOW,
        dataschema="",
        message_id=message_id,
        correlation_id=CORRELATION,
        causation_id=None,
        traceparent=None,
        priority=Priority.ROUTINE,
        facts=facts,
        routes=(Route(Destination(PRACTICE.ods), Role.ACTING, "The registered practice."),),
    )


def _translated(adapter: Adapter, example: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    body = strict_json.loads(json.dumps(example).encode())  # which keeps the digits of numbers
    request = adapter.accepts.model_validate(body, context={"now": NOW})
    wanted = adapter.needs(request, NOW)
    context = Context(
        message_ids={want.key: IDS[want.key] for want in wanted.wants},
        sender=SENDER,
        practice=PRACTICE if wanted.practice else None,
        destinations={want.key: ((PRACTICE, Role.ACTING),) for want in wanted.wants},
        correlation_id=CORRELATION,
        now=NOW,
        warnings=wanted.warnings,
    )
    for draft in adapter.translate(request, context):
        yield draft.key, draft.content
