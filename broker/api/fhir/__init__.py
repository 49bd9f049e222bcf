"""FHIR's REST doors, all under `/FHIR/R4`: what is defined, what is offered, and what was sent."""
