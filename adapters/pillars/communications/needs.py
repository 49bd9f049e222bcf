"""What a clinical message needs before it is translated: to whom, how soon, by when it is answered.

Whom it goes to where it answers or is about something, and whose patient that is, only the broker
knows.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from adapters.pillars import refused
from adapters.pillars.asked import Asked
from adapters.pillars.communications.form import KINDS, QUESTION, Clinical
from adapters.pillars.parts import enclosed
from broker.events import Destination, Kind, Priority, Role, SubjectKind
from broker.ports import Clinical as Clock
from broker.ports import Needs, Seek, Talks, Want
from fhir_profiles import codes, glance
from fhir_profiles.blocks import URGENCIES
from fhir_profiles.pathways.catalogue import catalogue
from fhir_profiles.working_days import end_of_day

MESSAGE: Final = "message"
_ANSWERED: Final = "answered"
_TELEPHONE: Final = "Telephone whoever it is for."


def needs(request: Clinical, now: datetime) -> Needs:
    """Return the one message, and what it belongs to."""
    patient, to = request.patient, request.to
    priority = Priority(URGENCIES[request.urgency])
    return Needs(
        organisation=request.organisation.ods,
        reference=request.reference,
        subject=SubjectKind.THREAD,
        wants=(
            Want(
                key=MESSAGE,
                kind=Kind.UPDATE,
                pathway=request.kind,
                pathway_version=codes.system(KINDS).version,
                priority=priority,
                seeks=(
                    Seek(
                        role=Role.ACTING,
                        receiver_type="",
                        named=Destination(to.ods, to.service or "") if to is not None else None,
                    ),
                ),
                happened=now,
                clocks=tuple(_clocks(request, priority, now)),
            ),
        ),
        consent=request.consent,
        label="R" if patient is not None and patient.sensitive else "N",
        nhs_number=patient.nhs_number if patient is not None else None,
        identity_verified=patient is None or patient.verified,
        practice=request.practice.ods if request.practice is not None else None,
        escalates=priority.is_urgent,
        warnings=tuple(map(refused.problem, patient.warnings())) if patient is not None else (),
        attachments=enclosed(request),
        talks=Talks(
            kind=request.kind,
            about=request.about or "",
            in_reply_to=request.in_reply_to or "",
            is_answer=request.kind not in {QUESTION, "chase"},
            is_chase=request.kind == "chase",
        ),
    )


def _clocks(request: Clinical, priority: Priority, now: datetime) -> Iterator[Clock]:
    if request.kind != QUESTION:
        return
    if request.answer_by is not None:
        yield Clock(_ANSWERED, end_of_day(request.answer_by), f"{_ANSWERED}, as the sender asks")
        return
    due = catalogue().due("", priority.value, "", {_ANSWERED: now})[_ANSWERED]
    yield Clock(_ANSWERED, due.at, f"{_ANSWERED} within {due.span} of being asked")


# -- bodies that are not validated ---------------------------------------------------------------


def danger(raw: Mapping[str, Any]) -> str | None:
    """Say whom to telephone about a body that is refused, if it speaks of something urgent."""
    return _TELEPHONE if glance_at(raw).is_urgent else None


def glance_at(raw: Mapping[str, Any]) -> Asked:
    """Return how soon a body asks to be seen, as far as it can be read of it."""
    own = Priority(glance.urgency(raw.get("urgency")))
    return Asked(own, own, emergency=False, rules=(), advice=())


def sought(raw: Mapping[str, Any]) -> Seek | None:
    """Return whom a body is for, as far as it can be read of it. Never raises."""
    ods = glance.ods(raw.get("to"))
    if ods is None:
        return None
    service = glance.block(raw.get("to")).get("service")
    place = Destination(ods, service if isinstance(service, str) else "")
    return Seek(role=Role.ACTING, receiver_type="", named=place)
