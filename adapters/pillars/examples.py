"""Complete bodies: what a pathway's example says, by who may send it, about one patient."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

from adapters.pillars.referrals.form import Referral
from adapters.pillars.who import Who
from fhir_profiles.pathways.catalogue import catalogue
from fhir_profiles.pathways.documents import parse

_FOLDER: Final = files("adapters") / "examples"
_PATIENT: Final[Mapping[str, Any]] = {
    "name": {"family": "Example", "given": "Robin", "prefix": "Ms"},
    "birth_date": "1961-04-02",
    "sex": "female",
    "nhs_number": "9990000018",
    "nhs_number_status": "01",
    "address": {"lines": ["12 Canal Row", "Leeds"], "postcode": "LS1 4AP"},
    "telephone": "07700 900123",
    "preferred_contact": "telephone",
}


def complete(form: type[Referral]) -> Mapping[str, Mapping[str, Any]]:
    """Return a body of each pathway that a pillar may send, by its id."""
    return {
        entry.id: body(form, entry.id)
        for entry in catalogue().entries.values()
        if form.may_send(entry)
    }


def body(form: type[Referral], pathway: str) -> dict[str, Any]:
    """Return a complete body; the pathway's own file says all that is not about who refers."""
    said = _read(f"referrals/{pathway}")
    return {
        "reference": f"{form.pillar}-{pathway}-0001",
        "pathway": pathway,
        "consent": True,
        "assessed_at": "2026-11-20T10:30:00+00:00",
        **_read("referrers")[form.pillar],
        **said,
        "patient": {**_PATIENT, **said.get("patient", {})},
    }


@cache
def _read(name: str) -> Any:
    return parse(_FOLDER / f"{name}.yaml")


def outcomes(form: type[Who]) -> Mapping[str, Mapping[str, Any]]:
    """Return a body of each pathway of which a pillar's example tells an outcome."""
    return {
        pathway: _told(form, "outcome", pathway, {"pathway": pathway, **said})
        for pathway, said in _read("outcomes")[form.pillar].items()
    }


def letters(form: type[Who]) -> Mapping[str, Mapping[str, Any]]:
    """Return a body of each kind of letter."""
    return {
        kind: _told(form, "letter", kind, {"kind": kind, **said})
        for kind, said in _read("letters").items()
    }


def _told(form: type[Who], what: str, name: str, said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "reference": f"{form.pillar}-{what}-{name}-0001",
        "consent": True,
        "seen_at": "2026-11-20T10:30:00+00:00",
        **_read("referrers")[form.pillar],
        **said,
        "patient": _PATIENT,
    }


def communications(form: type[Who]) -> Mapping[str, Mapping[str, Any]]:
    """Return a body of each kind of clinical message that an optometrist sends to a practice."""
    who = _read("referrers")["optometry"]
    return {
        kind: {
            "reference": f"communication-{kind}-0001",
            "consent": True,
            form.sender_field: who["optical_practice"],
            "clinician": {"name": who["clinician"]["name"], "role": "Optometrist"},
            "kind": kind,
            **said,
            "patient": _PATIENT,
            "to": {"ods": "G99001"},
        }
        for kind, said in _read("communications").items()
    }


def updates(form: type[Who]) -> Mapping[str, Mapping[str, Any]]:
    """Return a body of each topic of an update, by its code."""
    return {
        topic: _told(form, "update", topic, {"topic": topic, **said})
        for topic, said in _read("updates").items()
    }
