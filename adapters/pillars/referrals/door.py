"""The door of a pillar's referrals: one form, judged and translated as all of them are."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

from adapters.pillars.examples import complete
from adapters.pillars.referrals import needs
from adapters.pillars.referrals.form import Referral
from adapters.pillars.referrals.translate import translate
from broker.ports import Context, Draft, FieldPaths, Needs, Seek, Withheld


class Referrals:
    """Pure. The same request and context, the same bytes."""

    def __init__(self, form: type[Referral], door: str | None = None) -> None:
        self.accepts = form
        self.name = f"{form.pillar}.referrals"
        self.door = door or f"/{form.pillar}/referrals"
        self.paths = FieldPaths(
            named="provider",
            practice="practice.ods",
            deciding=(
                *("pathway", "reason.code", "red_flags"),
                *("provider", "practice.ods", "patient.address.postcode"),
            ),
        )

    @cached_property
    def examples(self) -> Mapping[str, Mapping[str, Any]]:
        """Return a complete body of each pathway that the pillar may send, by its id."""
        return complete(self.accepts)

    def needs(self, request: Referral, now: datetime) -> Needs:
        return needs.needs(request, now)

    def translate(self, request: Referral, context: Context) -> Sequence[Draft]:
        return translate(request, context)

    def withheld(self, raw: Mapping[str, Any]) -> Withheld | None:
        return needs.withheld(raw, self.accepts)

    def danger(self, raw: Mapping[str, Any]) -> str | None:
        return needs.danger(raw, self.accepts)

    def sought(self, raw: Mapping[str, Any]) -> Seek | None:
        return needs.sought(raw, self.accepts)
