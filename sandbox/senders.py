"""The systems that send: a pharmacy's, an optometrist's, any pillar's, in their own words.

All collect what they are told from their own inbox too.
"""

import copy
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final
from uuid import uuid4

from adapters.pharmacy import ADAPTER as PHARMACY
from adapters.pillars.optometry.door import REFERRALS as OPTOMETRY
from broker import registry
from sandbox import marks
from sandbox.client import Reply
from sandbox.inbox import InboxPartner

Body = dict[str, Any]

PRACTICES: Final[Mapping[str, str]] = {
    "G99001": "Riverside Medical Practice",
    "G99002": "Hilltop Surgery",
}


class Sender(InboxPartner):
    """Posts bodies that it draws up from the door's own examples, each with its own reference."""

    door = ""
    _free_text = ""
    _addressee = ""
    _prefix = ""
    _examples: Mapping[str, Mapping[str, Any]] = {}

    def __init__(self, *identity: Any, **settings: Any) -> None:
        super().__init__(*identity, **settings)
        self._run = uuid4().hex[:8].upper()
        self._count = count(1)

    def draw_up(
        self, example: str, *, practice: str = "", family: str = "", **changes: Any
    ) -> Body:
        """Return a new body: an example of the door with a new reference, and a nonce in text.

        `family` is the patient's family name, which may be a sentinel; `changes` replace whole
        fields, and one that is None is left out.
        """
        body: Body = copy.deepcopy(dict(self._examples[example]))
        body["reference"] = f"{self._prefix}-{self._run}-{next(self._count):05}"
        if practice:
            body["practice"] = {"ods": practice, "name": PRACTICES.get(practice, practice)}
        if family:
            body["patient"]["name"] = {**body["patient"]["name"], "family": family}
        body |= changes
        text = body.get(self._free_text)
        if text and isinstance(text, str):
            body[self._free_text] = f"{text} ({marks.nonce()})"
        return {name: value for name, value in body.items() if value is not None}

    def facts(self, body: Body) -> Body:
        """Return what this sender's ledger keeps of a body: what it holds, and whom it is for.

        `to` is given only where the body itself names who is to act on it.
        """
        who = body.get("patient")
        said: Body = {"reference": str(body.get("reference", ""))}
        if who:
            said["patient"] = marks.patient(
                who.get("nhs_number") or "", who["birth_date"], who["name"]["family"]
            )
        if self._addressee in body:
            said["to"] = [body[part]["ods"] for part in ("practice", "provider") if part in body]
        if False in (body.get("consent_to_inform_gp"), body.get("consent")):
            said["refused"] = True
        return {**said, "nonces": marks.nonces(json.dumps(body).encode())}

    async def submit(self, body: Body, *, key: str | None = None) -> Reply:
        """Post a body until it is answered, always under the same key."""
        return await self.send("POST", self.door, body, key=key, **self.facts(body))

    async def correct(self, message_or_referral: str, body: Body, etag: str) -> Reply:
        """Put a whole new body in the place of what was sent."""
        path = f"{self.door}/{message_or_referral}"
        return await self.send("PUT", path, body, if_match=etag, **self.facts(body))

    async def withdraw(self, message: str) -> Reply:
        """Withdraw a message that was entered in error."""
        read = await self.client.call("GET", f"/messages/{message}")
        path = f"/messages/{message}/withdrawal"
        return await self.send("POST", path, {}, if_match=read.etag, withdrawn=message)

    async def telephoned(self, message: str, outcome: str, note: str) -> Reply:
        """Record that somebody was telephoned about a message."""
        said = {"outcome": outcome, "note": note}
        return await self.send("POST", f"/messages/{message}/telephone-calls", said, about=message)

    async def track(self, message: str) -> Any:
        """Return what the broker says became of a message, or None."""
        return await self.get(f"/messages/{message}")


class PharmacySystem(Sender):
    """A community pharmacy's system: consultations."""

    door = PHARMACY.door
    _free_text = "clinical_summary"
    _addressee = "practice"
    _prefix = "RP"
    _examples = PHARMACY.examples

    def consultation(self, example: str = "uncomplicated-uti", **changes: Any) -> Body:
        """Return a new consultation that has just ended."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return self.draw_up(example, **{"clinical_time": now, **changes})

    def crisis(self, **changes: Any) -> Body:
        """Return a pressure check that found 196/124: the practice must act today."""
        reading = {"method": "clinic", "systolic": 196, "diastolic": 124, "unit": "mm[Hg]"}
        said = {
            "blood_pressures": [reading],
            "clinical_summary": "196/124 twice, ten minutes apart. No symptoms.",
            "outcome": "gp-same-day",
            "urgency": "same-day",
            "plan": "Please see today.",
        }
        return self.consultation("blood-pressure-check", **{**said, **changes})


class OptometrySystem(Sender):
    """An optometrist's system: referrals straight to the hospital."""

    door = OPTOMETRY.door
    _free_text = "reason"
    _addressee = "provider"
    _prefix = "CV"
    _examples = OPTOMETRY.examples

    def referral(self, example: str = "cataract", **changes: Any) -> Body:
        """Return a new referral after a sight test that was just done."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return self.draw_up(example, **{"date_of_sight_test": now, **changes})


class PillarSystem(Sender):
    """The system of any pillar, which sends what its doors take; `drawn` is what it sent last."""

    drawn: Body
    _free_text = "clinical_summary"
    _addressee = "practice"
    _prefix = "PS"

    async def post(self, door: str, example: str, **changes: Any) -> Reply:
        """Post a new body to a door (`dentistry.referrals`), about a patient who was just seen."""
        adapter = registry.load().adapters[door]
        self._examples = adapter.examples
        now = datetime.now(UTC).isoformat(timespec="seconds")
        seen = {one: now for one in ("assessed_at", "seen_at") if one in adapter.examples[example]}
        self.drawn = body = self.draw_up(example, **{**seen, **changes})
        return await self.send("POST", adapter.door, body, **self.facts(body))
