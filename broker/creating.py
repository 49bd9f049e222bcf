"""Creates what a FHIR client posts: a ServiceRequest or Communication with what it refers to.

Checked as everything that comes in, then taken in like any other post: the same ledger, routes,
deadlines and decisions. The sender's identifier of it is its reference: a second one is refused,
or found where the client asks so (`If-None-Exist`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qsl

from broker.access import Caller
from broker.answers import FHIR, Answer
from broker.core import Core
from broker.directory import Directory
from broker.errors import BadRequest, Conflict, Problem, Refused, Stale
from broker.events import Destination, Kind, Priority, Role, SubjectKind, uuid7
from broker.finding import Finding as Found
from broker.intake import Intake, Submission
from broker.ports import Context, Draft, FieldPaths, Needs, Seek, Want
from broker.preparing import Prepared
from broker.reading import own, read_object
from broker.search import Called, Search
from fhir_profiles import bundle, codes, created, stored, strict_json, values
from fhir_profiles.bars import incoming
from fhir_profiles.bars.applications import use_cases
from fhir_profiles.bars.incoming import Message
from fhir_profiles.compiler.finding import Finding
from fhir_profiles.created import Created
from fhir_profiles.profiles import Profiles

DOOR: Final = "fhir"
KEY: Final = "created"
NOTHING: Final = "Nothing was sent."
MADE, KNOWN = 201, 200
_VERSION: Final = "/_history/1"  # of the other ones there is no history
_NOWHERE: Final = "00000000-0000-0000-0000-000000000000"
_STANDING: Final = {
    "ServiceRequest": ("active",),
    "Communication": ("in-progress", "completed"),
}
_TO: Final = {"ServiceRequest": "performer", "Communication": "recipient"}
_KINDS: Final = {"ServiceRequest": Kind.REFERRAL, "Communication": Kind.UPDATE}


@dataclass(frozen=True, slots=True)
class Wished:
    """What a client posts, and how: its key, if it has one, and its If-None-Exist."""

    caller: Caller
    path: str
    body: bytes = field(repr=False)
    key: str | None = None
    condition: str = ""
    traceparent: str | None = None


class Creating:
    """Takes in what is created. Any number may run."""

    def __init__(self, core: Core, intake: Intake, found: Found, profiles: Profiles) -> None:
        self._core = core
        self._intake = intake
        self._found = found
        self._profiles = profiles

    async def create(self, wished: Wished) -> Answer:
        """Take it in, or return what stands there already. Durable on return.

        Raises Refused with nothing stored, every problem at once; Unavailable.
        """
        caller = wished.caller
        key = uuid7() if wished.key is None else wished.key
        async with self._core.answers.claim(
            caller.organisation, key, f"POST {wished.path}", wished.body, family=FHIR
        ) as claimed:
            if claimed.known is not None:
                return claimed.known
            raw = read_object(wished.body)
            made = self._read(wished, raw)
            about = _about(made)
            wanted = self._condition(wished, made, about)
            known = await self._standing(caller, made, wanted)
            if known is not None:
                return known
            submission = Submission(
                caller=caller,
                door=DOOR,
                translator=_Handed(made, about),
                raw=raw,
                read=lambda known, now: (
                    made,
                    _needs(made, about, caller.organisation, known, now),
                ),
                answer=lambda prepared: _answer(made, prepared),
                posted=wished.body,
                traceparent=wished.traceparent,
            )
            try:
                return (await self._intake.take(submission, claimed)).answer
            except Conflict:  # perhaps with one that was taken in after it was looked for
                known = await self._standing(caller, made, wanted)
                if known is None:
                    raise
                return known

    def _read(self, wished: Wished, raw: Mapping[str, Any]) -> Created:
        kind = raw.get("resourceType")
        wanted = wished.path.rpartition("/")[2]
        wanted = wanted if wanted in _KINDS else "Bundle"
        if kind != wanted:
            said = f"This door creates a {wanted}."
            raise BadRequest(NOTHING, [Problem("resourceType", "value", said)])
        findings = self._profiles.check(wished.body, read=raw)
        _refuse([one for one in findings if one.severity == "error"])
        _refuse(list(_unnamed(raw)))
        made = created.read(wished.body, raw)
        if not isinstance(made, Created):
            _refuse(made)
            raise AssertionError  # what _refuse was given, it raised
        return made

    def _condition(self, wished: Wished, made: Created, about: bundle.IndexRow) -> Search | None:
        """Return what the client's condition asks for, if it has one. Raises BadRequest."""
        condition, field_ = wished.condition, "http.If-None-Exist"
        if not condition:
            path = made.paths[made.focus].removesuffix("resource")
            condition, field_ = made.condition, f"{path}request.ifNoneExist"
        if not condition:
            return None
        pairs = parse_qsl(condition, keep_blank_values=True)
        if [name for name, _ in pairs] != ["identifier"]:
            said = "A condition is identifier=system|value, and nothing else."
            raise BadRequest(NOTHING, [Problem(field_, "not-supported", said)])
        try:
            search, _ = self._found.reader.read(made.type, pairs)
        except BadRequest as wrong:
            problems = [replace(one, field=field_) for one in wrong.problems]
            raise BadRequest(NOTHING, problems) from None
        own_ = {self._found.reader.identifier_hmac(*one) for one in about.identifiers}
        if not all(isinstance(t, Called) and set(t.hmacs) <= own_ for t in search.tests):
            said = "It is none of the identifiers of what is to be created."
            raise BadRequest(NOTHING, [Problem(field_, "value", said)])
        return replace(search, count=2)

    async def _standing(
        self, caller: Caller, made: Created, wanted: Search | None
    ) -> Answer | None:
        """Return what the client's condition finds. Raises Stale where it finds more than one."""
        if wanted is None:
            return None
        page = await self._found.page(caller, wanted)
        if len(page.matches) > 1:
            raise Stale(f"{NOTHING} More than one has this identifier.")
        if not page.matches:
            return None
        (match,) = page.matches
        if not made.is_transaction:
            return Answer(KNOWN, match.resource)
        return Answer(KNOWN, _response([(made.type, match.id, "200 OK")]))


def _unnamed(raw: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what is contained without an id, or under another's: it would be sent for the other."""
    names = set[str]()
    for place, one in enumerate(raw.get("contained", ())):
        path, name = f"{raw['resourceType']}.contained[{place}].id", one.get("id")
        if name is None:
            yield Finding("error", "required", path, "", "What is contained has an id.")
        elif name in names:
            yield Finding("error", "duplicate", path, "", "Another that is contained has this id.")
        else:
            names.add(name)


def _refuse(findings: Sequence[Finding]) -> None:
    if findings:
        problems = [Problem(one.path, one.code, one.text) for one in findings]
        raise Refused.all_of(problems, NOTHING)


class _Handed:
    """Hands on what was created, under the ids of its message."""

    def __init__(self, made: Created, about: bundle.IndexRow) -> None:
        focus = made.paths[made.focus]
        self.paths = FieldPaths(named=f"{focus}.{_TO[made.type]}", reference=f"{focus}.identifier")
        self._is_urgent = about.priority in {Priority.STAT, Priority.URGENT}

    def translate(self, request: Created, context: Context) -> Sequence[Draft]:
        message_id = context.message_ids[KEY]
        focus = request.named(message_id)[request.focus]
        return [Draft(KEY, request.content(message_id), focus)]

    def danger(self, raw: Mapping[str, Any]) -> str | None:
        return "It is urgent: do not wait for a second attempt." if self._is_urgent else None


# -- what intake must know -----------------------------------------------------------------------


def _about(made: Created) -> bundle.IndexRow:
    focus = made.named(_NOWHERE)[made.focus]
    rows = bundle.index(strict_json.loads(made.content(_NOWHERE)), _NOWHERE)
    return next(row for row in rows if row.full_url == focus)


def _needs(
    made: Created, about: bundle.IndexRow, organisation: str, directory: Directory, now: datetime
) -> Needs:
    message = incoming.read(strict_json.loads(made.content(_NOWHERE)))
    own(about.requester or organisation, organisation)
    focus = message.resources[about.full_url]
    _refuse(list(_unsendable(made, about, message)))
    place = _place(message, focus, made, directory)
    patient = message.patient
    seeks = [Seek(Role.ACTING, "", named=place)]
    practice = directory.practice(patient.practice)
    if practice is not None and practice.ods not in {organisation, place.ods}:
        seeks.append(Seek(Role.COPY, "general-practice", practice=practice.ods))
    is_referral = made.type == "ServiceRequest"
    warning = Problem("", "identity-not-verified", "The patient's identity is not verified.")
    return Needs(
        organisation=organisation,
        reference="|".join(about.identifiers[0]) if about.identifiers else uuid7(),
        subject=SubjectKind.REFERRAL if is_referral else SubjectKind.THREAD,
        wants=(
            Want(
                key=KEY,
                kind=_KINDS[made.type],
                pathway=_use_case(about),
                pathway_version="",
                priority=Priority(about.priority) if about.priority else Priority.ROUTINE,
                seeks=tuple(seeks),
                happened=_happened(about, now),
            ),
        ),
        consent=True,
        label=message.label,
        nhs_number=patient.nhs_number,
        identity_verified=patient.is_verified,
        practice=patient.practice,
        warnings=() if patient.is_verified else (warning,),
    )


def _unsendable(made: Created, about: bundle.IndexRow, message: Message) -> Iterator[Finding]:
    """Yield why nobody can be sent this, though it is FHIR."""
    path, focus = made.paths[made.focus], message.resources[about.full_url]
    if about.status not in _STANDING[made.type]:
        said = f"Only one that is {' or '.join(_STANDING[made.type])} is sent."
        yield Finding("error", "invariant", f"{path}.status", "", said)
    if focus.get("doNotPerform") is True:
        said = "Nobody is sent a request not to do something: it would be read as one to do it."
        yield Finding("error", "not-supported", f"{path}.doNotPerform", "", said)
    # By another's number it would be found, and by its own it would not.
    subject = incoming.text(incoming.at(focus, "subject", "reference"))
    if [url for url, _ in message.all("Patient")] != [subject]:
        said = (
            "Send the Patient that it is about with it, refer to that, and send no other Patient."
        )
        yield Finding("error", "required", f"{path}.subject", "", said)


def _place(
    message: Message, focus: Mapping[str, Any], made: Created, directory: Directory
) -> Destination:
    """Return whom it is for: the one organisation or service that it names. Raises Refused."""
    element = _TO[made.type]
    path = f"{made.paths[made.focus]}.{element}"
    named = list(incoming.each(focus, element))
    if len(named) != 1:
        _refuse([Finding("error", "required", path, "", "Name one receiver, and no more.")])
    for system, value in _identifiers(message, named[0]):
        place = directory.by_target(system, value)
        if place is not None:
            return place
    said = (
        f"It names nobody of the directory: give an organisation's ODS code ({codes.ODS}), or a "
        f"service's id in the Directory of Services ({codes.DOS}) or, without one there, its own "
        f"({codes.SERVICE_ID})."
    )
    _refuse([Finding("error", "not-found", f"{path}[0]", "", said)])
    raise AssertionError  # what _refuse was given, it raised


def _identifiers(message: Message, reference: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    held = [*incoming.each(message.referred(reference), "identifier"), reference.get("identifier")]
    for one in held:
        if isinstance(one, Mapping):
            yield incoming.text(one.get("system")), incoming.text(one.get("value"))


def _use_case(about: bundle.IndexRow) -> str:
    """Return the use case that its category names, as the directory's pathways are called."""
    found = (one.rpartition("|")[2].lower() for one in about.categories)
    return next((code for code in found if code in use_cases()), "")


def _happened(about: bundle.IndexRow, now: datetime) -> datetime:
    written = values.date_or_time(about.authored)
    is_moment = isinstance(written, datetime) and written.tzinfo is not None
    return written if is_moment else now  # type: ignore[return-value]


# -- what the client is told ---------------------------------------------------------------------


def _answer(made: Created, prepared: Prepared) -> Answer:
    (message,) = prepared.messages
    message_id, at = message.row["id"], message.row["accepted_at"]
    named = made.named(message_id)
    if made.is_transaction:
        rows = {row["id"]: row["type"] for row in message.index}
        ids = [url.rpartition(":")[2] for url in named.values()]
        return Answer(MADE, _response([(rows[one], one, "201 Created") for one in ids]))
    resource_id = named[made.focus].rpartition(":")[2]
    resource = bundle.resource_of(made.content(message_id), message_id, resource_id)
    if resource is None:
        raise LookupError(resource_id)
    return Answer(MADE, stored.as_read(resource, resource_id, 1, at))


def _response(made: Sequence[tuple[str, str, str]]) -> bytes:
    return strict_json.dumps(
        {
            "resourceType": "Bundle",
            "type": "transaction-response",
            "entry": [
                {
                    "response": {
                        "status": status,
                        "location": f"{kind}/{resource_id}{_VERSION if kind in _KINDS else ''}",
                        "etag": 'W/"1"',
                    }
                }
                for kind, resource_id, status in made
            ],
        }
    )
