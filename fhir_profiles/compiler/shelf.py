"""Where the checks of profiles find other profiles."""

from collections.abc import Sequence
from typing import Any, Protocol

from fhir_profiles.compiler.finding import Finding
from fhir_profiles.compiler.scope import Scope


class Shelf(Protocol):
    """Where other profiles are found."""

    def type_of(self, canonical: str) -> str | None:
        """Return the type that a profile is of; None if the profile is not loaded."""

    def conforms(self, value: Any, canonical: str, scope: Scope) -> bool | None:
        """Whether a value is as a profile says; None if the profile is not loaded."""

    def found(self, value: Any, canonical: str, scope: Scope) -> Sequence[Finding] | None:
        """Return how a value is not as a profile says; None if the profile is not loaded."""

    def canonicals(self, url: str) -> frozenset[str]:
        """Return every canonical that a definition goes by: its own, and those it stands for."""
