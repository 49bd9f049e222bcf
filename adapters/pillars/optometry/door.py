"""Optometry refers and tells: for the eyes in its own words, else in the form that all share."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from importlib.resources import files
from typing import Annotated, Any, ClassVar, Final

from pydantic import AfterValidator, Discriminator, Field, RootModel, Tag, WithJsonSchema

from adapters.pillars.examples import complete
from adapters.pillars.optometry import translate as sight_test
from adapters.pillars.optometry.sight_test import SightTestReferral
from adapters.pillars.optometry.who import OfOptometry
from adapters.pillars.outcomes.door import Outcomes
from adapters.pillars.outcomes.form import Outcome
from adapters.pillars.parts import OfBody, OfEyes
from adapters.pillars.referrals import needs
from adapters.pillars.referrals.form import Referral, known_pathway
from adapters.pillars.referrals.request import Request
from adapters.pillars.referrals.translate import translate
from adapters.pillars.updates.door import Updates
from adapters.pillars.updates.form import Update
from adapters.pillars.who import Clinician
from broker.ports import Adapter, Context, Draft, FieldPaths, Needs, Seek, Withheld
from fhir_profiles import codes
from fhir_profiles.blocks import Organisation
from fhir_profiles.pathways.catalogue import catalogue
from fhir_profiles.pathways.entry import Entry
from fhir_profiles.values import GocNumber, Line, refusal

# Complete bodies of sight tests, by name; as floats, because they are there to be shown.
_SIGHT_TESTS: Final[Mapping[str, Mapping[str, Any]]] = json.loads(
    (files("adapters") / "examples" / "optometry.json").read_bytes()
)


class OpticalClinician(Clinician):
    """The optometrist or dispensing optician who refers or tells."""

    goc_number: GocNumber = Field(examples=["01-12345"])
    """GOC number, like 01-12345."""

    registers: ClassVar[Mapping[str, str]] = {"goc_number": codes.GOC}


def _for_the_common_form(entry: Entry) -> bool:
    return "optometry" in entry.senders and entry.group != "eye"


def _not_of_eyes(pathway: str) -> str:
    if catalogue().entries[known_pathway(pathway)].group == "eye":
        raise refusal(
            "sight-test-needed",
            "A referral for the eyes is sent by its condition, with what the sight test found.",
            "Leave `pathway` out; send `condition`, `eye` and the rest of a sight test.",
        )
    return pathway


_PATHWAYS: Final = [one.id for one in catalogue().entries.values() if _for_the_common_form(one)]


class OptometryPathwayReferral(OfOptometry, OfBody, Referral):
    """A patient referred by an optical practice for what is not of the eyes.

    Goes to the named provider, else to the service that the pathway and its reason ask for; the
    patient's GP practice, if it is known, gets a copy. The more urgent of what you ask for and what
    the pathway asks for counts.
    """

    pathway: Annotated[
        Line,
        AfterValidator(_not_of_eyes),
        WithJsonSchema({"type": "string", "enum": _PATHWAYS}),
    ]
    """What the patient is referred on: an id of the catalogue (`GET /pathways`). A referral for the
    eyes has `condition` in its stead, and the rest of a sight test."""
    clinician: OpticalClinician
    """Who refers."""

    @classmethod
    def may_send(cls, entry: Entry) -> bool:
        return _for_the_common_form(entry)


def _form(body: Any) -> str:
    """Say in which form a body is: that which names a pathway is in the form of all pillars."""
    said = isinstance(body, OptometryPathwayReferral) or (
        isinstance(body, Mapping) and "pathway" in body
    )
    return "pathway" if said else "sight-test"


class OptometryReferral(
    RootModel[
        Annotated[
            Annotated[SightTestReferral, Tag("sight-test")]
            | Annotated[OptometryPathwayReferral, Tag("pathway")],
            Discriminator(_form),
        ]
    ]
):
    """A patient referred by an optometrist: for the eyes after a sight test, or on a pathway."""


class OptometryUpdate(OfOptometry, Update):
    """What an optical practice tells the practice.

    It goes to the registered practice, for the record. What is asked of the practice, by you or by
    what was measured, is a referral of its own that no routine queue delays.
    """

    practice: Organisation
    """The patient's registered GP practice, whose record it is for."""
    clinician: OpticalClinician
    """Who tells."""


class OptometryOutcome(OfOptometry, OfEyes, Outcome):
    """What an optical practice found and did for a patient who was referred to it.

    It goes to the registered practice and to who referred, on some pathways also to the patient's
    optometrist or dentist. It ends the referral that it answers, or leaves it in progress. Each
    thing that the practice is asked to do is a referral of its own.
    """

    practice: Organisation | None = None
    """The patient's registered GP practice, whose record it is for."""
    clinician: OpticalClinician
    """Who tells."""


class OptometryReferrals:
    """Pure. The same request and context, the same bytes."""

    name = "optometry"
    door = "/optometry/referrals"
    accepts = OptometryReferral
    paths = FieldPaths(
        named="provider",
        practice="practice.ods",
        deciding=(
            *("condition", "subspecialty", "right.pressures", "left.pressures"),
            *("pathway", "reason.code", "red_flags"),
            *("provider", "practice.ods", "patient.address.postcode"),
        ),
    )

    @cached_property
    def examples(self) -> Mapping[str, Mapping[str, Any]]:
        """Return complete bodies: sight tests by name, then each other pathway's by its id."""
        return {**_SIGHT_TESTS, **complete(OptometryPathwayReferral)}

    def needs(self, request: OptometryReferral, now: datetime) -> Needs:
        return needs.needs(request.root, now)

    def translate(self, request: OptometryReferral, context: Context) -> Sequence[Draft]:
        said = request.root
        if isinstance(said, SightTestReferral):
            return sight_test.translate(said, context)
        return translate(said, context)

    def withheld(self, raw: Mapping[str, Any]) -> Withheld | None:
        return needs.withheld(raw, _model(raw))

    def danger(self, raw: Mapping[str, Any]) -> str | None:
        return needs.danger(raw, _model(raw))

    def sought(self, raw: Mapping[str, Any]) -> Seek | None:
        return needs.sought(raw, _model(raw))


def _model(raw: Mapping[str, Any]) -> type[Request]:
    return OptometryPathwayReferral if _form(raw) == "pathway" else SightTestReferral


REFERRALS: Final[Adapter] = OptometryReferrals()
UPDATES: Final[Adapter] = Updates(OptometryUpdate)
OUTCOMES: Final[Adapter] = Outcomes(OptometryOutcome)
