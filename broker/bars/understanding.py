"""From a BaRS message to what intake must know of it: a receiver's checks, in their order.

Pure. The order of checks is BaRS Core 1.5.0's (message headers); the first that fails is told, with
all that fails in it. What of the message is not FHIR as its profiles say is told last, all at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from broker import routing
from broker.directory import Directory
from broker.errors import BadRequest, NotOffered, NotYours, Problem, UnknownTarget
from broker.events import Destination, Kind, Priority, Role, SubjectKind
from broker.ports import Clinical, Context, Draft, Endpoint, FieldPaths, Needs, Seek, Want
from fhir_profiles import codes
from fhir_profiles.bars import applications
from fhir_profiles.bars import incoming as bars
from fhir_profiles.bars.applications import UseCase
from fhir_profiles.bars.definitions import counts
from fhir_profiles.bars.incoming import (
    Message,
    Target,
    at,
    code_in,
    each,
    header_path,
    moment,
    text,
)
from fhir_profiles.bars.meaning import CATEGORY, OFFERED, Meaning, meaning
from fhir_profiles.compiler.finding import Finding

KEY: Final = "referral"
NOTHING: Final = "Nothing was sent."
DESTINATION: Final = header_path("destination[0].endpoint")
_SYSTEMS: Final = tuple({one.system for one in applications.use_cases().values()})
_ACTS: Final = f"{codes.HL7}v3-ActCode"
_PRIORITIES: Final = f"{bars.NHS}CodeSystem/bars-broker-priority-status"
# A two week wait must never stand behind what is merely urgent.
_BY_CODE: Final = {"2WW": Priority.URGENT, "U": Priority.URGENT, "R": Priority.ROUTINE}
_DAY, _WEEK = 1, 7


@dataclass(frozen=True, slots=True)
class Understood:
    """A message with what it means and, unless it is for the broker itself, whom it is for."""

    message: Message
    meaning: Meaning
    use_case: UseCase | None
    place: Destination | None


@dataclass(frozen=True, slots=True)
class Receiving:
    """Where a message arrives: whom its header names, who calls, and what is known here.

    `broker` is what the broker itself is called, if it has a name of its own (Application 8).
    """

    target: Target
    organisation: str
    directory: Directory
    broker: Target | None


def understand(message: Message, at_door: Receiving, findings: Sequence[Finding]) -> Understood:
    """Check a message as its receiver must; `findings` is what is wrong with it as FHIR.

    Raises BadRequest, NotYours, NotOffered, UnknownTarget.
    """
    _refuse(bars.unreadable(message))
    place = _place(at_door)
    _refuse(_destination(message, at_door, place))
    _refuse(_source(message))
    _own(message, at_door.organisation)
    _refuse(_event(message))
    use_case = _use_case(message)
    _refuse(_counts(message))
    _refuse(_focus(message))
    means = meaning(message)
    if isinstance(means, Finding):
        _refuse([means])
        raise AssertionError  # what _refuse was given, it raised
    if use_case is not None and use_case.is_to_broker != (place is None):
        raise NotOffered(f"{NOTHING} {use_case.code} is not for the service that it was sent to.")
    if use_case is not None and use_case.is_to_broker:
        if means is not Meaning.REFERRAL:
            raise NotOffered(f"{NOTHING} Application 8 has no cancellation: telephone the service.")
        _refuse(_identified(message))
    if means is Meaning.REFERRAL:
        _refuse(_consented(message))
    _refuse([one for one in findings if one.severity == "error"])
    return Understood(message, means, use_case, place)


def _refuse(findings: Sequence[Finding]) -> None:
    if findings:
        count = len(findings)
        counted = f"{count} problem{'s' if count != 1 else ''} found."
        problems = [Problem(one.path, one.code, one.text) for one in findings]
        raise BadRequest(f"{NOTHING} {counted}", problems)


def _wrong(code: str, path: str, said: str) -> Finding:
    return Finding("error", code, path, "", said)


# -- the checks, in their order ------------------------------------------------------------------


def _place(at_door: Receiving) -> Destination | None:
    if at_door.broker is not None and at_door.target.is_same(at_door.broker):
        return None
    place = at_door.directory.by_target(at_door.target.system, at_door.target.value)
    if place is None:
        raise UnknownTarget(
            f"{NOTHING} No service of this directory has the id that NHSD-Target-Identifier names."
        )
    return place


def _destination(message: Message, at_door: Receiving, place: Destination | None) -> list[Finding]:
    found = []
    if place is not None and message.receiver != place.ods:
        path = header_path("destination[0].receiver")
        found.append(
            _wrong(
                "invariant",
                path,
                f"The receiver is not {place.ods}, whose service NHSD-Target-Identifier names.",
            )
        )
    named = message.destination
    if named is None:
        found.append(_wrong("value", DESTINATION, "It is not system|value of the service."))
    elif not named.is_same(at_door.target):
        found.append(
            _wrong("invariant", DESTINATION, "It is not what NHSD-Target-Identifier names.")
        )
    return found


def _source(message: Message) -> list[Finding]:
    if message.source is None:
        path = header_path("source.endpoint")
        return [_wrong("value", path, "It is not system|value of the sender, to be answered at.")]
    return []


def _own(message: Message, organisation: str) -> None:
    if message.sender != organisation:
        raise NotYours(
            f"{NOTHING} The sender of the message is not {organisation}, for which the token is.",
            [Problem(header_path("sender"), "forbidden", "It is not who the token is for.")],
        )


def _event(message: Message) -> list[Finding]:
    if message.event == "booking-response":
        return [_wrong("invariant", header_path("eventCoding"), "BaRS has no booking-response.")]
    if message.event == "booking-request":
        raise NotOffered(f"{NOTHING} Bookings are not offered here.")
    if message.event not in OFFERED:
        said = "It is no code of message-events-bars."
        return [_wrong("value", header_path("eventCoding"), said)]
    if message.event == bars.RESPONSE and not message.response_to:
        return [_wrong("invariant", header_path("response"), "A response names what it answers.")]
    return []


def _use_case(message: Message) -> UseCase | None:
    """Return the use case of a request; what a response is about is known already."""
    if not message.version:
        said = "It is the version of the application that the payload follows."
        _refuse([_wrong("invariant", "Bundle.meta.versionId", said)])
    if message.event == bars.RESPONSE:
        return None
    if message.category and message.category != CATEGORY:
        raise NotOffered(f"{NOTHING} Messages of this category are not taken here.")
    code = message.use_case(*_SYSTEMS)
    use_case = applications.use_cases().get(code)
    categories = list(each(message.request[1], "category"))
    if not message.category or not code or len(categories) > 1:
        path = f"{bars.path_of(message, message.request[0])}.category"
        said = "A referral has one category with two codings: what it is, and its use case."
        _refuse([_wrong("invariant", path, said)])
    if use_case is None:
        raise NotOffered(f"{NOTHING} This use case is not taken here.")
    if not use_case.takes_version(message.version):
        versions = ", ".join(f"{one}.x" for one in sorted(use_case.versions))
        raise NotOffered(
            f"{NOTHING} Version {versions} of {use_case.application} is understood.",
            [Problem("Bundle.meta.versionId", "not-supported", "Not this version.")],
        )
    return use_case


def _counts(message: Message) -> list[Finding]:
    """Check the message against the definition that it names: how many of each resource it has.

    One of the published cancellations, with reason `delete`, names none (trap 1).
    """
    path = header_path("definition")
    if not message.definition:
        if message.reason == "delete":
            return []
        return [_wrong("required", path, "A message names its MessageDefinition.")]
    try:
        return [
            _wrong("invariant", path, one) for one in counts(message.definition, message.bundle)
        ]
    except LookupError:
        return [_wrong("invariant", path, "There is no such MessageDefinition.")]


def _focus(message: Message) -> list[Finding]:
    kinds = {"ServiceRequest"} if message.event == bars.REQUEST else {"ServiceRequest", "Encounter"}
    focus = message.resources.get(message.focus, {})
    if focus.get("resourceType") not in kinds or not message.request[0]:
        said = f"It is no {' or '.join(sorted(kinds))} of this Bundle."
        return [_wrong("invariant", header_path("focus[0]"), said)]
    return []


def _identified(message: Message) -> list[Finding]:
    """Application 8: who goes to a broker has a verified NHS number and an address."""
    url, patient = next(message.all("Patient"), ("", {}))
    path, found = bars.path_of(message, url), []
    if not message.patient.is_verified:
        said = "A referral to a broker needs an NHS number that is present and verified."
        found.append(_wrong("required", f"{path}.identifier", said))
    if not next(each(patient, "address"), None):
        said = "A referral to a broker needs the patient's address."
        found.append(_wrong("required", f"{path}.address", said))
    return found


def _consented(message: Message) -> list[Finding]:
    """A referral says that the patient's consent is there, and implied; one that says otherwise is
    never taken for it."""
    found = []
    for url, consent in message.all("Consent"):
        is_implied = code_in(consent.get("policyRule"), _ACTS) == "IMPLIED"
        if text(consent.get("status")) != "active" or not is_implied:
            path = bars.path_of(message, url)
            found.append(
                _wrong("invariant", path, "A referral has a Consent that is active and implied.")
            )
    return found


# -- what intake must know -----------------------------------------------------------------------


class Carried:
    """Hands a message on as it came: its Bundle is the content of its event."""

    paths: Final = FieldPaths(named=DESTINATION, reference="Bundle.id")

    def translate(self, request: tuple[bytes, Message], context: Context) -> Sequence[Draft]:
        body, message = request
        return [Draft(KEY, body, message.request[0], checked=message.bundle)]

    def danger(self, raw: Mapping[str, Any]) -> str | None:
        return None


def needs(understood: Understood, organisation: str, directory: Directory, now: datetime) -> Needs:
    """Return what a new referral needs; the use case is its pathway."""
    message, use_case = understood.message, understood.use_case
    if use_case is None:
        raise ValueError("only a request has needs")
    patient = message.patient
    place = understood.place or _shortlisted(message, use_case.code, directory, now)
    seeks = [Seek(Role.ACTING, "", named=place)]
    practice = directory.practice(patient.practice)
    if practice is not None and practice.ods not in {organisation, place.ods}:
        seeks.append(Seek(Role.COPY, "general-practice", practice=practice.ods))
    due = window(message)
    return Needs(
        organisation=organisation,
        reference=message.id,
        subject=SubjectKind.REFERRAL,
        wants=(
            Want(
                key=KEY,
                kind=Kind.REFERRAL,
                pathway=use_case.code,
                pathway_version=message.version,
                priority=_priority(message, due, now),
                seeks=tuple(seeks),
                happened=_authored(message) or now,
                clocks=(Clinical("seen", due, _CLOCK),) if due is not None else (),
            ),
        ),
        consent=True,
        label=message.label,
        nhs_number=patient.nhs_number,
        identity_verified=patient.is_verified,
        practice=patient.practice,
        warnings=tuple(_warnings(use_case, patient)),
    )


_CLOCK: Final = "BaRS: the shortest of ServiceRequest.occurrencePeriod and Task.restriction.period"


def window(message: Message) -> datetime | None:
    """Return by when the patient is to be seen: the earliest end that the message states."""
    ends = [at(message.request[1], "occurrencePeriod", "end")]
    ends += [at(task, "restriction", "period", "end") for _, task in message.all("Task")]
    return min(filter(None, map(moment, ends)), default=None)


def _priority(message: Message, due: datetime | None, now: datetime) -> Priority:
    """Return how soon: as the message says it, else by its window; never less than it says."""
    for _, plan in message.all("CarePlan"):
        for activity in each(plan, "activity"):
            for concept in each(activity, "outcomeCodeableConcept"):
                code = code_in(concept, _PRIORITIES)
                if code in _BY_CODE:
                    return _BY_CODE[code]
    if due is None:
        return Priority.ROUTINE
    left = due - min(_authored(message) or now, now)
    if left.days < _DAY or (left.days == _DAY and not left.seconds):
        return Priority.URGENT
    return Priority.ASAP if left.days < _WEEK else Priority.ROUTINE


def _shortlisted(
    message: Message, use_case: str, directory: Directory, now: datetime
) -> Destination:
    """Return the first service of the shortlist that takes this now. Raises NotOffered.

    Application 8: 1 to 20 services, as performers of the CarePlan's activities, by preference.
    """
    named = [
        Target(text(one.get("system")), text(one.get("value")))
        for _, plan in message.all("CarePlan")
        for activity in each(plan, "activity")
        for performer in each(at(activity, "detail"), "performer")
        for one in each(message.referred(performer), "identifier")
    ]
    for target in named:
        place = directory.by_target(target.system, target.value)
        if place is not None and isinstance(
            routing.takes_new(place, use_case, directory, now), Endpoint
        ):
            return place
    raise NotOffered(
        f"{NOTHING} No service of the shortlist is connected here and takes {use_case}.",
        [
            Problem(
                "Bundle.entry.resource.ofType(CarePlan).activity.detail.performer",
                "not-supported",
                f"{len(named)} services are named.",
            )
        ],
    )


def _warnings(use_case: UseCase, patient: bars.Patient) -> Iterator[Problem]:
    if use_case.is_withdrawn:
        said = f"{use_case.code} has been withdrawn from BaRS; it was taken all the same."
        yield Problem("", "use-case-withdrawn", said)
    if not patient.is_verified:
        yield Problem("", "identity-not-verified", "The patient's identity is not verified.")


def _authored(message: Message) -> datetime | None:
    return moment(message.request[1].get("authoredOn"))
