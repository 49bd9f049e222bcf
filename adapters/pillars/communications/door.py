"""The door of clinical messages between any two parties."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from adapters.pillars import refused
from adapters.pillars.communications import needs
from adapters.pillars.communications.form import Clinical
from adapters.pillars.communications.translate import translate
from adapters.pillars.examples import communications
from broker.ports import Adapter, Context, Draft, FieldPaths, Needs, Seek, Withheld


class Communications:
    """Pure. The same request and context, the same bytes."""

    name = "communications"
    door = "/communications"
    accepts = Clinical
    paths = FieldPaths(named="to.ods", deciding=("to",))

    @cached_property
    def examples(self) -> Mapping[str, Mapping[str, Any]]:
        """Return a complete body of each kind that stands alone, by its code."""
        return communications(self.accepts)

    def needs(self, request: Clinical, now: datetime) -> Needs:
        return needs.needs(request, now)

    def translate(self, request: Clinical, context: Context) -> Sequence[Draft]:
        return translate(request, context)

    def withheld(self, raw: Mapping[str, Any]) -> Withheld | None:
        return refused.withheld(raw, self.accepts, needs.glance_at(raw))

    def danger(self, raw: Mapping[str, Any]) -> str | None:
        return needs.danger(raw)

    def sought(self, raw: Mapping[str, Any]) -> Seek | None:
        return needs.sought(raw)


COMMUNICATIONS: Final[Adapter] = Communications()
