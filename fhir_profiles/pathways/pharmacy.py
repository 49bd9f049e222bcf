"""What a pharmacy's consultations are judged by: each service's rules, and what all of them share.

A service is a pathway whose entry has a `consultation`; what is shared stands in `pharmacy.yaml`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from fhir_profiles.pathways import documents
from fhir_profiles.pathways.catalogue import catalogue
from fhir_profiles.pathways.consultation import Consultation, Outcome, Shared
from fhir_profiles.pathways.rules import Escalation, Facts, Hit, Rule, hits


@dataclass(frozen=True, slots=True)
class Services:
    """All services of a pharmacy, with what they share."""

    shared: Shared
    versions: Mapping[str, str]
    consultations: Mapping[str, Consultation]
    outcomes: Mapping[str, Outcome]

    def warnings(
        self, service: str, facts: Facts, pressures: Sequence[Facts]
    ) -> Iterator[Hit[Rule]]:
        """Yield every contradiction between what happened and its pathway."""
        for rule in (*self.consultations[service].rules, *self.shared.warnings):
            yield from hits(rule, facts, pressures)

    def escalations(
        self, service: str | None, facts: Facts, pressures: Sequence[Facts]
    ) -> Iterator[Hit[Escalation]]:
        """Yield what asks somebody to act. Without a service, as if it were any of them."""
        taken: set[str] = set()
        for rule in self.shared.escalations:
            if rule.line in taken:
                continue
            if service is None or not rule.services or service in rule.services:
                found = list(hits(rule, facts, pressures))
                if found and rule.line:
                    taken.add(rule.line)
                yield from found


@cache
def pharmacy() -> Services:
    """Return the services of a pharmacy, read and checked once."""
    shared = Shared.model_validate(documents.read("pharmacy.yaml"))
    held = catalogue().entries
    return Services(
        shared=shared,
        versions={name: one.version for name, one in held.items() if one.consultation},
        consultations={name: one.consultation for name, one in held.items() if one.consultation},
        outcomes={outcome.code: outcome for outcome in shared.outcomes},
    )
