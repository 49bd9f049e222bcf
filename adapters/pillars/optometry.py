"""Optometry tells: what an optical practice has to say beside a referral (`adapters.optometry`)."""

from collections.abc import Mapping
from typing import ClassVar, Final

from pydantic import Field

from adapters.pillars.updates.door import Updates
from adapters.pillars.updates.form import Update
from adapters.pillars.who import Clinician, Who
from broker.ports import Adapter
from fhir_profiles import codes
from fhir_profiles.blocks import Organisation
from fhir_profiles.values import GocNumber


class OpticalClinician(Clinician):
    """The optometrist or dispensing optician who tells."""

    goc_number: GocNumber = Field(examples=["01-12345"])
    """GOC number, like 01-12345."""

    registers: ClassVar[Mapping[str, str]] = {"goc_number": codes.GOC}


class OfOptometry(Who):
    """Who speaks for the pillar."""

    pillar: ClassVar[str] = "optometry"
    sender_field: ClassVar[str] = "optical_practice"

    optical_practice: Organisation
    """The optical practice: the organisation of your token."""
    clinician: OpticalClinician
    """Who tells."""


class OptometryUpdate(OfOptometry, Update):
    """What an optical practice tells the practice.

    It goes to the registered practice, for the record. What is asked of the practice, by you or by
    what was measured, is a referral of its own that no routine queue delays.
    """

    practice: Organisation
    """The patient's registered GP practice, whose record it is for."""


UPDATES: Final[Adapter] = Updates(OptometryUpdate)
