"""What intake must know of a consultation: its messages, whom they go to, how urgent they are."""

from typing import Final

from adapters.pharmacy.request import Consultation
from adapters.pharmacy.rules import Asked, judge
from broker.events import Kind, Priority, Role, SubjectKind, highest
from broker.ports import Closes, Needs, Seek, Want
from fhir_profiles.pathways.pharmacy import pharmacy

UPDATE: Final = "update"
REFERRAL: Final = "referral"


def needs(request: Consultation) -> Needs:
    """Return the update for the registered practice, the referral if it must act, all warnings."""
    catalogue = pharmacy()
    version = catalogue.versions[request.service]
    judgement = judge(request)
    asked = judgement.asked
    practice = request.practice.ods
    patient = request.patient
    seek = Seek(
        role=Role.ACTING,
        receiver_type="general-practice",
        practice=practice,
        postcode=patient.postcode,
    )
    update = Want(
        key=UPDATE,
        kind=Kind.UPDATE,
        pathway=request.service,
        pathway_version=version,
        priority=_how_soon(asked),
        seeks=(seek,),
        happened=request.clinical_time,
    )
    wants = [update]
    if asked.task is not None:
        wants.append(
            Want(
                key=REFERRAL,
                kind=Kind.REFERRAL,
                pathway=request.service,
                pathway_version=f"{version}+{catalogue.shared.version}",
                priority=asked.task,
                seeks=(seek,),
                happened=request.clinical_time,
                required=False,
                # Routing adds what the directory knows: its name and its number.
                if_left_out="No task was sent. Telephone the registered practice and ask them to "
                f"act: {asked.task.words}.",
                reason_code=asked.rules[0].id if asked.rules else "",
            )
        )
    return Needs(
        organisation=request.pharmacy.ods,
        reference=request.reference,
        subject=SubjectKind.CONSULTATION,
        wants=tuple(wants),
        consent=request.consent_to_inform_gp,
        label="R" if patient.sensitive else "N",
        nhs_number=patient.nhs_number,
        identity_verified=patient.verified,
        practice=practice,
        escalates=bool(asked.task or asked.emergency or request.red_flags),
        warnings=judgement.warnings,
        advice=asked.advice,
        closes=_closes(request),
    )


def _closes(request: Consultation) -> Closes | None:
    """Return the referral that this consultation is the end of, with what its sender is told."""
    if request.source is None or request.source.referral is None:
        return None
    outcome = pharmacy().outcomes[request.outcome].words
    said = f"{outcome}. The consultation was sent to the patient's registered practice."
    return Closes("source.referral", str(request.source.referral), outcome=said)


def _how_soon(asked: Asked) -> Priority:
    """Return the update's urgency: the sender's own, where no task carries that.

    A patient in A&E is nobody's task at the practice, but its record must not lag behind.
    """
    if not asked.emergency:
        return Priority.ROUTINE
    alone = asked.own if asked.task is None else None
    return highest(Priority.URGENT, alone or Priority.URGENT)
