"""What every adapter and every consumer that is plugged in promises: one suite over all of them."""

import copy
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import registry
from broker.directory import Directory
from broker.errors import Problem
from broker.events import Destination, Priority, Recorded, Role, Route, uuid7
from broker.ports import Adapter, Addressed, Consumer, Context, Kind, Party
from broker.reading import understand
from broker.routing import whom_to_telephone
from fhir_profiles import bundle, codes, make, resources, strict_json
from tests.made import errors

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
PLUGGED = registry.load()
EXAMPLES = [
    pytest.param(adapter, name, id=f"{adapter.name}-{name}")
    for adapter in PLUGGED.adapters.values()
    for name in adapter.examples
]
IDS = [f"01a20000-0000-7000-8000-00000000000{number}" for number in range(1, 9)]


def read(adapter: Adapter, name: str) -> tuple[Any, Any]:
    raw = strict_json.loads(json.dumps(adapter.examples[name]).encode())
    request = adapter.accepts.model_validate(raw, context={"now": NOW})
    return request, adapter.needs(request, NOW)


def context(needs: Any, warnings: tuple[Problem, ...] = ()) -> Context:
    receiver = Party("RXX01", "Northfield Hospital", "0113 496 0401", "RXX01-SPA")
    return Context(
        message_ids=dict(zip((want.key for want in needs.wants), IDS, strict=False)),
        sender=Party(needs.organisation, "Sender", "0113 496 0101"),
        practice=Party(needs.practice, "Practice", "0113 496 0201") if needs.practice else None,
        destinations={want.key: ((receiver, Role.ACTING),) for want in needs.wants},
        correlation_id=IDS[7],
        now=NOW,
        warnings=(*needs.warnings, *warnings),
    )


@pytest.mark.parametrize(("adapter", "name"), EXAMPLES)
def test_the_same_request_becomes_the_same_bytes(adapter: Adapter, name: str) -> None:
    request, needs = read(adapter, name)
    once = adapter.translate(request, context(needs))
    again = adapter.translate(copy.deepcopy(request), context(needs))
    assert [draft.content for draft in once] == [draft.content for draft in again]
    assert {draft.key for draft in once} == {want.key for want in needs.wants}


@pytest.mark.parametrize(("adapter", "name"), EXAMPLES)
def test_what_an_example_becomes_is_sound_fhir_about_its_focus(adapter: Adapter, name: str) -> None:
    request, needs = read(adapter, name)
    kinds = {want.key: want.kind for want in needs.wants}
    for draft in adapter.translate(request, context(needs)):
        assert errors(draft.content, f"{kinds[draft.key]}-content") == []
        urls = [entry.full_url for entry in bundle.entries(draft.content)]
        assert draft.focus in urls
        assert len(set(urls)) == len(urls)


@pytest.mark.parametrize(("adapter", "name"), EXAMPLES)
def test_an_example_becomes_what_the_models_own_constructors_make_of_it(
    adapter: Adapter, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, needs = read(adapter, name)
    trusted = adapter.translate(request, context(needs))
    models = {
        maker: made.__wrapped__
        for maker, made in vars(make).items()
        if maker[0].isupper()
        if hasattr(made, "__wrapped__")
    }
    assert len(models) > 30
    for maker, model in models.items():
        monkeypatch.setattr(make, maker, model)
    for built_once in (resources.coding, resources.concept, resources.meta, resources.reference):
        built_once.cache_clear()
    checked = adapter.translate(request, context(needs))
    assert [draft.content for draft in trusted] == [draft.content for draft in checked]


@pytest.mark.parametrize(("adapter", "name"), EXAMPLES)
def test_every_resource_belongs_to_its_own_message(adapter: Adapter, name: str) -> None:
    request, needs = read(adapter, name)
    seen: set[str] = set()
    for draft in adapter.translate(request, context(needs)):
        ids = {row.resource_id for row in bundle.index(strict_json.loads(draft.content))}
        assert not ids & seen
        seen |= ids


@pytest.mark.parametrize(("adapter", "name"), EXAMPLES)
def test_every_warning_has_words(adapter: Adapter, name: str) -> None:
    _, needs = read(adapter, name)
    for warning in needs.warnings:
        assert warning.code in codes.system("warning")
        assert warning.detail.endswith(".")


@pytest.mark.parametrize("adapter", PLUGGED.adapters.values(), ids=lambda one: one.name)
@given(
    raw=st.dictionaries(
        st.text(max_size=12) | st.sampled_from(["patient", "practice", "consent", "urgency"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
            ),
            max_leaves=6,
        ),
        max_size=8,
    )
)
def test_danger_consent_and_receiver_are_read_of_any_body(
    adapter: Adapter, raw: dict[str, Any]
) -> None:
    said = adapter.danger(raw)
    assert said is None or said.startswith("Telephone ")
    assert adapter.withheld(raw) is None or raw
    whom_to_telephone(adapter.sought(raw), Directory(), NOW)


@pytest.mark.parametrize(("adapter", "name"), EXAMPLES)
def test_whom_a_body_is_for_is_read_alike_whether_it_is_taken_or_refused(
    adapter: Adapter, name: str
) -> None:
    _, needs = read(adapter, name)
    # What else a body asks for, of a pharmacy say, is not for whom it is.
    acting = {seek for seek in needs.wants[0].seeks if seek.role is Role.ACTING}
    sought = adapter.sought(strict_json.loads(json.dumps(adapter.examples[name]).encode()))
    assert sought is not None
    assert {replace(seek, postcode=sought.postcode) for seek in acting} == {sought}


@pytest.mark.parametrize(("adapter", "name"), EXAMPLES)
def test_the_organisation_of_the_body_is_the_one_that_is_asked_for(
    adapter: Adapter, name: str
) -> None:
    raw = strict_json.loads(json.dumps(adapter.examples[name]).encode())
    _, needs = read(adapter, name)
    request, again = understand(adapter, raw, needs.organisation, Directory(), NOW)
    assert again.reference == raw["reference"]
    assert request is not None


# -- consumers -----------------------------------------------------------------------------------


def an_event(consumer: Consumer, kind: str, focus: str) -> Recorded:
    return Recorded(
        position=7,
        id=uuid7(),
        type=kind,
        source="urn:test",
        subject=uuid7(),
        subject_seq=1,
        time=NOW,
        dataschema="",
        message_id=IDS[0],
        correlation_id=IDS[7],
        causation_id=None,
        traceparent=None,
        priority=Priority.ROUTINE,
        facts={"focus": focus, "reason": "new"},
        routes=(Route(Destination("G99001"), Role.ACTING, "The registered practice."),),
    )


def an_address(role: Role) -> Addressed:
    return Addressed(
        delivery=IDS[3],
        receiver=Party("G99001", "Riverside Medical Practice"),
        role=role,
        sender=Party("FPH01", "Riverside Pharmacy"),
        kind=Kind.UPDATE,
    )


CONSUMED = [
    pytest.param(consumer, kind, id=f"{consumer.name}-{kind}")
    for consumer in PLUGGED.consumers.values()
    for kind in sorted(consumer.types)
]


@pytest.mark.parametrize(("consumer", "kind"), CONSUMED)
@pytest.mark.parametrize("role", list(Role))
def test_what_is_sent_carries_the_content_byte_for_byte(
    consumer: Consumer, kind: str, role: Role
) -> None:
    adapter = PLUGGED.adapters["pharmacy"]
    request, needs = read(adapter, "shingles")
    draft = adapter.translate(request, context(needs))[0]
    event = an_event(consumer, kind, draft.focus)
    sent = consumer.compose(event, draft.content, an_address(role))
    assert sent == consumer.compose(event, draft.content, an_address(role))
    assert errors(sent, "message") == []
    carried = {entry.full_url: entry.resource for entry in bundle.entries(sent)}
    for entry in bundle.entries(draft.content):
        assert carried[entry.full_url] == entry.resource
    header = strict_json.loads(bundle.entries(sent)[0].resource)
    assert header["resourceType"] == "MessageHeader"
    assert header["focus"] == [{"reference": draft.focus}]
    assert header["eventCoding"]["code"] in codes.system("message-event")


@pytest.mark.parametrize(("consumer", "kind"), CONSUMED)
def test_an_event_goes_where_it_was_routed_and_nowhere_else(consumer: Consumer, kind: str) -> None:
    event = an_event(consumer, kind, "urn:uuid:x")
    assert tuple(consumer.destinations(event)) == event.routes
