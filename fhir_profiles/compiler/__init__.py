"""From definitions to checks: FHIR conformance resources are compiled once and run on raw JSON."""
