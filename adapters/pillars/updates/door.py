"""The door of a pillar's updates: one form, judged and translated as all of them are."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

from adapters.pillars import refused
from adapters.pillars.examples import updates
from adapters.pillars.updates import needs
from adapters.pillars.updates.form import Update
from adapters.pillars.updates.translate import translate
from broker.ports import Context, Draft, FieldPaths, Needs, Seek, Withheld


class Updates:
    """Pure. The same request and context, the same bytes."""

    paths = FieldPaths(practice="practice.ods", deciding=("practice.ods",))

    def __init__(self, form: type[Update]) -> None:
        self.accepts = form
        self.name = f"{form.pillar}.updates"
        self.door = f"/{form.pillar}/updates"

    @cached_property
    def examples(self) -> Mapping[str, Mapping[str, Any]]:
        """Return a complete body of each topic, by its code."""
        return updates(self.accepts)

    def needs(self, request: Update, _: datetime) -> Needs:
        return needs.needs(request)

    def translate(self, request: Update, context: Context) -> Sequence[Draft]:
        return translate(request, context)

    def withheld(self, raw: Mapping[str, Any]) -> Withheld | None:
        return needs.withheld(raw, self.accepts)

    def danger(self, raw: Mapping[str, Any]) -> str | None:
        return needs.danger(raw)

    def sought(self, raw: Mapping[str, Any]) -> Seek | None:
        return refused.sought(raw)
