"""What an outcome needs before it is translated: who gets it, what is asked, what it closes."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from adapters.pillars import asked, refused, tasks
from adapters.pillars.asked import Asked
from adapters.pillars.outcomes import actions, medicines
from adapters.pillars.outcomes.actions import Action, today_of
from adapters.pillars.outcomes.form import CARERS, KINDS, Outcome
from adapters.pillars.outcomes.letter import Letter
from adapters.pillars.parts import enclosed
from adapters.pillars.tasks import Task
from broker.events import Destination, Kind, Priority, Role, SubjectKind
from broker.ports import Closes, Needs, Seek, Want, Withheld
from fhir_profiles import codes, glance
from fhir_profiles.blocks import Organisation
from fhir_profiles.pathways.catalogue import OUTCOMES, PRACTICE, catalogue

OUTCOME: Final = "outcome"
MEASURED: Final = "measured"
_STAYS_OPEN: Final = (
    "The referral stays as it is: tell who sent it how it ended, with the patient's agreement to "
    "that, or POST /referrals/{id}/complete."
)
_CALL: Final = (
    "A message alone is not enough for what {whom} is asked to do today: telephone them too."
)


def needs(request: Outcome, now: datetime) -> Needs:
    """Return the outcome for all who get it, a task for each thing that the practice is asked, and
    what a pharmacy is asked about the medicines."""
    patient, keeper = request.patient, request.keeper
    found = asked.asked(request)
    wanted = (*_wants(request, found, now), *medicines.wants(request, now))
    return Needs(
        organisation=request.organisation.ods,
        reference=request.reference,
        subject=SubjectKind.DOCUMENT if isinstance(request, Letter) else SubjectKind.CONSULTATION,
        wants=wanted,
        consent=request.consent,
        label="R" if patient.sensitive else "N",
        nhs_number=patient.nhs_number,
        identity_verified=patient.verified,
        practice=keeper.ods if keeper is not None else None,
        escalates=found.is_urgent or any(one.priority.is_urgent for one in wanted),
        warnings=tuple(map(refused.problem, patient.warnings())),
        advice=tuple(_advice(request, found, now)),
        closes=_closes(request),
        attachments=enclosed(request),
    )


def tasks_of(
    request: Outcome, found: Asked, how_soon: Callable[[Action], Priority]
) -> Iterator[Task]:
    """Yield what the practice is asked to do: each action, and what was measured."""
    for action in request.actions:
        if action.whom == "practice":
            yield action.task(request.seen_at, how_soon(action))
    if found.task is not None and request.keeper is not None:
        by = tasks.day(request.seen_at, found.task)
        yield Task(MEASURED, found.task, by, rules=found.rules)


def _wants(request: Outcome, found: Asked, now: datetime) -> Iterator[Want]:
    kind, version = request.told, codes.system(KINDS).version
    entry = catalogue().entries[request.pathway] if request.pathway is not None else None
    today = today_of(now)
    yield Want(
        key=OUTCOME,
        kind=Kind.UPDATE,
        pathway=entry.id if entry is not None else kind,
        pathway_version=entry.version if entry is not None else version,
        priority=_how_soon(request, found, now),
        seeks=tuple(_seeks(request)),
        happened=request.seen_at,
    )
    for task in tasks_of(request, found, lambda action: action.priority(today)):
        # Not on the pathway: its clocks are for who treats the patient, and so are its receivers.
        yield tasks.want(task, kind, version, _practice(request), request.seen_at)


def _how_soon(request: Outcome, found: Asked, now: datetime) -> Priority:
    """What others than the practice are asked to do stands in the message alone: it must not lie
    among the routine ones."""
    others = (one for one in request.actions if one.whom != "practice")
    urgent = any(one.priority(today_of(now)).is_urgent for one in others)
    # Nor may the record lag behind a patient in A&E, or what was measured where no task can go.
    measured = found.is_urgent and (found.emergency or request.keeper is None)
    return Priority.URGENT if urgent or measured else Priority.ROUTINE


def _seeks(request: Outcome) -> Iterator[Seek]:
    """Yield who gets it, first who must act on it: the practice, else who referred."""
    readers, role = request.readers, Role.ACTING
    if request.keeper is not None and "practice" in readers:
        yield _practice(request)
        role = Role.COPY
    if "referrer" in readers and request.referral is not None:
        yield Seek(role=role, receiver_type="", is_referrer=True)
    elif "referrer" in readers and request.referrer is not None:
        yield _named(request.referrer, role)
    for field, pillar in CARERS:
        carer: Organisation | None = getattr(request, field)
        if carer is not None and field in readers:
            yield _named(carer, Role.COPY, pillar)


def _practice(request: Outcome) -> Seek:
    return Seek(
        role=Role.ACTING,
        receiver_type=PRACTICE,
        practice=request.keeper.ods if request.keeper is not None else None,
        postcode=request.patient.postcode,
    )


def _named(organisation: Organisation, role: Role, pillar: str = "") -> Seek:
    return Seek(role=role, receiver_type="", named=Destination(organisation.ods), pillar=pillar)


def _closes(request: Outcome) -> Closes | None:
    named = request.referral
    if named is None:
        return None
    said = "This was told to you and to the patient's practice in full."
    if request.outcome is not None:
        said = f"{codes.system(OUTCOMES).display(request.outcome)}. {said}"
    return Closes(
        field="referral",
        referral=str(named.id) if named.id is not None else "",
        sender=named.sender or "",
        reference=named.reference or "",
        pathway=request.pathway or "",
        ends=request.ends,
        hands_back=request.hands_back,
        outcome=said,
        diagnosis=request.diagnosis,
        tells_all=True,
        refuses_late=request.ends,
    )


def _advice(request: Outcome, found: Asked, now: datetime) -> Iterator[str]:
    yield from found.advice
    for action in request.actions:
        if action.whom != "practice" and action.priority(today_of(now)) is Priority.STAT:
            whom = "who referred" if action.whom == "referrer" else action.who
            yield _CALL.format(whom=whom)
    if request.referral is not None and not request.ends:
        yield "The referral goes on, in progress with you. It ends with an outcome that ends it."
    yield from medicines.advice(request)


# -- bodies that are not validated ---------------------------------------------------------------


def withheld(raw: Mapping[str, Any], form: type[Outcome]) -> Withheld | None:
    """Read the few fields that are still looked at where the patient refused; else None."""
    open_ = (_STAYS_OPEN,) if raw.get("referral") else ()
    return refused.withheld(raw, form, _glance(raw), *open_)


def danger(raw: Mapping[str, Any]) -> str | None:
    """Say whom to telephone about a body that is refused, if it speaks of something urgent."""
    return refused.danger(_glance(raw))


def sought(raw: Mapping[str, Any], form: type[Outcome]) -> Seek | None:
    """Return who would act on a body, as far as it can be read of it: the practice or, where that
    tells it itself, who referred. Never raises."""
    practice, own = glance.ods(raw.get("practice")), glance.ods(raw.get(form.sender_field))
    if practice is not None and practice != own:
        return refused.sought(raw)
    referrer = glance.ods(raw.get("referrer"))
    if referrer is None:
        return None
    return Seek(role=Role.ACTING, receiver_type="", named=Destination(referrer))


def _glance(raw: Mapping[str, Any]) -> Asked:
    return asked.read(raw, actions.glanced(raw))
