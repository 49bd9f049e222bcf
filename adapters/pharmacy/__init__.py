"""Community pharmacy: a consultation becomes an update for the record, and a task if it asks one.

`request` is what is posted, `rules` what it asks for, `needs` what intake must know, `entries` and
`translate` the FHIR that it becomes, `refused` the bodies that are not taken.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from typing import Any, Final

from adapters.pharmacy import refused
from adapters.pharmacy.needs import needs
from adapters.pharmacy.request import Consultation
from adapters.pharmacy.translate import translate
from broker.ports import Adapter, Context, Draft, FieldPaths, Needs, Seek, Withheld

# One complete body per service; as floats, because they are there to be shown.
_EXAMPLES: Final[Mapping[str, Mapping[str, Any]]] = json.loads(
    (files("adapters") / "examples" / "pharmacy.json").read_bytes()
)


class Pharmacy:
    """Pure. The same request and context, the same bytes."""

    name = "pharmacy"
    door = "/pharmacy/consultations"
    accepts = Consultation
    examples = _EXAMPLES
    paths = FieldPaths(practice="practice.ods", sought="service")

    def needs(self, request: Consultation, now: datetime) -> Needs:
        return needs(request)

    def translate(self, request: Consultation, context: Context) -> Sequence[Draft]:
        return translate(request, context)

    def withheld(self, raw: Mapping[str, Any]) -> Withheld | None:
        return refused.withheld(raw)

    def danger(self, raw: Mapping[str, Any]) -> str | None:
        return refused.danger(raw)

    def sought(self, raw: Mapping[str, Any]) -> Seek | None:
        return refused.sought(raw)


ADAPTER: Final[Adapter] = Pharmacy()
