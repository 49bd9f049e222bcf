"""What every message of a pillar brings along: its patient, its parties, its flags.

Entries are added in the order in which a reader wants them: first what the message is about.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from fhir.resources.R4B.annotation import Annotation
from fhir.resources.R4B.codeableconcept import CodeableConcept
from fhir.resources.R4B.identifier import Identifier
from fhir.resources.R4B.organization import Organization

from adapters.pillars.who import Who
from broker.events import Role
from broker.ports import Context, Draft, Party
from fhir_profiles import blocks, clinical, focus, resources
from fhir_profiles.bundle import Entries
from fhir_profiles.resources import When

# What everybody who reads of the patient must see.
_FLAGGED: Final = frozenset({"identity-not-verified", "not-seen-by-a-clinician"})


class Message:
    """One message on its way: `key` is that of what intake was asked for."""

    def __init__(
        self, who: Who, patient: blocks.Patient, happened: When, context: Context, key: str
    ) -> None:
        self._who, self._person = who, patient
        self.happened, self.context, self.key = happened, context, key
        self._told: Sequence[tuple[Party, Role]] = context.destinations[key]
        self._id = context.message_ids[key]
        self.entries = Entries(self._id)
        self.patient = self.entries.url("patient")
        # What no clinician says, the patient says.
        self.says = self.entries.url("practitioner") if who.speaker else self.patient

    @property
    def label(self) -> str | None:
        """The confidentiality label R, where the patient's record is marked."""
        return "R" if self._person.sensitive else None

    @property
    def role(self) -> str:
        """Who asks or tells: the clinician at the organisation, else the organisation alone."""
        if self._who.speaker is None:
            return self.organization(self.context.sender.ods)
        return self.entries.url("practitioner-role")

    @property
    def receivers(self) -> list[str]:
        """Who must act."""
        return [self.organization(one.ods) for one, role in self._told if role is Role.ACTING]

    @property
    def everybody(self) -> list[str]:
        """Who gets it, first who must act."""
        return [self.organization(one.ods) for one, _ in self._told]

    def identifiers(self, reference: str) -> list[Identifier]:
        """Return how both sides know the message."""
        own, sender = self._id, self.context.sender.ods
        return focus.message_identifiers(own, sender, reference)

    def draft(self, about: str) -> Draft:
        """Return what was made, with the attachments that the form names. `about` is the fullUrl of
        the resource that the message is about."""
        named = tuple(one.id for one in self._who.attachments)
        return Draft(self.key, self.entries.body(), about, attachments=named)

    def organization(self, ods: str) -> str:
        """Return the fullUrl of an organisation of the message."""
        return self.entries.url(f"organization {ods}")

    def add_parties(self) -> None:
        """Add the patient, who speaks for it, every organisation, and the clinician."""
        practice = self.context.practice
        self.entries.add(
            "patient",
            resources.patient(self._person, self.organization(practice.ods) if practice else None),
        )
        if self._person.guardian is not None:
            guardian = resources.related_person(self._person.guardian, self.patient)
            self.entries.add("guardian", guardian)
        for ods, organization in self._organizations().items():
            self.entries.add(f"organization {ods}", organization)
        clinician = self._who.speaker
        if clinician is not None:
            system, number = clinician.registration
            self.entries.add("practitioner", resources.practitioner(clinician.name, system, number))
            ods = self.organization(self.context.sender.ods)
            self.entries.add(
                "practitioner-role", resources.practitioner_role(self.says, ods, clinician.job)
            )

    def add_flags(self, *first: CodeableConcept) -> None:
        """Add what is to be known before anything else; `first` are those of the case itself."""
        named = [(code, "clinical") for code in first]
        for at, (code, category) in enumerate([*named, *self._flags()]):
            flag = clinical.flag(code, self.patient, self.says, self.happened, category)
            self.entries.add(f"flag {at}", flag)

    def notes(self, *said: str | None) -> Iterator[Annotation]:
        """Yield what was said beside, and every warning."""
        for words in said:
            if words is not None:
                yield resources.note(words)
        for warning in self.context.warnings:
            yield resources.note(warning.detail, warning.code)

    def _flags(self) -> Iterator[tuple[CodeableConcept, str]]:
        for warning in self.context.warnings:
            if warning.code in _FLAGGED:
                yield resources.defined("warning", warning.code), "admin"
        yield from clinical.flags_of(self._person)

    def _organizations(self) -> dict[str, Organization]:
        """Every organisation once, by ODS code; the directory's words go before the sender's."""
        context, who = self.context, self._who
        made = _organization(context.sender, who.organisation)
        if who.service is not None:
            made = made.model_copy(update={"type": [who.service]})
        found = {context.sender.ods: made}
        if context.practice is not None:
            practice = context.practice
            found.setdefault(practice.ods, _organization(practice, who.practice))
        for party, _ in self._told:
            if party.ods not in found:
                found[party.ods] = _organization(party)
        return found


def _organization(party: Party, said: blocks.Organisation | None = None) -> Organization:
    name = party.name or (said.name if said else None)
    return resources.organization(
        party.ods, name, party.telephone or (said.telephone if said else None)
    )
