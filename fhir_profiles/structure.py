"""Whether bytes are FHIR R4 at all. The only place that knows which library tells.

Base structure only: elements, cardinalities, types, required codes. Profiles come on top of it.
"""

from dataclasses import dataclass

import fhirkit


@dataclass(frozen=True, slots=True)
class StructureIssue:
    """One problem, with the FHIRPath of the element; `severity` is error or warning."""

    path: str
    severity: str
    message: str


def check(bundle: bytes) -> list[StructureIssue]:
    """Return every problem of the base R4 structure; an empty list means that it is R4."""
    try:
        issues = fhirkit.validate(bundle)
    except fhirkit.ParseError as error:
        return [StructureIssue("", "error", str(error))]
    return [StructureIssue(issue.path, issue.severity, issue.message) for issue in issues]
