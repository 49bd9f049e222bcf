"""What an entry of the catalogue may say. Strict: what is not known here stops the start.

Sources stand with the rule that they are for; `local: true` marks what no document at hand
confirms, which a region may set otherwise.
"""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from fhir_profiles.pathways.consultation import Consultation
from fhir_profiles.pathways.parts import (
    SLUG,
    Clocks,
    Coded,
    Escalation,
    Group,
    Level,
    Party,
    Pillar,
    Reader,
    Sourced,
    Span,
)


class Reason(Coded, Sourced):
    """Why a patient is referred. It may ask for more urgency than the pathway does, for one of its
    other receivers, and for clocks of its own."""

    snomed: str | None = Field(None, pattern=r"^[0-9]{6,18}$")
    urgency: Level | None = None
    receiver: str | None = None
    emergency: bool = False
    clocks: Clocks = Field(default_factory=dict)


class RedFlag(Coded, Sourced):
    """What must not wait for a message: where it leads at once."""

    leads_to: Literal["999", "emergency-department", "same-day-call"]


class Entry(Sourced):
    """One pathway: who may refer whom to whom, with what, how soon, and who hears of what."""

    id: str = Field(pattern=SLUG)
    name: str = Field(min_length=1)
    version: str = Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")
    group: Group
    senders: tuple[Pillar, ...] = Field(min_length=1)
    local_senders: tuple[Pillar, ...] = ()
    """Of the senders, those that no document at hand confirms: a region may set otherwise."""
    self_referral: bool = False
    receivers: tuple[str, ...] = Field(min_length=1)
    becomes_referral: bool = False
    """Whether what is asked for on it may become a referral on another pathway."""
    clinic_by_reason: bool = False
    """Whether each reason is a subspecialty, whose own clinic is sought."""
    urgency: Level = "routine"
    suspected_cancer: bool = False
    agreed_downgrade: bool = False
    """Whether its receiver lowers its priority only where its sender agrees. Of suspected cancer
    that holds without a word."""
    minimum: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = Field(min_length=1)
    red_flags: tuple[RedFlag, ...] = ()
    closes_unseen: Span | None = None
    """After how long a referral closes by itself of which nothing was heard from its receiver: the
    patient was to make contact."""
    clocks: Mapping[Level, Clocks] = Field(default_factory=dict)
    escalation: Mapping[Level, tuple[Escalation, ...]] = Field(default_factory=dict)
    outcomes: tuple[str, ...] = Field(min_length=1)
    told: Mapping[str, tuple[Party, ...]] = Field(default_factory=dict)
    outcome_to: tuple[Reader, ...] = ()
    """Who gets an outcome, where these are others than usual."""
    consultation: Consultation | None = None
    window: Span | None = None
    """How long another message of the same patient is flagged; None: as `Defaults` says."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        for name in ("senders", "receivers", "minimum", "outcomes", "outcome_to"):
            held = getattr(self, name)
            if len(set(held)) != len(held):
                raise ValueError(f"`{name}` names something twice")
        for part in (self.reasons, self.red_flags):
            codes = [one.code for one in part]
            if len(set(codes)) != len(codes):
                raise ValueError(f"a code stands twice among {codes}")
        if self.window is not None and self.window.working_days is not None:
            raise ValueError("`window` is looked back over: it has `hours` or `days`")
        others = set(self.local_senders) - set(self.senders)
        if others:
            raise ValueError(f"`local-senders` names who is no sender: {sorted(others)}")
        elsewhere = {one.receiver for one in self.reasons} - {None, *self.receivers}
        if elsewhere:
            raise ValueError(f"a reason's receiver is none of the pathway's: {elsewhere}")
        return self

    @property
    def lowered_by_agreement(self) -> bool:
        """Whether its priority is lowered only where its sender agrees."""
        return self.suspected_cancer or self.agreed_downgrade

    def reason(self, code: str) -> Reason | None:
        """Return the reason of this code, if it is one of this pathway's."""
        return next((one for one in self.reasons if one.code == code), None)


class Defaults(Sourced):
    """What holds for every pathway whose entry does not say otherwise."""

    version: str
    clocks: Mapping[Level, Clocks]
    escalation: Mapping[Level, tuple[Escalation, ...]]
    told: Mapping[str, tuple[Party, ...]]
    outcome_to: tuple[Reader, ...] = Field(min_length=1)
    window: Span
