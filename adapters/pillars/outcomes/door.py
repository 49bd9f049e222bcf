"""The door of a pillar's outcomes: one form, judged and translated as all of them are."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

from adapters.pillars.examples import letters, outcomes
from adapters.pillars.outcomes import needs
from adapters.pillars.outcomes.form import Outcome
from adapters.pillars.outcomes.letter import Letter
from adapters.pillars.outcomes.translate import translate
from broker.ports import Context, Draft, FieldPaths, Needs, Seek, Withheld


class Outcomes:
    """Pure. The same request and context, the same bytes."""

    paths = FieldPaths(named="referrer", practice="practice.ods", deciding=("practice.ods",))

    def __init__(self, form: type[Outcome]) -> None:
        self.accepts = form
        self._what = "letters" if issubclass(form, Letter) else "outcomes"
        self.name = f"{form.pillar}.{self._what}"
        self.door = f"/{form.pillar}/{self._what}"

    @cached_property
    def examples(self) -> Mapping[str, Mapping[str, Any]]:
        """Return complete bodies: of a hospital one of each kind of letter, else by pathway."""
        form = self.accepts
        return letters(form) if issubclass(form, Letter) else outcomes(form)

    def needs(self, request: Outcome, now: datetime) -> Needs:
        return needs.needs(request, now)

    def translate(self, request: Outcome, context: Context) -> Sequence[Draft]:
        return translate(request, context)

    def withheld(self, raw: Mapping[str, Any]) -> Withheld | None:
        return needs.withheld(raw, self.accepts)

    def danger(self, raw: Mapping[str, Any]) -> str | None:
        return needs.danger(raw)

    def sought(self, raw: Mapping[str, Any]) -> Seek | None:
        return needs.sought(raw, self.accepts)
