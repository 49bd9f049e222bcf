"""Optometry: a referral after a sight test, in an optometrist's words, becomes FHIR.

Pure. `request` is what may be sent, `needs` where to and how soon, `translate` the Bundle.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from typing import Any, Final

from adapters.optometry.needs import danger, needs, sought, withheld
from adapters.optometry.request import OptometryReferral
from adapters.optometry.translate import translate
from broker.ports import Adapter, Context, Draft, FieldPaths, Needs, Seek, Withheld

# Complete bodies by name; as floats, because they are there to be shown.
_EXAMPLES: Final[Mapping[str, Mapping[str, Any]]] = json.loads(
    (files("adapters") / "examples" / "optometry.json").read_bytes()
)


class Optometry:
    """Pure. The same request and context, the same bytes."""

    name = "optometry"
    door = "/optometry/referrals"
    accepts = OptometryReferral
    examples = _EXAMPLES
    paths = FieldPaths(
        named="provider",
        practice="practice.ods",
        sought="condition",
        deciding=(
            *("condition", "subspecialty", "right.pressures", "left.pressures"),
            *("provider", "practice.ods", "patient.address.postcode"),
        ),
    )

    def needs(self, request: OptometryReferral, now: datetime) -> Needs:
        return needs(request, now)

    def translate(self, request: OptometryReferral, context: Context) -> Sequence[Draft]:
        return translate(request, context)

    def withheld(self, raw: Mapping[str, Any]) -> Withheld | None:
        return withheld(raw)

    def danger(self, raw: Mapping[str, Any]) -> str | None:
        return danger(raw)

    def sought(self, raw: Mapping[str, Any]) -> Seek | None:
        return sought(raw)


ADAPTER: Final[Adapter] = Optometry()
